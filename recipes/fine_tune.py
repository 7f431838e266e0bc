"""Fine-tune a trained network on pictures of your own: few labels, minutes on a laptop.

dltoolkit train fine-tune --data ~/flowers --backbone MobileNetV2
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dltoolkit
from dltoolkit import data, evaluation, models, training
from dltoolkit.config import RunConfig, option
from dltoolkit.errors import UserError
from dltoolkit.run import Run, load_model

if TYPE_CHECKING:
    import keras
    import numpy as np

    from dltoolkit.data.augment import Augment
    from dltoolkit.data.images import ImageSplits
    from dltoolkit.evaluation.prediction import Prediction
    from dltoolkit.training.frozen import Cached

OWN = "digits-half"  # a small network, trained here on half of the digits' classes: what there is without a download
# What suits networks that have seen a million photographs, which soon forget, and small ones that have seen little
WELL_TRAINED = {"learning_rate": 5e-5, "unfreeze": 0.3, "rate_decay": 0.8}
LITTLE_TRAINED = {"learning_rate": 2e-3, "unfreeze": 1.0, "rate_decay": 1.0}


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """The options of fine-tuning."""

    data: str = option("digits", "What to train on: a folder, a file, digits, keras:NAME or a TFDS name.")
    backbone: str = option(
        OWN, "Where to go on from: a name of 'dltoolkit list backbones', a run of image-classifier or a .keras file."
    )
    weights: str | None = option(None, "Weights file for a backbone that is named; by default ImageNet's.")
    method: Literal["full", "head"] = option("full", "Train upper layers too, or a new head only.")
    unfreeze: float | None = option(
        None,
        "Share of the backbone's layers to train, from the top; by default 0.3 of one that is named, 1 of others.",
        minimum=0,
        maximum=1,
    )
    learning_rate: float | None = option(
        None,
        "Highest learning rate, of the head; by default 0.00005 for a backbone that is named, 0.002 for others.",
        minimum=1e-8,
        maximum=100,
    )
    rate_decay: float | None = option(
        None,
        "Factor of the learning rate from each layer to the one below it; by default 0.8 in one that is named, else 1.",
        minimum=0.01,
        maximum=1,
    )
    views: int = option(4, "How often each training picture is taken, varied, where --augment is on.", minimum=1)
    batch_size: int = option(32, "Pictures per step, over all devices together.", minimum=1, maximum=4096)
    label_smoothing: float = option(0.1, "Share of the target spread over all classes.", minimum=0, maximum=0.9)
    image_size: int | None = option(
        None, "Square side in pixels; by default what the backbone reads.", minimum=8, maximum=1024
    )
    augment: bool = option(True, "Vary the training pictures: shift them and, where that is safe, mirror them.")
    flip: bool | None = option(
        None, "Mirror training pictures left to right; by default where mirrored ones still look like their class."
    )
    labels_per_class: int | None = option(None, "Train on this many pictures of each class only.", minimum=1)
    image_column: str | None = option(None, "Column of a table that holds the pictures' paths.")
    label_column: str | None = option(None, "Column of a table that holds the labels.")
    header: bool | None = option(None, "Whether a table begins with column names; by default recognised.")
    skip_bad: bool = option(False, "Leave unreadable pictures out instead of stopping.")


def build_data(config: Config) -> ImageSplits:
    """Read, check and split the pictures: uint8 (n, h, w, c), labels and three index arrays."""
    with training.progress.counting() as report:
        return data.images.load(
            config.data,
            image_size=config.image_size or side(config),
            seed=config.seed,
            limit=config.limit,
            labels_per_class=config.labels_per_class,
            skip_bad=config.skip_bad,
            image_column=config.image_column,
            label_column=config.label_column,
            header=config.header,
            progress=report,
        )


def side(config: Config) -> int | None:
    """The pictures' side that the backbone wants, or None."""
    named = models.backbones.find(config.backbone)
    if config.weights and not named:
        raise UserError(f"--weights is for a backbone of 'dltoolkit list backbones', not for {config.backbone}.")
    if named:
        return models.architectures.KNOWN[named].side
    return None if config.backbone == OWN else own(config).input_shape[1]


def suited(config: Config) -> Config:
    """Choose what was left to the backbone."""
    usual = WELL_TRAINED if models.backbones.find(config.backbone) else LITTLE_TRAINED
    return replace(config, **{name: value for name, value in usual.items() if getattr(config, name) is None})


