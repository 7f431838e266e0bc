"""The answers of a run or of an export to many inputs, in batches; an export answers without TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import logsumexp


def logits(model: Any, inputs: np.ndarray, batch_size: int) -> np.ndarray:
    """Return the logits float64 (n, classes) of inputs (n, …).

    Args:
        model: The ``model`` of a run or of an export.
        inputs: The inputs as the model reads them.
        batch_size: Number of inputs that the model answers together.
    """
    starts = range(0, len(inputs), batch_size)
    parts = [np.asarray(model.predict_on_batch(inputs[start : start + batch_size])) for start in starts]
    return np.concatenate(parts).astype(np.float64)


def log_odds(logits: np.ndarray, target: int) -> np.ndarray:
    """Return the logarithm of p / (1 - p) of a class, float64 (n,), for logits (n, classes).

    Unlike the probability, it does not saturate when the model is sure.
    """
    return logits[:, target] - logsumexp(np.delete(logits, target, axis=1), axis=1)
