"""The features of a frozen network, computed once and kept on disk, and batches of them for training."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

from dltoolkit import memory
from dltoolkit.data import batches, disk_cache, pipeline
from dltoolkit.data.image import augment as augmentation
from dltoolkit.errors import UserError

if TYPE_CHECKING:
    from dltoolkit.data.image.augment import Augment
    from dltoolkit.data.image.dataset import ImageSplits

BATCH_SIZE = 32  # images per call of the frozen network
MAX_CONSTANT_BYTES = 1 << 28  # weights above this size stay variables: TensorFlow copies constants during compilation


@dataclass(frozen=True)
class CachedFeatures:
    """The output of a frozen network for one split.

    Attributes:
        values: float16 (copies * n, …), or uint8 if the network is empty and the images are stored as they are; in an
            unnamed file. All images come first as they are, then all of the second copy, and so on. With test-time
            augmentation, those of the validation are (n, 2, …): of each image and of its mirror image.
        labels: int (copies * n,).
        classes: Number of classes.
    """

    values: np.ndarray
    labels: np.ndarray
    classes: int

    def training_batches(
        self, batch_size: int, seed: int, start_step: int, class_weights: np.ndarray | None = None
    ) -> tf.data.Dataset:
        """Return endless batches from a step on: (float32 (batch, …), one-hot labels float32 (batch, classes)).

        With ``class_weights``, float (classes,), each batch has sample weights float32 (batch,) as its third element.
        """
        fetch = self._fetcher(class_weights)
        order = batches.index_batches(len(self.labels), batch_size, seed, start_step)
        return pipeline.finalize_pipeline(order.map(lambda _, rows: fetch(rows), pipeline.PARALLEL))

    def evaluation_batches(self, batch_size: int) -> tf.data.Dataset:
        """Return one pass in order; the last batch may be smaller."""
        return pipeline.eval_dataset(np.arange(len(self.labels)), batch_size, self._fetcher())

    def _fetcher(self, class_weights: np.ndarray | None = None) -> Callable[[tf.Tensor], tuple]:
        values, labels = pipeline.as_tensor(self.values), tf.constant(self.labels)

        def fetch(rows: tf.Tensor) -> tuple:
            label = tf.gather(labels, rows)
            pair = tf.cast(tf.gather(values, rows), tf.float32), tf.one_hot(label, self.classes)
            return pair if class_weights is None else (*pair, tf.gather(tf.constant(class_weights, tf.float32), label))

        return fetch


def compute(
    model: keras.Model,
    splits: ImageSplits,
    *,
    augment_copies: int = 1,
    augment: Augment | None = None,
    tta: bool = False,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda label, done, total: None,
) -> tuple[CachedFeatures, CachedFeatures]:
    """Run the training and the validation images through a frozen network.

    Args:
        model: Network that takes images (batch, h, w, c).
        splits: The images.
        augment_copies: Copies of each training image; the first is the image as it is, the others are augmented.
        augment: Augmentation of the copies.
        tta: Whether the validation images are also run through the network as mirror images.
        seed: Seed of the augmentation.
        progress: Called with a label, the number of finished images and their total number.

    Returns:
        The features of the training split and those of the validation split.
    """
    predict = _compile(model)
    is_empty = len(model.layers) == 1  # an input alone: the images are stored as they are
    dtype = np.uint8 if is_empty else np.float16

    def compute_features(images: np.ndarray | tf.Tensor) -> np.ndarray:
        features = predict(tf.cast(images, tf.float32)).numpy()
        return np.rint(features) if is_empty else features

    def compute_split(split: str, copies: int, flip: bool = False) -> CachedFeatures:
        rows, done, values = getattr(splits, split), 0, None
        for copy, start in itertools.product(range(copies), range(0, len(rows), BATCH_SIZE)):
            batch_rows = rows[np.minimum(np.arange(start, start + BATCH_SIZE), len(rows) - 1)]  # one shape for all
            images = splits.images[batch_rows]
            if copy:
                one_hot = np.zeros((BATCH_SIZE, len(splits.classes)), np.float32)
                images, _ = augmentation.augment_batch(images, one_hot, np.array([seed, done], np.int32), augment)
            features = compute_features(images)
            if flip:
                features = np.stack([features, compute_features(images[:, :, ::-1])], axis=1)
            features = features[: len(rows) - start]
            if values is None:
                values = _array_on_disk((copies * len(rows), *features.shape[1:]), dtype)
            values[done : done + len(features)] = features
            done += len(features)
            progress(f"computing {split} features", done, len(values))
        return CachedFeatures(values, np.tile(splits.labels[rows], copies), len(splits.classes))

    return compute_split("train", augment_copies), compute_split("validation", 1, tta)


def _compile(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return the model in inference mode as a compiled function.

    The weights become constants, so that TensorFlow merges each convolution with the normalization that follows it.
    """
    weights = [np.asarray(variable) for variable in model.variables]
    if sum(array.nbytes for array in weights) > MAX_CONSTANT_BYTES:
        return tf.function(lambda images: model(images, training=False), autograph=False)

    @tf.function(autograph=False)
    def predict(images: tf.Tensor) -> tf.Tensor:
        constants = map(tf.constant, weights)
        with keras.StatelessScope(list(zip(model.variables, constants, strict=True))):
            return model(images, training=False)

    return predict


def _array_on_disk(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Return an array in an unnamed file, which exists as long as the array does."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115
        disk_cache.reserve(file, size)
    except OSError as error:
        raise UserError(
            f"The features of the frozen layers take {memory.describe(size)}, which do not fit in "
            f"{tempfile.gettempdir()} ({error.strerror}): set TMPDIR to a larger disk, or use fewer --augment-copies "
            "or a --limit."
        ) from None
    return np.memmap(file, dtype, "r+", shape=shape)
