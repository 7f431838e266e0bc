"""From tokens on disk to batches: windows of equal length, and beside each the same one token further on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from dltoolkit.data.pipeline import PARALLEL, in_place, served
from dltoolkit.errors import UserError

if TYPE_CHECKING:
    from dltoolkit.data.language.corpus import RunningText

STRIDES = 64  # orders in which the windows come; pass 64 repeats that of pass 0, from another window on


def windows(text: RunningText, context_length: int) -> int:
    """Return how many training windows a pass over the text has.

    Raises:
        UserError: if a part of the text is too short for them.
    """
    for name, (begin, end) in text.parts.items():
        needed = 2 * context_length if name == "train" else context_length + 1
        if end - begin < needed:
            raise UserError(
                f"The {name} part of {text.source} has {end - begin:,} tokens, too few for a context of {context_length}: "
                "give more text, or a smaller --context."
            )
    return len(text.part("train")) // context_length - 1


def training_pipeline(
    text: RunningText, *, context_length: int, batch_size: int, seed: int, start_step: int = 0
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
    begin, count = text.parts["train"][0], windows(text, context_length)
    batch_size = min(batch_size, count)
    steps = count // batch_size
    tokens, strides = in_place(text.tokens), tf.constant(_strides(count, seed))

    def batch(step: tf.Tensor) -> tuple:
        """The windows at every so-manieth place around the text: each once in a pass, with nothing to remember."""
        number, step = step // steps, step % steps
        key = tf.stack([tf.constant(seed % 2**31, tf.int64), number])
        first, offset = (tf.random.stateless_uniform((), key, 0, end, tf.int64) for end in (count, context_length))
        places = step * batch_size + tf.range(batch_size, dtype=tf.int64)
        starts = begin + (first + places * strides[number % STRIDES]) % count * context_length + offset
        both = tf.cast(tf.gather(tokens, starts[:, None] + tf.range(context_length + 1, dtype=tf.int64)), tf.int32)
        return both[:, :-1], both[:, 1:]

    numbers = tf.data.Dataset.range(start_step, 2**62)
    # a known length would make Keras' fit look for the end
    endless = numbers.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    return served(endless.map(batch, PARALLEL))


def _strides(count: int, seed: int) -> np.ndarray:
    """Numbers without a divisor in common with ``count``: steps of any such size visit all of it."""
    rng, found = np.random.default_rng(seed), []
    while len(found) < STRIDES:
        stride = int(rng.integers(1, max(2, count)))
        if math.gcd(stride, count) == 1:
            found.append(stride)
    return np.array(found, np.int64)


def evaluation_pipeline(text: RunningText, part: str, context_length: int, batch_size: int) -> tf.data.Dataset:
    """Return one pass over a part in batches of one shape, as (tokens, the tokens that follow).

    Windows overlap a little where the tokens do not fill the last batch.
    """
    tokens = text.part(part)
    least = -(-(len(tokens) - 1) // context_length)
    batches = -(-least // batch_size)
    starts = np.linspace(0, len(tokens) - 1 - context_length, batches * -(-least // batches)).round().astype(np.int64)
    cut = [tokens[some[:, None] + np.arange(context_length + 1)].astype(np.int32) for some in np.split(starts, batches)]
    both = tf.data.Dataset.from_tensor_slices(np.stack(cut))
    return both.map(lambda some: (some[:, :-1], some[:, 1:])).prefetch(PARALLEL)


def scoring_batches(
    texts: Iterable[np.ndarray], context_length: int, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (tokens, the tokens that follow, bool: which of those count), each (batch, context).

    Every token but the first counts exactly once. Windows overlap by half, and only the later half of each counts, so
    that a token is foretold from half a window or more. ``texts`` are pieces of one text.
    """
    known = context_length // 2
    starts = np.arange(batch_size)[:, None] * (context_length - known)
    span = int(starts[-1, 0]) + context_length + 1
    rest, first = np.empty(0, np.uint16), True

    def batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        some, places = np.zeros(span, np.int32), starts + np.arange(context_length)
        some[: len(rest[:span])] = rest[:span]
        counts = (places >= starts + known) | (first & (starts == 0))
        return some[places], some[places + 1], counts & (places + 1 < len(rest))

    for tokens in texts:
        rest = np.concatenate([rest, tokens])
        while len(rest) >= span:
            yield batch()
            rest, first = rest[batch_size * (context_length - known) :], False
    if len(rest) > (1 if first else known + 1):
        yield batch()
