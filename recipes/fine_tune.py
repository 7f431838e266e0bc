"""Fine-tune a trained network on pictures or texts of your own: few labels, minutes on a laptop.

dltoolkit train fine-tune --data ~/flowers --backbone MobileNetV2
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dltoolkit
from dltoolkit import data, evaluation, models, recipe, training
from dltoolkit.config import RunConfig, option
from dltoolkit.errors import UserError
from dltoolkit.run import Run, load_model

if TYPE_CHECKING:
    import keras

    from dltoolkit.data.augment import Augment
    from dltoolkit.data.images import ImageSplits
    from dltoolkit.data.text import TextSplits
    from dltoolkit.evaluation.prediction import Prediction

OWN = "digits-half"  # a small network, trained here on half of the digits' classes: what there is without a download
# What suits networks that have seen very much, which soon forget, and small ones that have seen little
WELL_TRAINED = {
    "pictures": {"learning_rate": 5e-5, "unfreeze": "0.3", "rate_decay": 0.8, "epochs": 10},
    "texts": {"learning_rate": 1e-4, "unfreeze": "1", "rate_decay": 0.9, "epochs": 3},
}
LITTLE_TRAINED = {"learning_rate": 2e-3, "unfreeze": "all", "rate_decay": 1.0, "epochs": 10}
CURVE_SEEDS = 3
LOW_RANK = {"learning_rate": 1e-3, "unfreeze": "all", "rate_decay": 1.0}


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """The options of fine-tuning."""

    task: Literal["classify", "generate"] = option(
        "classify", "Answer with a class, or go on writing as a run of text-generator, on other text."
    )
    data: str = option("digits", "What to train on: a folder, a table, digits, reviews, keras:NAME or a TFDS name.")
    backbone: str | None = option(
        None,
        "Where to go on from: a name of 'dltoolkit list backbones', a KerasHub preset or its folder, an earlier run, "
        "or a .keras file; by default, for pictures, a small network that is trained on half of the digits.",
    )
    weights: str | None = option(
        None, "Weights file for a backbone of 'dltoolkit list backbones'; by default ImageNet's."
    )
    method: Literal["full", "head", "lora"] = option(
        "full", "Train upper layers too, a new head only, or matrices of low rank beside the layers."
    )
    rank: int = option(8, "Rank of lora's matrices.", minimum=1, maximum=1024)
    unfreeze: str | None = option(
        None,
        "Share of the backbone's layers to train, from the top, 0 to 1, or all, a text's embeddings too; by default "
        "what suits the backbone.",
    )
    learning_rate: float | None = option(
        None, "Highest learning rate, of the head; by default what suits the backbone.", minimum=1e-8, maximum=100
    )
    rate_decay: float | None = option(
        None,
        "Factor of the learning rate from each layer to the one below it; by default what suits the backbone.",
        minimum=0.01,
        maximum=1,
    )
    views: int = option(4, "How often each training picture is taken, varied, where --augment is on.", minimum=1)
    batch_size: int = option(32, "Examples per step, over all devices together.", minimum=1, maximum=4096)
    label_smoothing: float = option(0.1, "Share of the target spread over all classes.", minimum=0, maximum=0.9)
    class_weights: Literal["none", "balanced"] = option("none", "Weigh rare classes up in the loss.")
    labels_per_class: int | None = option(None, "Train on this many examples of each class only.", minimum=1)
    label_curve: str | None = option(
        None, "Also train with so many labels of each class, such as 5,10,20,all, three times each, and draw the curve."
    )
    validation_fraction: float | None = option(
        None, "Share kept for validation, where the data bring none; by default 15 %.", minimum=0.01, maximum=0.5
    )
    test_fraction: float | None = option(
        None, "Share kept for the test, where the data bring none; by default 15 %.", minimum=0.01, maximum=0.5
    )
    image_size: int | None = option(
        None, "Square side in pixels; by default what the backbone reads.", minimum=8, maximum=1024
    )
    augment: bool = option(True, "Vary the training pictures: shift them and, where that is safe, mirror them.")
    flip: bool | None = option(
        None, "Mirror training pictures left to right; by default where mirrored ones still look like their class."
    )
    max_length: int = option(256, "Tokens of a text that are read; of longer ones the middle is left out.", minimum=4)
    dropout: float = option(0.0, "Dropout rate within a text's backbone.", minimum=0, maximum=0.9)
    image_column: str | None = option(None, "Column of a table that holds the pictures' paths.")
    text_column: str | None = option(None, "Column of a table that holds the texts.")
    label_column: str | None = option(None, "Column of a table that holds the labels.")
    header: bool | None = option(None, "Whether a table begins with column names; by default recognised.")
    skip_bad: bool = option(False, "Leave what cannot be read out instead of stopping.")


def kind(config: Config) -> data.kinds.Kind:
    """Whether the data are pictures or texts."""
    if config.image_column or config.text_column:
        return "pictures" if config.image_column else "texts"
    return data.kinds.of(data.source.resolve(config.data))


def build_data(config: Config) -> ImageSplits | TextSplits:
    """Read, check and split the pictures or texts."""
    shared = {
        "seed": config.seed,
        "validation_fraction": config.validation_fraction,
        "test_fraction": config.test_fraction,
        "limit": config.limit,
        "labels_per_class": config.labels_per_class,
        "skip_bad": config.skip_bad,
        "label_column": config.label_column,
        "header": config.header,
    }
    with training.progress.counting() as report:
        if kind(config) == "texts":
            return data.text.load(config.data, text_column=config.text_column, progress=report, **shared)
        size = config.image_size or side(config)
        return data.images.load(
            config.data, image_size=size, image_column=config.image_column, progress=report, **shared
        )


def side(config: Config) -> int | None:
    """The pictures' side that the backbone wants, or None."""
    named = config.backbone and models.backbones.find(config.backbone)
    if config.weights and not named:
        raise UserError(f"--weights is for a backbone of 'dltoolkit list backbones', not for {config.backbone}.")
    if named:
        return models.architectures.KNOWN[named].side
    if config.backbone in (None, OWN):
        return None
    if models.hub.is_preset(config.backbone):
        return models.hub.side(config.backbone)
    if config.backbone.endswith(".keras"):
        return load_model(Path(config.backbone).expanduser()).input_shape[1]
    return earlier(config).info["model"]["input_shape"][0]


