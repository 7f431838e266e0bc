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


def divide_logits(model: keras.Model, temperature: float) -> keras.Model:
    """Return a classifier whose logits are divided by a temperature.

    The weights of its layer named ``logits`` are changed. A model without it gets a further layer.
    """
    layer = _logits_layer(model)
    if layer is None:
        import keras

        scaled = keras.layers.Rescaling(1 / temperature, dtype="float32", name="temperature")(model.output)
        return keras.Model(model.input, scaled, name=model.name)
    for variable in layer.trainable_variables:
        variable.assign(variable / temperature)
    return model


def _logits_layer(model: keras.Model) -> keras.layers.Layer | None:
    """Return the last layer if it is a linear one named ``logits``, also of a nested classifier; otherwise None."""
    import keras

    last = model.layers[-1]
    if last.name == "logits":
        is_linear = getattr(last, "activation", None) in (None, keras.activations.linear)
        return last if is_linear and last.trainable_variables else None
    nested = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    return _logits_layer(nested[0]) if len(nested) == 1 else None
