"""The order in which examples are seen: decided by seed and epoch alone, entered at any step."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

LOOSENESS = 0.05  # lengths are blurred by this share before sorting, so that other texts meet in each epoch


def index_batches(
    n: int, batch_size: int, seed: int, start_step: int = 0, *, lengths: np.ndarray | None = None
) -> tf.data.Dataset:
    """Return an endless data set of (step, indices): int64 scalar and int64 (batch,), epoch after epoch.

    Each epoch is a fresh permutation of ``range(n)`` cut into whole batches; the few left over are dropped and come
    back elsewhere in the next epoch. Starting at ``start_step`` gives exactly what an uninterrupted run would see
    from there on: only indices are skipped, so it costs nothing.

    Args:
        n: number of examples.
        batch_size: at most ``n`` are taken into a batch.
        seed: any integer.
        start_step: number of batches already seen, over all epochs.
        lengths: of the examples, int (n,): batches are then made of examples of similar length, which saves padding.
    """
    batch_size = min(batch_size, n)
    steps = n // batch_size
    sizes = None if lengths is None else tf.constant(lengths, tf.float32)

    def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        key = tf.stack([tf.constant(seed % 2**31, tf.int64), epoch])
        order = tf.random.experimental.stateless_shuffle(tf.range(n, dtype=tf.int64), key)[: steps * batch_size]
        if lengths is not None:
            blur = tf.random.stateless_uniform((steps * batch_size,), key, 1.0 - LOOSENESS, 1.0 + LOOSENESS)
            order = tf.gather(order, tf.argsort(tf.gather(sizes, order) * blur))
        batches = tf.reshape(order, (steps, batch_size))
        if lengths is not None:
            batches = tf.random.experimental.stateless_shuffle(batches, key)
        return tf.data.Dataset.from_tensor_slices((epoch * steps + tf.range(steps, dtype=tf.int64), batches))

    epochs = tf.data.Dataset.range(start_step // steps, 2**62)
    # flat_map has no known length, which makes Keras' fit count a step too many
    return (
        epochs.flat_map(epoch_batches)
        .skip(start_step % steps)
        .apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    )


def in_blocks(answer: Callable[[list[np.ndarray]], Any], inputs: Sequence[np.ndarray], size: int) -> Any:
    """Return what ``answer`` makes of rows, ``size`` of them at a time; the last block is filled up with its last row.

    All blocks have one shape, so that TensorFlow prepares itself once.

    Args:
        answer: takes a list of arrays (size, …), and returns an array (size, …) or a list of such.
        inputs: arrays of equally many rows, at least one.
        size: rows at a time.
    """
    count = len(inputs[0])
    found = []
    for begin in range(0, count, size):
        rows = np.minimum(np.arange(begin, begin + size), count - 1)
        found.append(answer([each[rows] for each in inputs]))
    if isinstance(found[0], list | tuple):
        return [np.concatenate(parts)[:count] for parts in zip(*found, strict=True)]
    return np.concatenate(found)[:count]
