"""Random draws that are the same however many replicas share a batch."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def drawn(draw: Callable[[tf.Tensor], tf.Tensor], count: tf.Tensor, axis: int = 0) -> tf.Tensor:
    """Draw for the whole batch, and return this replica's part.

    Args:
        draw: of a number of rows; draws the same on every replica.
        count: rows of this replica; all have equally many.
        axis: along which the rows lie.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return draw(count)
    first = context.replica_id_in_sync_group * count
    return tf.gather(draw(context.num_replicas_in_sync * count), first + tf.range(count), axis=axis)