def build_model(config: Config, pictures: ImageSplits) -> keras.Model:
    """The trained network with a new head: raw pixels 0..255 (batch, h, w, c) in, logits (batch, classes) out."""
    import keras

    keras.utils.set_random_seed(config.seed)
    named = models.backbones.find(config.backbone)
    if named:
        backbone = models.backbones.application(named, pictures.image_shape, config.weights or "imagenet")
    else:
        model = half_of_the_digits(config.seed) if config.backbone == OWN else own(config)
        backbone = models.backbones.headless(model, config.backbone)
    if backbone.input_shape[1:] != pictures.image_shape:
        wanted, there = ("x".join(map(str, shape)) for shape in (backbone.input_shape[1:], pictures.image_shape))
        raise UserError(f"{config.backbone} reads pictures of {wanted}, and those of {config.data} are {there}.")
    models.backbones.freeze_statistics(backbone)
    logits = keras.layers.Dense(len(pictures.classes), dtype="float32", name="logits")(backbone.output)
    return keras.Model(backbone.input, logits, name=backbone.name)


def own(config: Config) -> keras.Model:
    """An earlier run's network, or a file's."""
    path = Path(config.backbone).expanduser()
    if path.suffix == ".keras":
        return load_model(path)
    try:
        run = dltoolkit.load(config.backbone, config.out_dir)
    except UserError:
        raise models.backbones.unknown(config.backbone) from None
    return run.model


def half_of_the_digits(seed: int) -> keras.Model:
    """A small classifier of the training digits 0 to 4."""
    digits = data.images.load("digits", seed=seed)
    rows = digits.train[digits.labels[digits.train] < 5]
    return evaluation.probe.train(digits.images[rows], digits.labels[rows], digits.classes[:5], seed=seed).model


def train(config: Config = Config(), *, resume: Run | None = None) -> Run:
    """Fit a head on frozen features, train upper layers too, keep what validation prefers, test once, report.

    Args:
        config: the options.
        resume: a run of this recipe to go on with, instead of a new one.
    """
    run = resume or Run.create(__file__, config, data.source.resolve(config.data).name)
    with run.session():
        if training.strategy.devices(config.device).replicas > 1:  # before anything starts TensorFlow
            raise UserError("fine-tune trains on one device so far; choose one with --device.")
        config = suited(config)
        pictures = build_data(config)
        run.describe_data(pictures.describe(), pictures.findings)
        began = time.monotonic()
        work = Work(config, build_model(config, pictures), pictures)
        chosen = work.fit_head()
        run.update(head={"strength": chosen, **work.first})
        spent = time.monotonic() - began
        probe = work.probe()
        training.progress.note(f"a head on frozen features: validation accuracy {100 * work.first['accuracy']:.2f} %")
        kept = "head"
        if config.method == "head":
            run.update(time={"train_seconds": round(spent, 2)})
        else:
            left = config.max_time and max(1.0, config.max_time - spent)
            training.fit.fit(run, replace(config, max_time=left), work.job(spent))
            best = max((row["validation_accuracy"], -row["validation_loss"]) for row in run.history)
            kept = "fine-tuned" if best > (work.first["accuracy"], -work.first["loss"]) else "head"
            training.progress.note(f"kept: {kept}")
        if kept == "head":
            work.top.set_weights(work.with_head)
        run.update(kept=kept)
        evaluation.pictures.conclude(run, work.whole, pictures, baselines={"probe": probe})
    return run


