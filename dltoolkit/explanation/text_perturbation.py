"""Explanations of texts by what changes when words are taken away; they need no gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dltoolkit.explanation.answering import log_odds
from dltoolkit.explanation.text_reading import BagText, ReadText

Logits = Callable[[np.ndarray], np.ndarray]  # token IDs int32 (n, time) -> logits (n, classes)

WORDS_READ = 1 << 14  # words of all variants of a text without one of its words, above which sentences come first
MIN_WORDS = 48  # words of any text that are taken away one by one
MAX_DIVIDED = 4  # of that number, up to which the most important sentence is divided into words nevertheless
MAX_SENTENCES = 100  # sentences that are taken away one by one; those of a text with more are joined
MAX_SENTENCE = 24  # words of a sentence; longer ones are divided
MAX_WORDS = 1 << 20  # words of the variants of a text that are made at a time, which bounds the memory
LISTED = 20  # n-grams that JSON lists


def leave_one_out(read: ReadText, targets: Sequence[int], logits: Logits) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the loss of log odds of each class when a word is taken away.

    Li, Monroe & Jurafsky, "Understanding Neural Networks through Representation Erasure", 2016. Of a text with more
    than 128 words, each sentence is taken away, and then the words of those that change the answer most. The words of
    the others share the change of their sentence.

    Args:
        read: The text.
        targets: Numbers of the classes.
        logits: Answers texts.

    Returns:
        float32 (targets, words), and the sentences of a long text for JSON.
    """
    count = len(read.spans)
    limit = max(MIN_WORDS, WORDS_READ // max(1, count))
    if count <= limit:
        return _losses(read, ~np.eye(count, dtype=bool), targets, logits).astype(np.float32), {}
    sentences = _joined(read.sentences)
    losses = _losses(read, np.arange(sentences[-1] + 1)[:, None] != sentences, targets, logits)
    lengths = np.bincount(sentences)
    order = np.argsort(-np.abs(losses).max(axis=0), kind="stable")
    can_divide = lengths[order[0]] <= MAX_DIVIDED * limit  # of a text of a book's length, a part alone takes too long
    divided = order[: max(int(can_divide), int((np.cumsum(lengths[order]) <= limit).sum()))]
    values = (losses / lengths)[:, sentences]
    words = np.flatnonzero(np.isin(sentences, divided))
    values[:, words] = _losses(read, np.arange(count) != words[:, None], targets, logits)
    first = np.searchsorted(sentences, np.arange(sentences[-1] + 1))
    listed = [
        {
            "start": read.spans[begin][0],
            "end": read.spans[begin + length - 1][1],
            "value": round(float(loss), 4),
            "by_word": bool(number in divided),
        }
        for number, (begin, length, loss) in enumerate(zip(first, lengths, losses[0], strict=True))
    ]
    return values.astype(np.float32), {"sentences": listed}


def ngram_weights(read: BagText, targets: Sequence[int], logits: Logits) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the exact parts of the words in the logits of a model that is linear in n-grams.

    Wang & Manning, "Baselines and Bigrams: Simple, Good Sentiment and Topic Classification", 2012. A logit is the bias
    plus the weight of each n-gram of the text, which its occurrences, and the words of each of them, share equally. So
    the values of the words add up to the logit minus the bias. The weight of an n-gram is the logit of a text that
    holds nothing else, minus the bias.

    Args:
        read: The text.
        targets: Numbers of the classes.
        logits: Answers texts.

    Returns:
        float32 (targets, words), and the logit, the bias and the largest weights of the first class for JSON.
    """
    ids, entries = read.entries()
    answers = logits(np.concatenate([[0], ids]).astype(np.int32)[:, None])[:, targets]
    bias, weights = answers[0], answers[1:] - answers[0]
    values = np.zeros((len(targets), len(read.spans)))
    for weight, (_, places) in zip(weights, entries, strict=True):
        for start, end in places:
            values[:, start:end] += (weight / len(places) / (end - start))[:, None]
    order = np.argsort(-np.abs(weights[:, 0]), kind="stable")[:LISTED]
    listed = [
        {"ngram": entries[i][0], "weight": round(float(weights[i, 0]), 4), "count": len(entries[i][1])} for i in order
    ]
    logit = float(bias[0] + weights[:, 0].sum())
    return values.astype(np.float32), {"logit": round(logit, 6), "bias": round(float(bias[0]), 6), "ngrams": listed}


def _losses(read: ReadText, kept: np.ndarray, targets: Sequence[int], logits: Logits) -> np.ndarray:
    """Return the loss of log odds of each class in each variant, float64 (targets, variants)."""
    rows = np.concatenate([np.ones((1, kept.shape[1]), bool), kept])
    size = max(1, MAX_WORDS // max(1, kept.shape[1]))
    parts = [logits(read.variants(rows[begin : begin + size])) for begin in range(0, len(rows), size)]
    answers = np.concatenate(parts)
    return np.stack([(odds := log_odds(answers, target))[0] - odds[1:] for target in targets])


def _joined(sentences: np.ndarray) -> np.ndarray:
    """Return the numbers of sentences that are neither too many nor too long.

    Args:
        sentences: The number of the sentence of each word, ascending.
    """
    per_part = -(-len(sentences) // MAX_SENTENCES)
    numbers, starts = np.zeros(len(sentences), int), np.flatnonzero(np.diff(sentences, prepend=-1))
    number, begin = -1, 0
    ends = [*starts[1:].tolist(), len(sentences)]
    for start, end in zip(starts.tolist(), ends, strict=True):
        if number < 0 or start - begin >= per_part:
            number, begin = number + 1, start
        for first in range(start, end, max(MAX_SENTENCE, per_part)):
            if first > start:
                number, begin = number + 1, first
            numbers[first:end] = number
    return numbers
