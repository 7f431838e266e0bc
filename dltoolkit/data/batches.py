"""The order of training examples, which depends on seed and epoch alone, and prediction in batches of one shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

LENGTH_JITTER = 0.05  # relative noise on lengths before sorting, so that batches combine other texts in each epoch


def index_batches(
    n: int, batch_size: int, seed: int, start_step: int = 0, *, lengths: np.ndarray | None = None
) -> tf.data.Dataset:
    """Return an endless data set of (step, indices): int64 scalar and int64 (batch,), epoch after epoch.

    Each epoch is a new permutation of ``range(n)``, divided into full batches. The indices of the incomplete last
    batch are dropped; the next epoch has another permutation. With ``start_step``, the data set continues exactly as
    if it had been read from the beginning. Only indices are skipped, which takes no time.

    Args:
        n: Number of examples.
        batch_size: Examples per batch, at most ``n``.
        seed: Any integer.
        start_step: Number of batches to skip, over all epochs.
        lengths: Lengths of the examples, int (n,). If given, the examples of a batch have similar lengths, which
            reduces padding.
    """
    import tensorflow as tf

    batch_size = min(batch_size, n)
    steps = n // batch_size
    sizes = None if lengths is None else tf.constant(lengths, tf.float32)

    def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        key = tf.stack([tf.constant(seed % 2**31, tf.int64), epoch])
        order = tf.random.experimental.stateless_shuffle(tf.range(n, dtype=tf.int64), key)[: steps * batch_size]
        if lengths is not None:
            jitter = tf.random.stateless_uniform((steps * batch_size,), key, 1.0 - LENGTH_JITTER, 1.0 + LENGTH_JITTER)
            order = tf.gather(order, tf.argsort(tf.gather(sizes, order) * jitter))
        batches = tf.reshape(order, (steps, batch_size))
        if lengths is not None:
            batches = tf.random.experimental.stateless_shuffle(batches, key)
        return tf.data.Dataset.from_tensor_slices((epoch * steps + tf.range(steps, dtype=tf.int64), batches))

    epochs = tf.data.Dataset.range(start_step // steps, 2**62)
    # The length of a flat_map is unknown, and Keras' fit counts an extra step for a data set of unknown length.
    return (
        epochs.flat_map(epoch_batches)
        .skip(start_step % steps)
        .apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    )


def predict_in_batches(
    predict: Callable[[list[np.ndarray]], Any], inputs: Sequence[np.ndarray], batch_size: int
) -> Any:
    """Return the predictions for all rows, made in batches of one size.

    The last batch repeats the last row until it is full, so that TensorFlow traces the prediction only once.

    Args:
        predict: Function from a list of arrays (batch, ...) to an array (batch, ...) or a list of such arrays.
        inputs: Arrays with equal numbers of rows, at least one.
        batch_size: Rows per batch.
    """
    count = len(inputs[0])
    outputs = []
    for start in range(0, count, batch_size):
        rows = np.minimum(np.arange(start, start + batch_size), count - 1)
        outputs.append(predict([array[rows] for array in inputs]))
    if isinstance(outputs[0], list | tuple):
        return [np.concatenate(parts)[:count] for parts in zip(*outputs, strict=True)]
    return np.concatenate(outputs)[:count]