class Work:
    """A network parted in what stays as it is and what is trained, and what the first part makes of the pictures.

    Attributes:
        whole: raw pixels in, logits out.
        top: what is trained, from the first part's answers to logits; shares its layers with ``whole``.
        first: validation accuracy and loss of the first head.
        with_head: the weights of ``top`` with it.
    """

    def __init__(self, config: Config, whole: keras.Model, pictures: ImageSplits):
        import keras

        self.config, self.whole, self.pictures = config, whole, pictures
        self.head = whole.layers[-1]
        backbone = keras.Model(whole.input, self.head.input)
        at = models.backbones.cut(backbone, config.unfreeze if config.method == "full" else 0.0)
        self.bottom, self.middle, self.top = (
            keras.Model(*ends) for ends in ((whole.input, at), (at, self.head.input), (at, whole.output))
        )
        augment = augmentation(config, pictures)
        with training.progress.counting() as report:
            self.train = training.frozen.computed(
                self.bottom,
                pictures,
                "train",
                views=config.views if augment else 1,
                augment=augment,
                seed=config.seed,
                progress=report,
            )
            self.validation = training.frozen.computed(self.bottom, pictures, "validation", progress=report)

    def fit_head(self) -> float:
        """Give the network the head that suits frozen features best, and return its inverse regularisation."""
        import keras

        features, truth = self._features(self.validation), self.validation.labels
        kernel, bias, strength = training.frozen.linear_head(
            (self._features(self.train), self.train.labels), (features, truth), len(self.pictures.classes)
        )
        self.head.set_weights([kernel, bias])
        self.with_head = self.top.get_weights()
        logits = features @ kernel + bias
        loss = self._loss()(keras.ops.one_hot(truth, len(self.pictures.classes)), logits)
        self.first = {
            "accuracy": round(float((logits.argmax(axis=1) == truth).mean()), 6),
            "loss": round(float(loss), 6),
        }
        return strength

    def probe(self) -> dict[str, Any]:
        """Score the head on frozen features, which the network must still have, on the test split."""
        labels, batches = evaluation.pictures.part(self.pictures, "test")
        answers = evaluation.prediction.logits(self.whole, batches).argmax(axis=1)
        note = "logistic regression on frozen features"
        return evaluation.baseline.scored(answers, labels, len(self.pictures.classes), note, seed=self.config.seed)

    def _loss(self) -> keras.losses.Loss:
        import keras

        return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=self.config.label_smoothing)

    def _features(self, cached: Cached) -> np.ndarray:
        self.middle.compile(jit_compile=False)
        return evaluation.prediction.logits(self.middle, cached.evaluation_batches(256))

    def job(self, seconds_before: float) -> training.fit.Job:
        """Say what the training loop needs: model, batches, loss."""
        return training.fit.Job(
            build_model=self._restored,
            batches=lambda batch_size, start: self.train.training_batches(batch_size, self.config.seed, start),
            validation=self.validation.evaluation_batches,
            examples=len(self.pictures.train),
            validation_examples=len(self.pictures.validation),
            compile=self._compile,
            epochs=10,
            seconds_before=seconds_before,
            delivered=lambda top: self.whole,
        )

    def _restored(self) -> keras.Model:
        self.top.set_weights(self.with_head)
        return self.top

    def _compile(self, top: keras.Model, config: Config, batch_size: int, **how: Any) -> Any:
        """The upper a layer, the faster it learns (Howard & Ruder 2018)."""
        weighted = [layer for layer in top.layers if layer.trainable_weights]
        factors = {
            variable.path: config.rate_decay**below
            for below, layer in enumerate(reversed(weighted))
            for variable in layer.trainable_weights
        }
        return training.optimizer.compile(
            top,
            config,
            batch_size,
            loss=self._loss(),
            metrics=["accuracy"],
            rate_factors=factors,
            **how,
        )


def augmentation(config: Config, pictures: ImageSplits) -> Augment | None:
    """Decide how training pictures are varied; whether mirrored ones still look like their class, the data say."""
    if not config.augment:
        return None
    flip = data.augment.mirroring_suits(pictures) if config.flip is None else config.flip
    return data.augment.for_images(pictures.image_shape, flip=flip)


def evaluate(run: Run, other: str | None = None, **reading: Any) -> dict[str, Any]:
    """Measure on the run's own test split, or on other labelled pictures; shaped like ``metrics["test"]``.

    Args:
        run: a run of this recipe.
        other: what ``--data`` takes.
        reading: ``skip_bad``, ``image_column``, ``label_column`` or ``header``, where they differ from the run's own.

    Raises:
        UserError: if the run's data have changed, or the other data hold a class that the run does not know.
    """
    config = replace(run.config, image_size=run.model.input_shape[1], **reading)
    return evaluation.pictures.evaluate(run, lambda: build_data(config), other, config)


def predict(run: Run, inputs: Iterable[Any], **options: Any) -> list[Prediction]:
    """Classify pictures; inputs and options are those of :func:`predictions`."""
    return list(predictions(run, inputs, **options))


def predictions(
    run: Run, inputs: Iterable[str | np.ndarray], *, top_k: int = 5, threshold: float = 0.0
) -> Iterator[Prediction]:
    """Classify pictures one after the other, as they come.

    Args:
        run: a run of this recipe.
        inputs: paths, folders, globs, or arrays (h, w), (h, w, c), uint8 or 0..255.
        top_k: how many classes each answer lists.
        threshold: below this probability the label is ``unsure``.
    """
    return evaluation.pictures.predictions(run, inputs, top_k=top_k, threshold=threshold)
