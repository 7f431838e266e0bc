"""Batches of texts of similar length, which contain little padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from dltoolkit.data.batches import index_batches
from dltoolkit.data.pipeline import PARALLEL, eval_dataset, finalize_pipeline

if TYPE_CHECKING:
    from dltoolkit.data.text.dataset import TextSplits
    from dltoolkit.data.text.ragged import Ragged


def training_pipeline(
    splits: TextSplits,
    *,
    batch_size: int,
    seed: int,
    class_weights: np.ndarray | None = None,
    start_step: int = 0,
    length_multiple: int = 1,
) -> tf.data.Dataset:
    """Return an endless dataset of training batches of texts of similar length, epoch after epoch.

    Args:
        splits: The texts; their training split is used.
        batch_size: Texts per batch, at most those of the training split. Each epoch drops an incomplete batch.
        seed: Seed of the batches and their order; together with the epoch, it decides both.
        class_weights: Weight of each class in the loss, float (classes,).
        start_step: First step. The batches are those of an uninterrupted run from this step on.
        length_multiple: Batches are padded to a multiple of this length, or to the longest text of all.

    Returns:
        Elements of token IDs int32 (batch, time) and one-hot labels float32 (batch, classes) and, with
        ``class_weights``, sample weights float32 (batch,).
    """
    take_padded = _padded_rows(splits.token_ids, length_multiple)
    labels, train = tf.constant(splits.labels), tf.constant(splits.train)
    weights = None if class_weights is None else tf.constant(class_weights, tf.float32)

    def batch(_: tf.Tensor, indices: tf.Tensor) -> tuple:
        rows = tf.gather(train, indices)
        label = tf.gather(labels, rows)
        pair = take_padded(rows), tf.one_hot(label, len(splits.classes))
        return pair if weights is None else (*pair, tf.gather(weights, label))

    lengths = splits.token_ids.lengths[splits.train]
    batches = index_batches(len(splits.train), batch_size, seed, start_step, lengths=lengths)
    return finalize_pipeline(batches.map(batch, PARALLEL))


def evaluation_pipeline(splits: TextSplits, split: str, batch_size: int, length_multiple: int = 1) -> tf.data.Dataset:
    """Return one pass over a split in the order of ``splits.sort_by_length(split)``; see :func:`rows_pipeline`."""
    return rows_pipeline(splits, splits.sort_by_length(split), batch_size, length_multiple)


def rows_pipeline(splits: TextSplits, rows: np.ndarray, batch_size: int, length_multiple: int = 1) -> tf.data.Dataset:
    """Return one pass over some rows in their order.

    Args:
        splits: The texts.
        rows: Indices of the texts.
        batch_size: Texts per batch; the last batch may be smaller.
        length_multiple: As in :func:`training_pipeline`.

    Returns:
        Elements of token IDs int32 (batch, time) and one-hot labels float32 (batch, classes).
    """
    take_padded, labels = _padded_rows(splits.token_ids, length_multiple), tf.constant(splits.labels)

    def batch(rows: tf.Tensor) -> tuple:
        return take_padded(rows), tf.one_hot(tf.gather(labels, rows), len(splits.classes))

    return eval_dataset(rows, batch_size, batch)


def padded_batches(token_ids: Ragged, rows: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray]]:
    """Yield tuples of the token IDs int32 (batch, time) of some rows in their order."""
    for start in range(0, len(rows), batch_size):
        yield (token_ids.take(rows[start : start + batch_size]).to_padded(),)


def _padded_rows(token_ids: Ragged, length_multiple: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return a function that maps rows (batch,) to their token IDs int32 (batch, time)."""
    ragged = tf.RaggedTensor.from_row_splits(token_ids.values, token_ids.row_splits, validate=False)
    max_length = int(token_ids.lengths.max(initial=1))

    def take_padded(rows: tf.Tensor) -> tf.Tensor:
        batch = tf.gather(ragged, rows)
        max_row_length = tf.cast(tf.reduce_max(batch.row_lengths()), tf.int32)
        time = tf.minimum(-(-max_row_length // length_multiple) * length_multiple, max_length)
        return tf.ensure_shape(batch.to_tensor(shape=tf.stack([-1, time])), (rows.shape[0], None))

    return take_padded
