"""Random draws that do not depend on the number of replicas that share a batch."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def draw_for_replica(draw: Callable[[tf.Tensor], tf.Tensor], count: tf.Tensor, axis: int = 0) -> tf.Tensor:
    """Draw random values for the whole batch, and return those for the examples of this replica.

    Args:
        draw: Function from a number of examples to random values, the same on every replica.
        count: Number of examples of this replica, equal on all replicas.
        axis: Axis of the examples in the random values.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return draw(count)
    start = context.replica_id_in_sync_group * count
    return tf.gather(draw(context.num_replicas_in_sync * count), start + tf.range(count), axis=axis)
