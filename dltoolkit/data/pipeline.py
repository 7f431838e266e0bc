"""Parts that all tf.data pipelines of this package share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from dltoolkit.data import disk_cache

PARALLEL = 2  # batches prepared in parallel; one thread keeps up with most networks, two absorb slow batches
PREFETCHED = 4  # batches prepared ahead of the training step


def as_tensor(array: np.ndarray) -> tf.Tensor:
    """Return an array as a tensor that shares its memory or, for a memory-mapped array, its file.

    ``tf.numpy_function`` would share the memory as well, but a pipeline that still runs when the program ends then
    hangs in one exit of five.
    """
    return tf.experimental.dlpack.from_dlpack(disk_cache.aligned(array).__dlpack__())


def eval_dataset(
    rows: np.ndarray, batch_size: int, make_batch: Callable[[tf.Tensor], tuple | tf.Tensor]
) -> tf.data.Dataset:
    """Return one pass over rows in their order, as batches; the last batch may be smaller.

    Args:
        rows: Row numbers of shape (n,).
        batch_size: Rows per batch.
        make_batch: Function from row numbers (batch,) to the elements of the data set.
    """
    batches = tf.data.Dataset.from_tensor_slices(rows).batch(batch_size).map(make_batch, PARALLEL)
    return finalize_pipeline(batches.apply(tf.data.experimental.assert_cardinality(-(-len(rows) // batch_size))))


def finalize_pipeline(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Return a data set that prefetches its batches and keeps their order."""
    options = tf.data.Options()
    options.deterministic = True
    # The default optimizations gain little here, and they copy the arrays that the pipeline's graph refers to.
    options.experimental_optimization.apply_default_optimizations = False
    # At the end of a pass the autotuner sleeps for up to the duration of the pass, and the pass waits for it.
    options.autotune.enabled = False
    return batches.prefetch(PREFETCHED).with_options(options)