def suited(config: Config, kind: data.kinds.Kind) -> Config:
    """Choose what was left to the backbone."""
    name = config.backbone or OWN
    usual = WELL_TRAINED[kind] if models.backbones.find(name) or models.hub.is_preset(name) else LITTLE_TRAINED
    if config.method == "lora":
        usual = {**usual, **LOW_RANK}
    chosen = {name: value for name, value in usual.items() if getattr(config, name) is None and name != "epochs"}
    config = replace(config, **chosen)
    share(config)
    return config


def share(config: Config) -> float | None:
    """The share of the backbone's layers that is trained; None for all, embeddings included."""
    if config.unfreeze == "all":
        return None
    try:
        number = float(config.unfreeze)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise UserError(f"--unfreeze must be a number from 0 to 1, or all, not '{config.unfreeze}'.")
    return number


def build_model(config: Config, splits: ImageSplits | TextSplits) -> keras.Model:
    """The trained network with a new head, its lower layers frozen; gives texts the encoder that belongs to it.

    Pictures: raw pixels 0..255 (batch, h, w, c) in; texts: numbers of tokens int32 (batch, time) in. Logits (batch,
    classes) out.
    """
    import keras

    keras.utils.set_random_seed(config.seed)
    if isinstance(splits, data.images.ImageSplits):
        backbone = picture_backbone(config, splits.image_shape)
        models.backbones.freeze_statistics(backbone)
    else:
        backbone, splits.encoder = text_backbone(config)
    logits = keras.layers.Dense(len(splits.classes), dtype="float32", name="logits")(backbone.output)
    model = keras.Model(backbone.input, logits, name=backbone.name)
    if config.method == "lora":
        models.backbones.low_rank(model, config.rank)
    elif not isinstance(splits, data.images.ImageSplits):
        models.backbones.freeze_below(model, share(config) if config.method == "full" else 0.0)
    return model


