"""Temperature scaling: probabilities that mean what they say, without changing a single answer (Guo et al. 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras

BOUNDS = (0.1, 10.0)  # of the temperature; a better one outside would mean that something else is wrong


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature under which ``softmax(logits / temperature)`` has the least cross-entropy.

    Args:
        logits: float (n, classes), of the validation split.
        labels: true class numbers, int (n,).
    """
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(labels))
    doubt = 1 / (len(labels) + 2)  # as in Platt (1999): without any mistake, the likeliest temperature would be zero

    def cross_entropy(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / np.exp(log_temperature)
        scaled -= scaled.max(axis=1, keepdims=True)
        log_p = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
        return -float(((1 - doubt) * log_p[rows, labels] + doubt * log_p.mean(axis=1)).mean())

    found = minimize_scalar(cross_entropy, bounds=np.log(BOUNDS), method="bounded")
    return float(np.exp(found.x))


def divide_logits(model: keras.Model, by: float) -> None:
    """Divide the outputs of a classifier by a number, inside the trained weights of its layer named ``logits``."""
    for variable in _logits(model).trainable_variables:
        variable.assign(variable / by)


def _logits(model: keras.Model) -> keras.layers.Layer:
    """Return the layer, also where the classifier is part of a larger model."""
    found = next((layer for layer in model.layers if layer.name == "logits"), None)
    inner = next((layer for layer in model.layers if hasattr(layer, "layers")), None)
    if found is None and inner is None:
        raise ValueError(f"{model.name} has no layer named 'logits'")
    return found or _logits(inner)
