"""How faithful explanations of texts are: what the answers lose without the words that matter, and with them alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dltoolkit.evaluation import prediction

FRACTIONS = (0.01, 0.05, 0.1, 0.2, 0.5)  # of the words, as DeYoung et al. take them


def measure(
    explainer: Any, texts: Sequence[str], values: Sequence[np.ndarray], targets: Sequence[int]
) -> dict[str, np.ndarray]:
    """Return how much of the probability of the answers rests on the words with the largest values.

    DeYoung et al., "ERASER: A Benchmark to Evaluate Rationalized NLP Models", 2020. Comprehensiveness is what the
    probability of the class loses when the words with the largest values are taken away, and sufficiency
    what it loses when all others are; each is the mean over 1, 5, 10, 20 and 50 % of the words, at least one.

    Args:
        explainer: The :class:`TextExplainer` of the run.
        texts: The texts.
        values: For each text the attribution of its most probable class, float (words,).
        targets: Number of the most probable class of each text.

    Returns:
        ``comprehensiveness``, which is large for a faithful explanation, and ``sufficiency``, which is small, each
        float64 (texts,).
    """
    losses = np.array([_losses(explainer, *each) for each in zip(texts, values, targets, strict=True)])
    losses = losses.reshape(len(texts), 2, len(FRACTIONS)).mean(axis=2)
    return {"comprehensiveness": losses[:, 0], "sufficiency": losses[:, 1]}


def _losses(explainer: Any, text: str, values: np.ndarray, target: int) -> np.ndarray:
    """Return the losses without the words that matter, then those with them alone, float64 (2 * fractions,)."""
    read, count = explainer.word_by_word(text), len(values)
    ranks = np.empty(count, int)
    ranks[np.argsort(-np.asarray(values), kind="stable")] = np.arange(count)
    matters = ranks < np.maximum(1, np.ceil(np.array(FRACTIONS) * count - 1e-9))[:, None]
    in_variant = np.concatenate([np.ones((1, count), bool), ~matters, matters])
    probabilities = prediction.softmax(explainer.answer(read.variants(in_variant)))[:, target]
    return probabilities[0] - probabilities[1:]
