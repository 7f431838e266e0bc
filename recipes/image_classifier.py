"""Train an image classifier from scratch on a folder of class folders, a TFDS data set or the bundled digits.

dltoolkit train image-classifier --data ~/flowers --max-time 10m
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from dltoolkit import data, evaluation, models, progress, report, training
from dltoolkit.config import OptimizerOptions, RunConfig, option
from dltoolkit.errors import UserError
from dltoolkit.run import Run

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf

    from dltoolkit.data.image.augment import Augment
    from dltoolkit.data.image.dataset import ImageSplits
    from dltoolkit.evaluation.prediction import Prediction


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig, OptimizerOptions):
    """The options of the image classifier."""

    data: str = option("digits", "What to train on: a folder, a file, digits, keras:NAME or a TFDS name.")
    model: Literal["resnet", "cnn", "alexnet", "mlp", "vit"] = option("resnet", "Network family.")
    optimizer: Literal["muon", "adamw", "adam", "sgd"] = option("muon", "Optimizer.")
    widths: tuple[int, ...] | None = option(
        None, "Channels (or units) of each stage; by default the family's.", minimum=1
    )
    dropout: float | None = option(None, "Dropout rate; by default the family's.", minimum=0, maximum=0.9)
    image_size: int | None = option(None, "Square side in pixels; by default the data decide.", minimum=8, maximum=1024)
    augment: bool = option(True, "Vary the training pictures: shift them and, where that is safe, mirror them.")
    flip: bool | None = option(
        None, "Mirror training pictures left to right; by default where mirrored ones still look like their class."
    )
    tta: bool | None = option(
        None, "Average each answer over the picture and its mirror image; by default where training mirrors."
    )
    cutout: int = option(0, "Side in pixels of a square blanked in training pictures; 0 for none.", minimum=0)
    color_jitter: float = option(0.0, "Strength of varied brightness, contrast and saturation.", minimum=0, maximum=0.9)
    mixup: float = option(0.0, "Strength of mixup (Zhang 2018); 0 for none.", minimum=0, maximum=10)
    cutmix: float = option(0.0, "Strength of CutMix (Yun 2019); 0 for none.", minimum=0, maximum=10)
    label_smoothing: float = option(0.2, "Share of the target spread over all classes.", minimum=0, maximum=0.9)
    class_weights: Literal["none", "balanced"] = option("none", "Weigh rare classes up in the loss.")
    shots: int | None = option(None, "Train on this many pictures of each class only.", minimum=1)
    validation_fraction: float | None = option(
        None, "Share kept for validation, where the data bring none; by default 15 %.", minimum=0.01, maximum=0.5
    )
    test_fraction: float | None = option(
        None, "Share kept for the test, where the data bring none; by default 15 %.", minimum=0.01, maximum=0.5
    )
    image_column: str | None = option(None, "Column of a table that holds the pictures' paths.")
    label_column: str | None = option(None, "Column of a table that holds the labels.")
    header: bool | None = option(None, "Whether a table begins with column names; by default recognised.")
    skip_invalid: bool = option(False, "Leave unreadable pictures out instead of stopping.")


def build_data(config: Config) -> ImageSplits:
    """Read, check and split the pictures: uint8 (n, h, w, c), labels and three index arrays."""
    with progress.counting() as on_progress:
        return data.image.dataset.load(
            config.data,
            image_size=config.image_size,
            seed=config.seed,
            validation_fraction=config.validation_fraction,
            test_fraction=config.test_fraction,
            limit=config.limit,
            shots=config.shots,
            skip_invalid=config.skip_invalid,
            image_column=config.image_column,
            label_column=config.label_column,
            header=config.header,
            progress=on_progress,
        )


def build_model(config: Config, pictures: ImageSplits) -> keras.Model:
    """Raw pixels 0..255 (batch, h, w, c) in, logits (batch, classes) out; scaling is inside."""
    model = models.image.classifiers.build(
        config.model,
        pictures.image_shape,
        len(pictures.classes),
        widths=config.widths,
        dropout=config.dropout,
    )
    models.image.classifiers.whiten(model, pictures.images[pictures.train[:: -(-len(pictures.train) // 500)]])
    return model


def train(config: Config = Config(), *, resume: Run | None = None) -> Run:
    """Split, train, keep the best epoch by validation, test once, report.

    Args:
        config: the options.
        resume: a run of this recipe to go on with, instead of a new one.
    """
    run = resume or Run.create(__file__, config, data.readers.source.resolve(config.data).name)
    with run.session():
        training.distribute.strategy.devices(config.device)  # before anything starts TensorFlow
        pictures = build_data(config)
        run.describe_data(pictures.describe(), pictures.findings)
        augment = augmentation(config, pictures)
        run.update(augment=asdict(augment) if augment else None)
        model = training.fit.fit(run, config, job(config, pictures, augment))
        if config.tta or (config.tta is None and augment and augment.flip):
            model = models.image.classifiers.with_flip_tta(model)
        seen = next(iter(training_batches(config, pictures, augment, 36, 0)))[0].numpy()
        report.image_classification.evaluate_and_report(run, model, pictures, samples={"augmented": seen})
    return run


def job(config: Config, pictures: ImageSplits, augment: Augment | None) -> training.fit.Job:
    """Say what the training loop needs: model, batches, loss."""
    import keras

    return training.fit.Job(
        build_model=lambda: build_model(config, pictures),
        batches=lambda batch_size, start: training_batches(config, pictures, augment, batch_size, start),
        validation=lambda batch_size: data.pipeline.evaluation_pipeline(pictures, "validation", batch_size),
        examples=len(pictures.train),
        validation_examples=len(pictures.validation),
        compile=functools.partial(
            training.optimizer.compile,
            loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=config.label_smoothing),
            metrics=["accuracy"],
        ),
        epochs=min(25, max(10, 500_000 // len(pictures.train))),
    )


def augmentation(config: Config, pictures: ImageSplits) -> Augment | None:
    """Decide how training pictures are varied; whether mirrored ones still look like their class, the data say."""
    if not config.augment:
        if config.cutout or config.color_jitter or config.mixup or config.cutmix or config.flip:
            raise UserError("--no-augment switches all variation off: leave it out, or the others.")
        return None
    flip = config.flip
    if flip is None:
        flip = data.image.augment.mirroring_suits(pictures)
    gentle = data.image.augment.for_images(pictures.image_shape, flip=flip)
    return replace(
        gentle, cutout=config.cutout, color_jitter=config.color_jitter, mixup=config.mixup, cutmix=config.cutmix
    )


def training_batches(
    config: Config, pictures: ImageSplits, augment: Augment | None, batch_size: int, start_step: int
) -> tf.data.Dataset:
    """Endless training batches from a step on: pictures (batch, h, w, c), one-hot labels, weights if asked for."""
    return data.pipeline.training_pipeline(
        pictures,
        batch_size=batch_size,
        seed=config.seed,
        augment=augment,
        class_weights=pictures.balanced_weights() if config.class_weights == "balanced" else None,
        start_step=start_step,
    )


def evaluate(run: Run, other: str | None = None, **reading: Any) -> dict[str, Any]:
    """Measure on the run's own test split, or on other labelled pictures; shaped like ``metrics["test"]``.

    Args:
        run: a run of this recipe.
        other: what ``--data`` takes.
        reading: ``skip_invalid``, ``image_column``, ``label_column`` or ``header``, where they differ from the run's own.

    Raises:
        UserError: if the run's data have changed, or the other data hold a class that the run does not know.
    """
    config = replace(run.config, **reading)
    return evaluation.image_classification.evaluate(run, lambda: build_data(config), other, config)


def predict(run: Run, inputs: Iterable[Any], **options: Any) -> list[Prediction]:
    """Classify pictures; inputs and options are those of :func:`stream_predictions`."""
    return list(stream_predictions(run, inputs, **options))


def stream_predictions(
    run: Run, inputs: Iterable[str | np.ndarray], *, top_k: int = 5, threshold: float = 0.0
) -> Iterator[Prediction]:
    """Classify pictures one after the other, as they come.

    Args:
        run: a run of this recipe.
        inputs: paths, folders, globs, or arrays (h, w), (h, w, c), uint8 or 0..255.
        top_k: how many classes each answer lists.
        threshold: below this probability the label is ``unsure``.
    """
    return evaluation.image_classification.stream_predictions(run, inputs, top_k=top_k, threshold=threshold)