def picture_backbone(config: Config, image_shape: tuple[int, int, int]) -> keras.Model:
    """Raw pixels in, features (batch, units) out."""
    name = config.backbone or OWN
    named = models.backbones.find(name)
    if named:
        backbone = models.backbones.application(named, image_shape, config.weights or "imagenet")
    elif models.hub.is_preset(name):
        backbone = models.backbones.of_hub(name, image_shape)
    else:
        own = (
            half_of_the_digits(config.seed)
            if name == OWN
            else load_model(Path(name).expanduser())
            if name.endswith(".keras")
            else earlier(config).model
        )
        backbone = models.backbones.headless(own, name)
    if backbone.input_shape[1:] != image_shape:
        wanted, there = ("x".join(map(str, shape)) for shape in (backbone.input_shape[1:], image_shape))
        raise UserError(f"{name} reads pictures of {wanted}, and those of {config.data} are {there}.")
    return backbone


def text_backbone(config: Config) -> models.text_backbones.TextBackbone:
    """Numbers of tokens in, features (batch, units) out; and what makes texts these numbers."""
    name = config.backbone
    if name is None or models.backbones.find(name):
        raise UserError(
            f"{config.data} holds texts{f', which {name} cannot read' if name else ''}: give --backbone a KerasHub "
            "preset or its folder, or a run of sentiment-analyzer or text-generator."
        )
    if models.hub.is_preset(name):
        return models.text_backbones.of_hub(name, config.max_length, config.dropout)
    run = earlier(config)
    return models.text_backbones.of_run(run.model, run.path, name, config.max_length)


def earlier(config: Config) -> Run:
    """The run that ``--backbone`` names."""
    try:
        return dltoolkit.load(config.backbone, config.out_dir)
    except UserError:
        raise models.backbones.unknown(config.backbone) from None


def half_of_the_digits(seed: int) -> keras.Model:
    """A small classifier of the training digits 0 to 4."""
    digits = data.images.load("digits", seed=seed)
    rows = digits.train[digits.labels[digits.train] < 5]
    return evaluation.probe.train(digits.images[rows], digits.labels[rows], digits.classes[:5], seed=seed).model


def train(config: Config = Config(), *, resume: Run | None = None) -> Run:
    """Fit a head on frozen features, train upper layers too, keep what validation prefers, test once, report.

    With ``task="generate"`` what comes back is a run of text-generator.

    Args:
        config: the options.
        resume: a run of this recipe to go on with, instead of a new one.
    """
    if config.task == "generate":
        return go_on_writing(config)
    run = resume or Run.create(__file__, config, data.source.resolve(config.data).name)
    with run.session():
        if training.strategy.devices(config.device).replicas > 1:  # before anything starts TensorFlow
            raise UserError("fine-tune trains on one device so far; choose one with --device.")
        what = kind(config)
        config, budgets = suited(config, what), label_budgets(config)
        splits = build_data(config)
        run.describe_data(splits.describe(), splits.findings)
        began = time.monotonic()
        whole = build_model(config, splits)
        if what == "texts":
            splits.encoder.save(run.path)
        run.update(kind=what, longest=splits.encoder.longest if what == "texts" else None)
        run.update(model={"trained": sum(math.prod(variable.shape) for variable in whole.trainable_variables)})
        work = Work(config, whole, splits)
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
            work.side.top.set_weights(work.with_head)
        run.update(kept=kept)
        baselines = {"probe": probe}
        if what == "pictures":
            baselines["scratch"] = evaluation.pictures.scratch(splits, seed=config.seed)
        if budgets:
            run.update(label_curve=label_curve(run, budgets))
        work.room.conclude(run, work.whole, splits, baselines=baselines)
    return run


