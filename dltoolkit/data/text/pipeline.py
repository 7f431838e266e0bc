"""From numbered texts to batches of nearly equal length, so that little padding is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from dltoolkit.data.batches import index_batches
from dltoolkit.data.pipeline import PARALLEL, eval_dataset, finalize_pipeline

if TYPE_CHECKING:
    from dltoolkit.data.text.dataset import TextSplits
    from dltoolkit.data.text.vocabulary import Packed


def training_pipeline(
    data: TextSplits,
    *,
    batch_size: int,
    seed: int,
    class_weights: np.ndarray | None = None,
    start_step: int = 0,
    rounded: int = 1,
) -> tf.data.Dataset:
    """Return an endless data set of training batches of texts of similar length, epoch after epoch.

    Args:
        data: its ``train`` part is used.
        batch_size: at most the size of that part is taken. Each epoch drops the few that fill no batch.
        seed: with the epoch it decides which texts come together, and in what order.
        class_weights: float (classes,), the weight of each class in the loss.
        start_step: where a resumed run goes on; what comes is what an uninterrupted run would have seen.
        rounded: batches are as long as a multiple of this, or as the longest text of all.

    Returns:
        Elements (numbers int32 (batch, longest text of the batch), one-hot labels float32 (batch, classes)) and, with
        ``class_weights``, sample weights float32 (batch,).
    """
    padded, labels, indices = _padded(data.packed, rounded), tf.constant(data.labels), tf.constant(data.train)
    weights = None if class_weights is None else tf.constant(class_weights, tf.float32)

    def batch(_: tf.Tensor, places: tf.Tensor) -> tuple:
        rows = tf.gather(indices, places)
        label = tf.gather(labels, rows)
        pair = padded(rows), tf.one_hot(label, len(data.classes))
        return pair if weights is None else (*pair, tf.gather(weights, label))

    lengths = data.packed.lengths[data.train]
    order = index_batches(len(data.train), batch_size, seed, start_step, lengths=lengths)
    return finalize_pipeline(order.map(batch, PARALLEL))


def evaluation_pipeline(data: TextSplits, part: str, batch_size: int, rounded: int = 1) -> tf.data.Dataset:
    """Return one pass over a part, in the order of ``data.in_order(part)``: (numbers (batch, longest), one-hot labels).

    The last batch is smaller where the numbers ask for it.
    """
    return of_rows(data, data.in_order(part), batch_size, rounded)


def of_rows(data: TextSplits, rows: np.ndarray, batch_size: int, rounded: int = 1) -> tf.data.Dataset:
    """Return one pass over the texts of these rows, in their order, as :func:`evaluation_pipeline` does."""
    padded, labels = _padded(data.packed, rounded), tf.constant(data.labels)

    def batch(rows: tf.Tensor) -> tuple:
        return padded(rows), tf.one_hot(tf.gather(labels, rows), len(data.classes))

    return eval_dataset(rows, batch_size, batch)


def in_batches(packed: Packed, order: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray]]:
    """Yield (numbers int32 (batch, longest),) of the texts at ``order``."""
    for start in range(0, len(order), batch_size):
        yield (packed.take(order[start : start + batch_size]).padded(),)


def _padded(packed: Packed, rounded: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return a function from rows (batch,) to their numbers int32 (batch, longest text, rounded up)."""
    ragged = tf.RaggedTensor.from_row_splits(packed.numbers, packed.ends, validate=False)
    most = int(packed.lengths.max(initial=1))

    def padded(rows: tf.Tensor) -> tf.Tensor:
        some = tf.gather(ragged, rows)
        longest = tf.cast(tf.reduce_max(some.row_lengths()), tf.int32)
        numbers = some.to_tensor(shape=tf.stack([-1, tf.minimum(-(-longest // rounded) * rounded, most)]))
        return tf.ensure_shape(numbers, (rows.shape[0], None))

    return padded
