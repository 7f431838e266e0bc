"""Batches of token windows, each with the same window shifted by one token as the target."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from dltoolkit.data.pipeline import PARALLEL, as_tensor, finalize_pipeline
from dltoolkit.errors import UserError

if TYPE_CHECKING:
    from dltoolkit.data.language.corpus import Corpus

STRIDES = 64  # number of window orders; epoch 64 uses the order of epoch 0 again, but starts at another window


def windows(corpus: Corpus, context_length: int) -> int:
    """Return the number of training windows per epoch.

    Raises:
        UserError: If a split is too short for a window.
    """
    for split, (begin, end) in corpus.splits.items():
        min_tokens = 2 * context_length if split == "train" else context_length + 1
        if end - begin < min_tokens:
            raise UserError(
                f"The {split} split of {corpus.source} has {end - begin:,} tokens, too few for a context length of "
                f"{context_length}: use more text or a lower --context-length."
            )
    return len(corpus.split("train")) // context_length - 1


def training_pipeline(
    corpus: Corpus, *, context_length: int, batch_size: int, seed: int, start_step: int = 0
) -> tf.data.Dataset:
    """Return an endless dataset of training batches, epoch after epoch.

    Each epoch cuts the text into windows at other positions, and visits them in another order.

    Args:
        corpus: The corpus; its training split is used.
        context_length: Tokens per window.
        batch_size: Windows per batch.
        seed: Seed of the cuts and the order; together with the epoch, it decides both.
        start_step: First step. The batches are those of an uninterrupted run from this step on.

    Returns:
        Elements of token IDs int32 (batch, context_length) and the next token IDs, of the same shape.
    """
    begin, count = corpus.splits["train"][0], windows(corpus, context_length)
    batch_size = min(batch_size, count)
    steps_per_epoch = count // batch_size
    token_ids, strides = as_tensor(corpus.token_ids), tf.constant(_strides(count, seed))

    def batch(step: tf.Tensor) -> tuple:
        """Take windows at equal strides around the text, so that an epoch visits each once without a stored order."""
        epoch, step = step // steps_per_epoch, step % steps_per_epoch
        key = tf.stack([tf.constant(seed % 2**31, tf.int64), epoch])
        first, offset = (tf.random.stateless_uniform((), key, 0, end, tf.int64) for end in (count, context_length))
        positions = step * batch_size + tf.range(batch_size, dtype=tf.int64)
        indices = (first + positions * strides[epoch % STRIDES]) % count  # of the windows
        starts = begin + indices * context_length + offset
        spans = tf.gather(token_ids, starts[:, None] + tf.range(context_length + 1, dtype=tf.int64))
        spans = tf.cast(spans, tf.int32)  # (batch, context_length + 1)
        return spans[:, :-1], spans[:, 1:]

    steps = tf.data.Dataset.range(start_step, 2**62)
    # With a finite cardinality, Keras' fit would count the steps of an epoch
    endless = steps.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    return finalize_pipeline(endless.map(batch, PARALLEL))


def _strides(count: int, seed: int) -> np.ndarray:
    """Return random strides that are coprime with ``count``, because such strides visit all of ``count`` windows."""
    rng, strides = np.random.default_rng(seed), []
    while len(strides) < STRIDES:
        stride = int(rng.integers(1, max(2, count)))
        if math.gcd(stride, count) == 1:
            strides.append(stride)
    return np.array(strides, np.int64)


def evaluation_pipeline(corpus: Corpus, split: str, context_length: int, batch_size: int) -> tf.data.Dataset:
    """Return a dataset of all windows of a split, in batches of equal shape: token IDs and the next token IDs.

    The windows overlap slightly if the tokens do not fill the last batch.
    """
    token_ids = corpus.split(split)
    min_windows = -(-(len(token_ids) - 1) // context_length)
    batches = -(-min_windows // batch_size)
    count = batches * -(-min_windows // batches)
    starts = np.linspace(0, len(token_ids) - 1 - context_length, count).round().astype(np.int64)
    offsets = np.arange(context_length + 1)
    spans = [token_ids[rows[:, None] + offsets].astype(np.int32) for rows in np.split(starts, batches)]
    dataset = tf.data.Dataset.from_tensor_slices(np.stack(spans))
    return dataset.map(lambda batch: (batch[:, :-1], batch[:, 1:])).prefetch(PARALLEL)


def scoring_batches(
    texts: Iterable[np.ndarray], context_length: int, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield batches in which every token except the first is scored exactly once.

    Windows overlap by half, and only the second half of a window is scored, so that the model predicts each token from
    at least ``context_length // 2`` tokens.

    Args:
        texts: Token IDs of consecutive chunks of one text.
        context_length: Tokens per window.
        batch_size: Windows per batch.

    Yields:
        Token IDs int32, the next token IDs int32, and whether the next token is scored, bool; each has the shape
        (batch_size, context_length).
    """
    overlap = context_length // 2
    starts = np.arange(batch_size)[:, None] * (context_length - overlap)
    span = int(starts[-1, 0]) + context_length + 1  # tokens of a batch
    rest, is_first = np.empty(0, np.uint16), True

    def batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        token_ids, positions = np.zeros(span, np.int32), starts + np.arange(context_length)
        token_ids[: len(rest[:span])] = rest[:span]
        scored = (positions >= starts + overlap) | (is_first & (starts == 0))
        return token_ids[positions], token_ids[positions + 1], scored & (positions + 1 < len(rest))

    for chunk in texts:
        rest = np.concatenate([rest, chunk])
        while len(rest) >= span:
            yield batch()
            rest, is_first = rest[batch_size * (context_length - overlap) :], False
    if len(rest) > (1 if is_first else overlap + 1):
        yield batch()
