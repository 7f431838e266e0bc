"""From tokens on disk to batches: windows of equal length, and beside each the same one token further on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from dltoolkit.data.batches import index_batches
from dltoolkit.data.pipeline import PARALLEL, served
from dltoolkit.errors import UserError

if TYPE_CHECKING:
    from dltoolkit.data.running_text import RunningText


def windows(text: RunningText, context: int) -> int:
    """Return how many training windows a pass over the text has.

    Raises:
        UserError: if a part of the text is too short for them.
    """
    for name, (begin, end) in text.parts.items():
        needed = 2 * context if name == "train" else context + 1
        if end - begin < needed:
            raise UserError(
                f"The {name} part of {text.source} has {end - begin:,} tokens, too few for a context of {context}: "
                "give more text, or a smaller --context."
            )
    return len(text.part("train")) // context - 1


def training_pipeline(
    text: RunningText, *, context: int, batch_size: int, seed: int, start_step: int = 0
) -> tf.data.Dataset:
    """Return an endless data set of training batches, pass after pass over the text.

    Each pass cuts the text at other places, and takes the windows in another order.

    Args:
        text: its ``train`` part is used.
        context: tokens of a window.
        batch_size: windows in a batch.
        seed: with the number of the pass it decides cuts and order.
        start_step: where a resumed run goes on; what comes is what an uninterrupted run would have seen.

    Returns:
        Elements (tokens int32 (batch, context), the tokens that follow each, of the same shape).
    """
    tokens, count = text.part("train"), windows(text, context)
    batch_size = min(batch_size, count)
    steps = count // batch_size

    def cut(starts: np.ndarray) -> np.ndarray:
        return tokens[starts[:, None] + np.arange(context + 1)].astype(np.int32)

    def batch(step: tf.Tensor, places: tf.Tensor) -> tuple:
        key = tf.stack([tf.constant(seed % 2**31, tf.int64), step // steps])
        offset = tf.random.stateless_uniform((), key, 0, context, tf.int64)
        both = tf.ensure_shape(tf.numpy_function(cut, [places * context + offset], tf.int32), (batch_size, context + 1))
        return both[:, :-1], both[:, 1:]

    return served(index_batches(count, batch_size, seed, start_step).map(batch, PARALLEL))


def evaluation_pipeline(text: RunningText, part: str, context: int, batch_size: int) -> tf.data.Dataset:
    """Return one pass over a part in batches of one shape, as (tokens, the tokens that follow).

    Windows overlap a little where the tokens do not fill the last batch.
    """
    tokens = text.part(part)
    least = -(-(len(tokens) - 1) // context)
    batches = -(-least // batch_size)
    starts = np.linspace(0, len(tokens) - 1 - context, batches * -(-least // batches)).round().astype(np.int64)
    cut = [tokens[some[:, None] + np.arange(context + 1)].astype(np.int32) for some in np.split(starts, batches)]
    both = tf.data.Dataset.from_tensor_slices(np.stack(cut))
    return both.map(lambda some: (some[:, :-1], some[:, 1:])).prefetch(PARALLEL)


def scoring_batches(
    tokens: np.ndarray, context: int, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (tokens, the tokens that follow, bool: which of those count), each (batch, context).

    Every token but the first counts exactly once.
    """
    for begin in range(0, len(tokens) - 1, batch_size * context):
        some = np.zeros(batch_size * context + 1, np.int32)
        here = tokens[begin : begin + batch_size * context + 1]
        some[: len(here)] = here
        counts = np.arange(batch_size * context) < len(here) - 1
        shape = (batch_size, context)
        yield some[:-1].reshape(shape), some[1:].reshape(shape), counts.reshape(shape)
