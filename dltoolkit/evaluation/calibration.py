"""Temperature scaling: calibrated probabilities with unchanged predictions (Guo et al. 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras

BOUNDS = (0.1, 10.0)  # range of the temperature; an optimum outside would point to another defect of the model


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature that minimizes the cross-entropy of ``softmax(logits / temperature)``.

    Args:
        logits: Logits on the validation split, float (n, classes).
        labels: True labels, int (n,).
    """
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(labels))
    # Smoothed targets, as in Platt (1999): without any mistake, the optimal temperature would be zero
    smoothing = 1 / (len(labels) + 2)

    def cross_entropy(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / np.exp(log_temperature)
        scaled -= scaled.max(axis=1, keepdims=True)
        log_p = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
        return -float(((1 - smoothing) * log_p[rows, labels] + smoothing * log_p.mean(axis=1)).mean())

    result = minimize_scalar(cross_entropy, bounds=np.log(BOUNDS), method="bounded")
    return float(np.exp(result.x))


def divide_logits(model: keras.Model, temperature: float) -> None:
    """Divide the logits of a classifier by a temperature, in the weights of its layer named ``logits``."""
    for variable in _logits_layer(model).trainable_variables:
        variable.assign(variable / temperature)


def _logits_layer(model: keras.Model) -> keras.layers.Layer:
    """Return the layer named ``logits``, also if the classifier is nested in another model."""
    layer = next((layer for layer in model.layers if layer.name == "logits"), None)
    nested = next((layer for layer in model.layers if hasattr(layer, "layers")), None)
    if layer is None and nested is None:
        raise ValueError(f"The model {model.name} has no layer named 'logits'.")
    return layer or _logits_layer(nested)
