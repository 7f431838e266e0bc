"""Scores of a language model on a text, and baselines that need no neural network."""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit import progress
from dltoolkit.data.language import pipeline as token_pipeline
from dltoolkit.errors import UserError

if TYPE_CHECKING:
    import keras

MAX_ORDER = 5  # tokens of an n-gram in the n-gram baseline, the predicted one included
MAX_COUNTED = 4_000_000  # training tokens that the baselines count, from the end; more would not fit in a gigabyte
BATCH_SIZE = 64  # windows that are scored together


def token_losses(model: keras.Model) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return a function that maps token IDs and the next token IDs, int32 (batch, time), to losses in nats.

    The losses are float32 (batch, time).
    """
    import tensorflow as tf

    @tf.function(jit_compile=True)
    def losses(token_ids, next_ids):
        return tf.nn.sparse_softmax_cross_entropy_with_logits(next_ids, model(token_ids, training=False))

    return lambda token_ids, next_ids: losses(token_ids, next_ids).numpy()


@progress.phase("Measuring the loss")
def measure(model: keras.Model, texts: Iterable[np.ndarray], characters: int, context_length: int) -> dict[str, Any]:
    """Score every token of a text except the first.

    Args:
        model: Token IDs in, logits of the next tokens out.
        texts: Consecutive pieces of the text, token IDs uint16 (n,) each.
        characters: Number of characters of the text.
        context_length: Tokens of a window; windows overlap by half (see ``token_pipeline.scoring_batches``).

    Returns:
        loss (nats per token), bits_per_character, perplexity (per token), tokens, characters.

    Raises:
        UserError: If there are fewer than two tokens.
    """
    losses, total, count = token_losses(model), 0.0, 0
    for token_ids, next_ids, scored in token_pipeline.scoring_batches(texts, context_length, BATCH_SIZE):
        total += float(losses(token_ids, next_ids)[scored].sum(dtype=np.float64))
        count += int(scored.sum())
    if not count:
        raise UserError("The text to evaluate has fewer than two tokens: give more text.")
    return loss_metrics(total / count, count, characters)


def loss_metrics(loss: float, tokens: int, characters: int) -> dict[str, Any]:
    """Convert a loss in nats per token to the metrics of ``measure``."""
    return {
        "loss": round(loss, 6),
        "bits_per_character": round(loss * tokens / math.log(2) / max(1, characters), 6),
        "perplexity": round(math.exp(min(loss, 700.0)), 6),
        "tokens": tokens,
        "characters": characters,
    }


@progress.phase("Counting n-grams for the baselines")
def baselines(
    train_ids: np.ndarray, token_ids: np.ndarray, characters: int, vocab_size: int, text: str
) -> dict[str, Any]:
    """Score a text by the frequency of its tokens, by an n-gram model, and by gzip.

    Args:
        train_ids: Token IDs that are counted, uint16 (n,).
        token_ids: Token IDs of the text, uint16 (m,).
        characters: Number of characters of the text.
        vocab_size: Number of distinct token IDs.
        text: The text itself, for gzip.
    """
    train_ids = np.asarray(train_ids[-MAX_COUNTED:], np.int64)
    token_ids = np.asarray(token_ids, np.int64)
    order = min(MAX_ORDER, 62 // max(1, (vocab_size - 1).bit_length()))
    ngram = -np.log(kneser_ney(train_ids, token_ids, vocab_size, order))
    frequencies = (np.bincount(train_ids, minlength=vocab_size) + 1.0) / (len(train_ids) + vocab_size)
    unigram = -np.log(frequencies)[token_ids[1:]]
    gzip_bits = 8 * len(gzip.compress(text.encode("utf-8", "surrogatepass")))
    return {
        "unigram": loss_metrics(float(unigram.mean()), len(token_ids) - 1, characters),
        f"{order}-gram": loss_metrics(float(ngram.mean()), len(token_ids) - 1, characters),
        "gzip": {"bits_per_character": round(gzip_bits / max(1, len(text)), 6)},
    }


def kneser_ney(train_ids: np.ndarray, token_ids: np.ndarray, vocab_size: int, order: int) -> np.ndarray:
    """Return the probability of every token of a text except the first, float64 (n - 1,).

    The model is interpolated Kneser-Ney smoothing (Kneser & Ney 1995; Chen & Goodman 1999) with one discount per
    order.

    Args:
        train_ids: Token IDs that are counted, int64.
        token_ids: Token IDs that are scored, int64 (n,).
        vocab_size: Number of distinct token IDs; ``vocab_size ** order`` must be below 2**63.
        order: Longest n-gram, in tokens.
    """
    probability = np.full(len(token_ids) - 1, 1.0 / vocab_size)
    tables = []  # (distinct n-grams ascending, counts), from the longest n-grams to single tokens
    keys = None
    for length in range(order, 0, -1):
        # Shorter n-grams are counted by the number of different tokens that precede them
        ngrams = _ngram_keys(train_ids, vocab_size, length) if keys is None else keys % vocab_size**length
        keys, counts = np.unique(ngrams, return_counts=True)
        tables.append((keys, counts))
    for length, (keys, counts) in zip(range(1, order + 1), reversed(tables), strict=True):
        once, twice = (counts == 1).sum(), (counts == 2).sum()
        discount = (once + 0.5) / (once + 2 * twice + 1)  # never 0, which would make unseen tokens impossible
        contexts, first = np.unique(keys // vocab_size, return_index=True)
        totals = np.add.reduceat(counts, first)
        followers = np.diff(np.append(first, len(keys)))
        scored = _ngram_keys(token_ids, vocab_size, length)
        if length == 1:
            scored = scored[1:]
        backoff = probability[max(0, length - 2) :]  # a view: the first tokens have no context of this length
        context_index = np.minimum(np.searchsorted(contexts, scored // vocab_size), len(contexts) - 1)
        context_seen = contexts[context_index] == scored // vocab_size
        key_index = np.minimum(np.searchsorted(keys, scored), len(keys) - 1)
        count = np.where(keys[key_index] == scored, counts[key_index], 0)
        discounted = np.maximum(count - discount, 0) / totals[context_index]
        backoff_weight = discount * followers[context_index] / totals[context_index]
        backoff[:] = np.where(context_seen, discounted + backoff_weight * backoff, backoff)
    return probability


def _ngram_keys(token_ids: np.ndarray, vocab_size: int, length: int) -> np.ndarray:
    """Encode every n-gram as one number: int64 (n - length + 1,)."""
    keys = np.zeros(len(token_ids) - length + 1, np.int64)
    for i in range(length):
        keys = keys * vocab_size + token_ids[i : len(token_ids) - length + 1 + i]
    return keys
