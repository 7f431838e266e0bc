"""From decoded pictures to batches: tf.data pipelines whose order and augmentation depend on the seed alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from dltoolkit.data import disk_cache as store
from dltoolkit.data.batches import index_batches
from dltoolkit.data.image import augment as augmentation
from dltoolkit.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dltoolkit.data.image.dataset import ImageSplits

PARALLEL = 2  # batches made at a time; one core keeps up with any network, two even out a slow one
PREFETCHED = 4  # batches


def training_pipeline(
    data: ImageSplits,
    *,
    batch_size: int,
    seed: int,
    augment: Any = None,
    class_weights: np.ndarray | None = None,
    start_step: int = 0,
) -> tf.data.Dataset:
    """Return an endless data set of training batches, epoch after epoch.

    Args:
        data: its ``train`` part is used.
        batch_size: at most the size of that part is taken. Each epoch drops the few that fill no batch.
        seed: with the step's number it decides order and augmentation.
        augment: options for ``augment.batch``, or None for the pictures as they are.
        class_weights: float (classes,), the weight of each class in the loss.
        start_step: where a resumed run goes on; what comes is what an uninterrupted run would have seen.

    Returns:
        Elements (images (batch, h, w, c), one-hot labels float32 (batch, classes)) and, with ``class_weights``,
        sample weights float32 (batch,). All shapes are static.
    """
    indices = tf.constant(data.train)
    labels = tf.constant(data.labels)
    fetch = _fetcher(data)
    weights = None if class_weights is None else tf.constant(class_weights, tf.float32)

    def batch(step: tf.Tensor, places: tf.Tensor) -> tuple:
        rows = tf.gather(indices, places)
        images, targets = fetch(rows), tf.one_hot(tf.gather(labels, rows), len(data.classes))
        if augment is not None:
            step_seed = tf.stack([tf.constant(seed % 2**31, tf.int32), tf.cast(step, tf.int32)])
            images, targets = augmentation.batch(images, targets, step_seed, augment)
        if weights is None:
            return images, targets
        return images, targets, tf.linalg.matvec(targets, weights)  # a mixed label has a mixed weight

    return served(index_batches(len(data.train), batch_size, seed, start_step).map(batch, PARALLEL))


def evaluation_pipeline(data: ImageSplits, part: str, batch_size: int) -> tf.data.Dataset:
    """Return one pass over a part in order: (images uint8 (batch, h, w, c), one-hot float32 (batch, classes)).

    The last batch is smaller where the numbers ask for it.

    Args:
        part: "train", "validation" or "test".
    """
    rows = getattr(data, part)
    if not len(rows):
        raise UserError(f"{data.source} has no {part} part.")
    labels = tf.constant(data.labels)
    fetch = _fetcher(data)

    def batch(places: tf.Tensor) -> tuple:
        return fetch(places), tf.one_hot(tf.gather(labels, places), len(data.classes))

    return one_pass(rows, batch_size, batch)


def _fetcher(data: ImageSplits) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return a function from indices (batch,) to uint8 (batch, h, w, c)."""
    tensor = getattr(data, "_tensor", None)
    if tensor is None:  # made once, for all pipelines
        tensor = data._tensor = in_place(data.images)
    return lambda rows: tf.gather(tensor, rows)


def in_place(array: np.ndarray) -> tf.Tensor:
    """Return an array as a tensor: TensorFlow reads the very memory, or the very file, that the array lives in.

    (``tf.numpy_function`` would do that too, but a pipeline still in use at the end of the program then hangs in one
    exit of five.)
    """
    return tf.experimental.dlpack.from_dlpack(store.aligned(array).__dlpack__())


def one_pass(rows: np.ndarray, batch_size: int, batch: Callable[[tf.Tensor], tuple]) -> tf.data.Dataset:
    """Return what ``batch`` makes of ``rows`` in batches, in their order; the last may be smaller."""
    batches = tf.data.Dataset.from_tensor_slices(rows).batch(batch_size).map(batch, PARALLEL)
    return served(batches.apply(tf.data.experimental.assert_cardinality(-(-len(rows) // batch_size))))


def served(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Return the batches made ahead of time and in order, as training wants them."""
    options = tf.data.Options()
    options.deterministic = True
    # There is little to optimise here, and rewriting a pipeline's graph copies the pictures it refers to.
    options.experimental_optimization.apply_default_optimizations = False
    # The autotuner sleeps through the end of a pass, for up to as long as the pass took, and the end waits for it.
    options.autotune.enabled = False
    return batches.prefetch(PREFETCHED).with_options(options)