def label_budgets(config: Config) -> list[int | None]:
    """How many labels of each class ``--label-curve`` names; None for all."""
    words = [word.strip() for word in (config.label_curve or "").split(",") if word.strip()]
    if not all(word == "all" or (word.isdigit() and int(word)) for word in words):
        raise UserError(
            f"--label-curve must be numbers of labels, or all, such as 5,10,20,all, not '{config.label_curve}'."
        )
    return [None if word == "all" else int(word) for word in words]


def label_curve(run: Run, budgets: Iterable[int | None]) -> list[dict[str, float]]:
    """Train with so many labels of each class, with three seeds, and return what became of each on the test split.

    Args:
        run: in whose folder ``curve`` the runs are kept; those that have finished are not trained again.
        budgets: labels of each class; None for all.
    """
    points, config = [], run.config
    out_dir = str(run.path / "curve")
    if config.backbone and not models.backbones.find(config.backbone) and not models.hub.is_preset(config.backbone):
        config = replace(config, backbone=str(earlier(config).path.resolve()))
    for budget in budgets:
        for seed in range(config.seed, config.seed + CURVE_SEEDS):
            name = f"{budget or 'all'}-{seed}"
            training.progress.note(f"label curve: {budget or 'all'} labels of each class, seed {seed}")
            try:
                point = dltoolkit.load(f"fine-tune/{name}", out_dir)
            except UserError:
                changed = {"label_curve": None, "labels_per_class": budget, "seed": seed}
                point = train(replace(config, name=name, out_dir=out_dir, **changed))
            if not point.metrics:
                point = dltoolkit.resume(point)
            scores = {"fine-tuned": point.metrics["test"], **point.metrics["baseline"]}
            data = point.info["data"]
            points.append(
                {
                    "labels": budget or data["splits"]["train"] / len(data["classes"]),
                    "seed": seed,
                    **{name: scores[name]["accuracy"] for name in evaluation.plots.LEARNERS if name in scores},
                }
            )
    return points


def go_on_writing(config: Config) -> Run:
    """Let text-generator go on from an earlier run of its own."""
    if not config.backbone:
        raise UserError("--task generate goes on from a run of text-generator: name it with --backbone.")
    shared = {field.name: getattr(config, field.name) for field in fields(RunConfig)}
    shared |= {"batch_size": None, "optimizer": "muon", "text_column": config.text_column}
    writer = recipe.load("text-generator")
    return writer.train(writer.Config(**shared, backbone=str(earlier(config).path)))


