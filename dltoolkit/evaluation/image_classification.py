"""Evaluation that the image classification recipes share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from dltoolkit import progress
from dltoolkit.data.image import dataset as images
from dltoolkit.data.image import pipeline
from dltoolkit.evaluation import classification, training_examples
from dltoolkit.evaluation.baseline import Baseline
from dltoolkit.evaluation.image_predictor import max_batch_size, preprocessing
from dltoolkit.formatting import counted

if TYPE_CHECKING:
    from dltoolkit.data.image.dataset import ImageSplits
    from dltoolkit.data.options import ImageReadOptions
    from dltoolkit.evaluation.classification import LabeledBatches
    from dltoolkit.run import Run

FROM_SCRATCH_SIDE = 32  # longest side in pixels of the images that the network trained from scratch reads
FROM_SCRATCH_MIN_STEPS = 150  # training steps of that network on small data


def from_scratch(splits: ImageSplits, *, seed: int, max_seconds: float | None = None) -> Baseline:
    """Train a small network from scratch on the same images, downsampled, and classify the test split.

    Args:
        splits: The images.
        seed: Seed of the training.
        max_seconds: Time limit of the training.
    """
    from dltoolkit.evaluation import feature_extractor

    train, test = (downsample(splits, rows) for rows in (splits.train, splits.test))
    labels = splits.labels
    options = {"batch_size": 32, "min_steps": FROM_SCRATCH_MIN_STEPS, "max_seconds": max_seconds}
    network = feature_extractor.train(train, labels[splits.train], splits.classes, seed=seed, **options)
    limited = f" in {counted(network.limited_steps, 'step')} because of --max-time" if network.limited_steps else ""
    note = f"a small residual network trained from scratch{limited} on images of {train.shape[2]}x{train.shape[1]}"
    _, predictions = network.features(test)
    return Baseline(splits.test, labels[splits.test], predictions, len(splits.classes), {"note": note})


def downsample(splits: ImageSplits, rows: np.ndarray) -> np.ndarray:
    """Return images uint8 (n, h, w, c); no side is longer than 32 pixels."""
    shape = tuple(min(side, FROM_SCRATCH_SIDE) for side in splits.image_shape[:2])
    if shape == splits.image_shape[:2]:
        return splits.images[rows]
    chunks = np.split(rows, range(256, len(rows), 256))
    resized = [keras.ops.image.resize(splits.images[chunk], shape, antialias=True) for chunk in chunks]
    return np.concatenate([np.clip(np.rint(chunk), 0, 255).astype(np.uint8) for chunk in resized])


def labeled_batches(splits: ImageSplits, split: str) -> LabeledBatches:
    """Return the labels of a split, and its batches in the same order."""
    size = max_batch_size(splits.image_shape)
    return splits.labels[getattr(splits, split)], pipeline.evaluation_pipeline(splits, split, size)


def evaluate(
    run: Run, build_splits: Callable[[], ImageSplits], other: str | None, read: ImageReadOptions
) -> dict[str, Any]:
    """Measure an image classifier on the test split of its run, or on other labeled images.

    Args:
        run: Run of an image classifier.
        build_splits: Reads the data of the run again.
        other: Value of ``--data``, or None for the run's own test split.
        read: Options for reading ``other``.

    Raises:
        UserError: If the data of the run have changed, or the other data contain a class that the run does not have.
    """
    if other is None:
        splits = build_splits()
        run.check_data(splits.describe())
        progress.note(splits.describe_evaluated())
        return classification.measure(run.model, labeled_batches(splits, "test"), run.labels)
    pixels, labels = read_labeled(run, other, read)
    size = max_batch_size(pixels.shape[1:])
    batches = ((pixels[i : i + size],) for i in range(0, len(pixels), size))
    return classification.measure(run.model, (labels, batches), run.labels)


def read_labeled(run: Run, other: str, read: ImageReadOptions) -> tuple[np.ndarray, np.ndarray]:
    """Read other labeled images as in training: pixels uint8 (n, h, w, c) and class indices int (n,).

    Args:
        run: Run whose classes the labels are.
        other: Value of ``--data``.
        read: Options for reading.
    """
    trained = training_examples.load(run)
    pixels, labels, _ = images.labeled(
        other, run.labels, preprocessing(run), read, note=progress.note, warn=progress.warn, trained=trained
    )
    return pixels, labels
