"""How well a language model foretells a text, beside models that need no network."""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit.data.language import pipeline as token_pipeline
from dltoolkit.errors import UserError

if TYPE_CHECKING:
    import keras

ORDER = 5  # tokens that the n-gram baseline looks at, the foretold one included
COUNTED = 4_000_000  # training tokens that the baselines count, the last ones; more would not fit in a gigabyte
BATCH = 64  # windows scored at a time


def scorer(model: keras.Model) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return a function from tokens and the tokens that follow, int32 (batch, time), to nats float32 (batch, time)."""
    import tensorflow as tf

    @tf.function(jit_compile=True)
    def nats(tokens, following):
        return tf.nn.sparse_softmax_cross_entropy_with_logits(following, model(tokens, training=False))

    return lambda tokens, following: nats(tokens, following).numpy()


def measure(model: keras.Model, texts: Iterable[np.ndarray], characters: int, context_length: int) -> dict[str, Any]:
    """Score every token of a text but the first.

    Args:
        model: tokens in, logits of the next ones out.
        texts: pieces of the text, uint16 (n,) tokens each, one after the other.
        characters: how many the text has.
        context: tokens of a window; windows overlap by half (see ``token_pipeline.scoring_batches``).

    Returns:
        The contract's metrics: loss (nats a token), bits_per_character, perplexity (of a token), tokens, characters.

    Raises:
        UserError: if there are fewer than two tokens.
    """
    nats, total, count = scorer(model), 0.0, 0
    for inputs, following, counts in token_pipeline.scoring_batches(texts, context_length, BATCH):
        total += float(nats(inputs, following)[counts].sum(dtype=np.float64))
        count += int(counts.sum())
    if not count:
        raise UserError("There is nothing to score: at least two tokens are needed to foretell one.")
    return described(total / count, count, characters)


def described(loss: float, tokens: int, characters: int) -> dict[str, Any]:
    """Return a loss in nats a token in all its units."""
    return {
        "loss": round(loss, 6),
        "bits_per_character": round(loss * tokens / math.log(2) / max(1, characters), 6),
        "perplexity": round(math.exp(min(loss, 700.0)), 6),
        "tokens": tokens,
        "characters": characters,
    }


def baselines(train: np.ndarray, text: np.ndarray, characters: int, size: int, raw: str) -> dict[str, Any]:
    """Score a text by how common its tokens are, by an n-gram model, and by gzip.

    Args:
        train: uint16 tokens to count.
        text: uint16 tokens to score.
        characters: how many ``text`` has.
        size: of the vocabulary.
        raw: ``text`` as text, for gzip.
    """
    train = np.asarray(train[-COUNTED:], np.int64)
    text = np.asarray(text, np.int64)
    order = min(ORDER, 62 // max(1, (size - 1).bit_length()))
    scored = -np.log(kneser_ney(train, text, size, order))
    common = -np.log((np.bincount(train, minlength=size) + 1.0) / (len(train) + size))[text[1:]]
    packed = 8 * len(gzip.compress(raw.encode("utf-8", "surrogatepass")))
    return {
        "unigram": described(float(common.mean()), len(text) - 1, characters),
        f"{order}-gram": described(float(scored.mean()), len(text) - 1, characters),
        "gzip": {"bits_per_character": round(packed / max(1, len(raw)), 6)},
    }


def kneser_ney(train: np.ndarray, text: np.ndarray, size: int, order: int) -> np.ndarray:
    """Return the probability of every token of a text but the first, float64 (n - 1,).

    Interpolated Kneser-Ney smoothing (Kneser & Ney 1995; Chen & Goodman 1999), one discount for each order.

    Args:
        train: int64 tokens to count.
        text: int64 (n,) tokens to score.
        size: of the vocabulary; ``size ** order`` must be below 2**63.
        order: tokens that are looked at together.
    """
    probability = np.full(len(text) - 1, 1.0 / size)
    longer = None  # distinct n-grams of the next order up, ascending
    tables = []
    for length in range(order, 0, -1):
        if longer is None:
            keys, counts = np.unique(_keys(train, size, length), return_counts=True)
        else:  # in how many different contexts an n-gram occurs
            keys, counts = np.unique(longer % size**length, return_counts=True)
        longer = keys
        tables.append((keys, counts))
    for length, (keys, counts) in zip(range(1, order + 1), reversed(tables), strict=True):
        once, twice = (counts == 1).sum(), (counts == 2).sum()
        discount = (once + 0.5) / (once + 2 * twice + 1)  # never 0, which would rule a token out
        contexts, first = np.unique(keys // size, return_index=True)
        totals = np.add.reduceat(counts, first)
        followers = np.diff(np.append(first, len(keys)))
        wanted = _keys(text, size, length)
        probability_here = probability[length - 2 if length > 1 else 0 :]  # the first tokens have no such context
        if length == 1:
            wanted = wanted[1:]
        place = np.minimum(np.searchsorted(contexts, wanted // size), len(contexts) - 1)
        known = contexts[place] == wanted // size
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        count = np.where(keys[at] == wanted, counts[at], 0)
        share = np.maximum(count - discount, 0) / totals[place]
        rest = discount * followers[place] / totals[place]
        probability_here[:] = np.where(known, share + rest * probability_here, probability_here)
    return probability


def _keys(tokens: np.ndarray, size: int, length: int) -> np.ndarray:
    """Number every n-gram: int64 (n - length + 1,)."""
    keys = np.zeros(len(tokens) - length + 1, np.int64)
    for i in range(length):
        keys = keys * size + tokens[i : len(tokens) - length + 1 + i]
    return keys