class Work:
    """A network on its two sides, what is frozen and what is trained, and its first head.

    Attributes:
        whole: raw pixels or numbers of tokens in, logits out.
        side: what is trained, and on what.
        room: measures and concludes what is trained on pictures, or on texts.
        first: validation accuracy and loss of the first head.
        with_head: the weights of what is trained, with it.
    """

    def __init__(self, config: Config, whole: keras.Model, splits: ImageSplits | TextSplits):
        self.config, self.whole, self.splits = config, whole, splits
        self.head = whole.layers[-1]
        weights = splits.balanced_weights() if config.class_weights == "balanced" else None
        how = {"seed": config.seed, "class_weights": weights}
        if isinstance(splits, data.images.ImageSplits):
            self.room = evaluation.pictures
            trained = share(config) if config.method != "head" else 0.0
            how |= {"views": config.views, "augment": augmentation(config, splits)}
            self.side = training.transfer.Pictures(whole, splits, 1.0 if trained is None else trained, **how)
        else:
            self.room = evaluation.texts
            self.side = training.transfer.Texts(whole, splits, **how)

    def fit_head(self) -> float:
        """Give the network the head that suits frozen features best, and return its inverse regularisation."""
        import keras

        classes = len(self.splits.classes)
        train, validation = self.side.features()
        balanced = self.config.class_weights == "balanced"
        kernel, bias, strength = training.frozen.linear_head(train, validation, classes, balanced=balanced)
        self.head.set_weights([kernel, bias])
        self.with_head = self.side.top.get_weights()
        features, truth = validation
        logits = features @ kernel + bias
        loss = self._loss()(keras.ops.one_hot(truth, classes), logits)
        self.first = {
            "accuracy": round(float((logits.argmax(axis=1) == truth).mean()), 6),
            "loss": round(float(loss), 6),
        }
        return strength

    def probe(self) -> dict[str, Any]:
        """Score the head on frozen features, which the network must still have, on the test split."""
        labels, batches = self.room.part(self.splits, "test")
        answers = evaluation.prediction.logits(self.whole, batches).argmax(axis=1)
        note = "logistic regression on frozen features"
        return evaluation.baseline.scored(answers, labels, len(self.splits.classes), note, seed=self.config.seed)

    def job(self, seconds_before: float) -> training.fit.Job:
        """Say what the training loop needs: model, batches, loss."""
        return training.fit.Job(
            build_model=self._restored,
            batches=self.side.training_batches,
            validation=self.side.validation_batches,
            examples=len(self.splits.train),
            validation_examples=len(self.splits.validation),
            compile=self._compile,
            epochs=10 if self.room is evaluation.pictures else 3,
            seconds_before=seconds_before,
            delivered=lambda top: self.whole,
        )

    def _loss(self) -> keras.losses.Loss:
        import keras

        return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=self.config.label_smoothing)

    def _restored(self) -> keras.Model:
        self.side.top.set_weights(self.with_head)
        return self.side.top

    def _compile(self, top: keras.Model, config: Config, batch_size: int, **how: Any) -> Any:
        """The upper a layer, the faster it learns (Howard & Ruder 2018)."""
        learning = [
            [variable for variable in layer.variables if variable.trainable] for layer in models.backbones.leaves(top)
        ]
        factors = {
            variable.path: config.rate_decay**below
            for below, variables in enumerate(filter(None, reversed(learning)))
            for variable in variables
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
    """Measure on the run's own test split, or on other labelled data; shaped like ``metrics["test"]``.

    Args:
        run: a run of this recipe.
        other: what ``--data`` takes.
        reading: ``skip_bad``, ``image_column``, ``text_column``, ``label_column`` or ``header``, where they differ from
            the run's own.

    Raises:
        UserError: if the run's data have changed, or the other data hold a class that the run does not know.
    """
    config = replace(run.config, **reading)
    if run.info["kind"] == "texts":
        return evaluation.texts.evaluate(run, lambda: build_data(config), other, config, saved_encoder(run))
    config = replace(config, image_size=run.model.input_shape[1])
    return evaluation.pictures.evaluate(run, lambda: build_data(config), other, config)


def predict(run: Run, inputs: Iterable[Any], **options: Any) -> list[Prediction]:
    """Classify pictures or texts; inputs and options are those of :func:`predictions`."""
    return list(predictions(run, inputs, **options))


def predictions(
    run: Run, inputs: Iterable[Any], *, top_k: int = 5, threshold: float = 0.0, text_column: str | None = None
) -> Iterator[Prediction]:
    """Classify pictures or texts one after the other, as they come.

    Args:
        run: a run of this recipe.
        inputs: pictures: paths, folders, globs, or arrays (h, w), (h, w, c), uint8 or 0..255; texts: texts, files,
            folders, globs, or tables with a column of texts.
        top_k: how many classes each answer lists.
        threshold: below this probability the label is ``unsure``.
        text_column: of the tables, by name or position; by default found by its usual names.
    """
    how = {"top_k": top_k, "threshold": threshold}
    if run.info["kind"] == "texts":
        return evaluation.texts.predictions(run, inputs, saved_encoder(run), text_column=text_column, **how)
    if text_column:
        raise UserError("This run classifies pictures: --text-column is for runs that classify texts.")
    return evaluation.pictures.predictions(run, inputs, **how)


def saved_encoder(run: Run) -> data.encoders.TextEncoder:
    """What makes texts the numbers that a run's network reads.

    Raises:
        UserError: if it is missing or damaged.
    """
    return data.encoders.load(run.path, run.info["longest"])
