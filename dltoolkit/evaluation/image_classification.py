"""Evaluation and prediction that the image classification recipes share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from dltoolkit.data.image import dataset as images
from dltoolkit.data.image import pipeline
from dltoolkit.evaluation import baseline, classification, prediction

if TYPE_CHECKING:
    from dltoolkit.data.image.dataset import ImageSplits
    from dltoolkit.data.options import ImageReadOptions
    from dltoolkit.evaluation.classification import LabeledBatches
    from dltoolkit.evaluation.prediction import Prediction
    from dltoolkit.run import Run

MAX_PIXELS = 1 << 20  # pixels of a batch; activations take about a thousand times as many bytes
FROM_SCRATCH_SIDE = 32  # longest side in pixels of the images that the network trained from scratch reads
FROM_SCRATCH_MIN_STEPS = 150  # training steps of that network on small data


def from_scratch(splits: ImageSplits, *, seed: int) -> dict[str, Any]:
    """Train a small network from scratch on the same images, downsampled, and score it on the test split."""
    from dltoolkit.evaluation import feature_extractor

    train, test = (downsample(splits, rows) for rows in (splits.train, splits.test))
    labels = splits.labels
    network = feature_extractor.train(
        train, labels[splits.train], splits.classes, seed=seed, batch_size=32, min_steps=FROM_SCRATCH_MIN_STEPS
    )
    note = f"a small residual network trained from scratch on images of {train.shape[2]}x{train.shape[1]}"
    _, predictions = network.features(test)
    return baseline.score(predictions, labels[splits.test], len(splits.classes), note, seed=seed)


def max_batch_size(shape: tuple[int, ...]) -> int:
    """Return how many images (height, width, channels) are classified together."""
    return max(16, min(256, MAX_PIXELS // (shape[0] * shape[1])))


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
        return classification.measure(run.model, labeled_batches(splits, "test"), run.classes)
    pixels, labels = read_labeled(run, other, run.model.input_shape[1:], read)
    size = max_batch_size(pixels.shape[1:])
    batches = ((pixels[i : i + size],) for i in range(0, len(pixels), size))
    return classification.measure(run.model, (labels, batches), run.classes)


def read_labeled(
    run: Run, other: str, shape: tuple[int, int, int], read: ImageReadOptions
) -> tuple[np.ndarray, np.ndarray]:
    """Read other labeled images: pixels uint8 (n, *shape) and class indices int (n,).

    Args:
        run: Run whose classes the labels are.
        other: Value of ``--data``.
        shape: (height, width, channels) that the images are resized to.
        read: Options for reading.
    """
    from dltoolkit import progress

    run.warn_of_training_data(other)
    pixels, labels, _ = images.labeled(other, run.classes, shape, read, warn=progress.warn)
    return pixels, labels


def stream_predictions(
    run: Run, inputs: Iterable[str | np.ndarray], *, top_k: int = 5, threshold: float = 0.0
) -> Iterator[Prediction]:
    """Yield predictions for images, as the images arrive.

    Args:
        run: Run of an image classifier.
        inputs: Paths, folders, glob patterns, or arrays (h, w) or (h, w, c) with values 0 to 255.
        top_k: Number of classes that each prediction lists.
        threshold: Probability below which the label is ``unsure``.
    """
    shape = run.model.input_shape[1:]
    return prediction.classify(
        run.model,
        run.classes,
        images.expand(inputs),
        lambda item: images.read(item, shape),
        top_k,
        threshold=threshold,
        batch_size=max_batch_size(shape),
    )
