"""Evaluation and prediction that the image classification recipes share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from PIL import Image

from dltoolkit import progress
from dltoolkit.data.image import dataset as images
from dltoolkit.data.image import pipeline
from dltoolkit.data.image.preprocessing import Preprocessing
from dltoolkit.errors import UserError
from dltoolkit.evaluation import classification, predictor
from dltoolkit.evaluation.baseline import Baseline
from dltoolkit.evaluation.predictor import Predictor
from dltoolkit.formatting import counted

if TYPE_CHECKING:
    from dltoolkit.data.image.dataset import ImageSplits
    from dltoolkit.data.options import ImageReadOptions
    from dltoolkit.evaluation.classification import LabeledBatches
    from dltoolkit.run import Run

MAX_PIXELS = 1 << 20  # pixels of a batch; activations take about a thousand times as many bytes
MAX_REMARKS = 3  # images about whose values or cropping a prediction prints a remark
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
        progress.note(splits.describe_evaluated())
        return classification.measure(run.model, labeled_batches(splits, "test"), run.labels)
    pixels, labels = read_labeled(run, other, read)
    size = max_batch_size(pixels.shape[1:])
    batches = ((pixels[i : i + size],) for i in range(0, len(pixels), size))
    return classification.measure(run.model, (labels, batches), run.labels)


def preprocessing(run: Run) -> Preprocessing:
    """Return the preprocessing of the images that a run was trained on."""
    return Preprocessing.from_dict(run.info["data"])


def read_labeled(run: Run, other: str, read: ImageReadOptions) -> tuple[np.ndarray, np.ndarray]:
    """Read other labeled images as in training: pixels uint8 (n, h, w, c) and class indices int (n,).

    Args:
        run: Run whose classes the labels are.
        other: Value of ``--data``.
        read: Options for reading.
    """
    trained = None if run.warn_of_training_data(other) else run.info["data"].get("fingerprint")
    pixels, labels, _ = images.labeled(
        other, run.labels, preprocessing(run), read, note=progress.note, warn=progress.warn, trained=trained
    )
    return pixels, labels


class ImagePredictor(Predictor):
    """The classifier of images of a run.

    An image is a path (``str`` or ``Path``), the bytes of a file, a Pillow image, or an array or tensor (h, w) or
    (h, w, c) with values like those of the training images. If these had 8 bits, floats up to 1 are taken as 0..1, with
    a warning. An array (n, h, w) or (n, h, w, c) holds n images; with three axes, it is one image if the last axis has
    1, 3 or 4 elements.
    """

    noun = "image"

    def __init__(self, run: Run):
        self.preprocessing = preprocessing(run)
        self.shape = self.preprocessing.image_shape
        self._remarks = 0
        super().__init__(run, max_batch_size(self.shape))

    def read(self, item: Any) -> np.ndarray:
        """Return an image as uint8 (h, w, c), scaled and resized as in training; differences are printed."""
        if hasattr(item, "__array__"):
            item = predictor.to_numpy(item)
        self.check_type(item, (str, os.PathLike, bytes, np.ndarray, Image.Image))
        return images.read(item, self.preprocessing, warn=lambda remark: self._warn(item, remark))

    def _warn(self, item: Any, remark: str) -> None:
        """Print a remark about an image, but not about more than a few."""
        self._remarks += 1
        if self._remarks <= MAX_REMARKS:
            name = item if isinstance(item, str | os.PathLike) else "An image"
            more = "; such remarks about further images are left out" if self._remarks == MAX_REMARKS else ""
            progress.warn(f"{name} {remark}{more}.")

    def stack(self, values: list[np.ndarray]) -> np.ndarray:
        return np.stack(values) if values else np.empty((0, *self.shape), np.uint8)

    def split_array(self, array: np.ndarray) -> tuple[Iterable[Any], bool]:
        if array.dtype.kind in "USO":  # paths, or images of several sizes
            return (array.ravel().tolist(), False) if array.ndim else ([array.item()], True)
        single = array.ndim not in (3, 4) or (array.ndim == 3 and array.shape[-1] in (1, 3, 4))
        if array.ndim == 3 and not single and self.shape[-1] == 3 and array.shape[0] in (3, 4):
            raise UserError(
                f"An array of shape {array.shape} may be {array.shape[0]} grayscale images or one image with its "
                "channels first: move the channels to the end, or add an axis of 1 to grayscale images."
            )
        return ([array], True) if single else (array, False)

    def expand(self, words: Iterable[Any], text_column: str | None = None, meaning: str = "auto") -> Iterator[Any]:
        if text_column or meaning == "text":
            raise UserError(f"This run classifies images: leave --text{'-column' if text_column else ''} out.")
        return images.expand(words)
