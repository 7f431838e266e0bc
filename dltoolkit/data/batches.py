"""The order in which examples are seen: decided by seed and epoch alone, entered at any step."""

import tensorflow as tf


def index_batches(n: int, batch_size: int, seed: int, start_step: int = 0) -> tf.data.Dataset:
    """Return an endless data set of (step, indices): int64 scalar and int64 (batch,), epoch after epoch.

    Each epoch is a fresh permutation of ``range(n)`` cut into whole batches; the few left over are dropped and come
    back elsewhere in the next epoch. Starting at ``start_step`` gives exactly what an uninterrupted run would see
    from there on: only indices are skipped, so it costs nothing.

    Args:
        n: number of examples.
        batch_size: at most ``n`` are taken into a batch.
        seed: any integer.
        start_step: number of batches already seen, over all epochs.
    """
    batch_size = min(batch_size, n)
    steps = n // batch_size

    def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(
            tf.range(n, dtype=tf.int64), seed=tf.stack([tf.constant(seed % 2**31, tf.int64), epoch])
        )
        batches = tf.reshape(order[: steps * batch_size], (steps, batch_size))
        return tf.data.Dataset.from_tensor_slices((epoch * steps + tf.range(steps, dtype=tf.int64), batches))

    epochs = tf.data.Dataset.range(start_step // steps, 2**62)
    # flat_map has no known length, which makes Keras' fit count a step too many
    return (
        epochs.flat_map(epoch_batches)
        .skip(start_step % steps)
        .apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    )
