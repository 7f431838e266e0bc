"""A linear probe: logistic regression on the features of a frozen network, returned as weights of a dense layer."""

from __future__ import annotations

import importlib
import threading

import numpy as np

from dltoolkit.evaluation import logistic_regression

CANDIDATES = tuple(10.0**power for power in range(-5, 3))  # values of C (inverse regularization) to choose from
MAX_ITER = 200  # iterations of L-BFGS
ABSENT_CLASS_BIAS = -10.0  # logit of a class that has no training example


def import_in_background() -> None:
    """Start to import scikit-learn, which takes one to two seconds, while features are computed."""
    threading.Thread(target=importlib.import_module, args=("sklearn.linear_model",), daemon=True).start()


def fit(
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    classes: int,
    *,
    balanced: bool = False,
    C: float | None = None,
    max_seconds: float | None = None,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Fit multinomial logistic regression with the C that has the lowest cross-entropy on validation.

    Args:
        train: Features float (n, units) and labels int (n,).
        validation: Features and labels like those of ``train``.
        classes: Number of classes.
        balanced: Whether all classes have the same total weight.
        C: Inverse regularization strength, instead of a search.
        max_seconds: Time limit of the search.

    Returns:
        Kernel float32 (units, classes) and bias float32 (classes,) of a dense layer, and C.
    """
    x, y = np.asarray(train[0], np.float32), train[1]
    mean, variance = x.mean(axis=0), x.var(axis=0)
    scale = np.sqrt(variance + variance.mean() + 1e-6)  # a feature that hardly varies in few examples stays small
    x = (x - mean) / scale
    validation_x, validation_y = (np.asarray(validation[0], np.float32) - mean) / scale, validation[1]
    basis = None
    if len(x) < x.shape[1]:  # the weights lie in the span of the examples, which has fewer dimensions
        basis, x = np.linalg.qr(x.T)
        x, validation_x = x.T, validation_x @ basis

    def evaluate(C: float) -> tuple[float, tuple[np.ndarray, np.ndarray]]:
        model = logistic_regression.fit(x, y, C, max_iter=MAX_ITER, class_weight="balanced" if balanced else None)
        weights, intercept = model.coef_.T, model.intercept_
        if weights.shape[1] == 1:  # two classes
            weights, intercept = weights * [[-0.5, 0.5]], intercept * [-0.5, 0.5]
        kernel, bias = np.zeros((x.shape[1], classes)), np.full(classes, ABSENT_CLASS_BIAS)
        kernel[:, model.classes_], bias[model.classes_] = weights, intercept
        logits = validation_x @ kernel + bias
        true_logits = logits[np.arange(len(validation_y)), validation_y]
        return -np.mean(np.logaddexp.reduce(logits, axis=1) - true_logits), (kernel, bias)

    candidates = CANDIDATES if C is None else (C,)
    C, (kernel, bias) = logistic_regression.search(candidates, evaluate, max_seconds=max_seconds)
    kernel = (kernel if basis is None else basis @ kernel) / scale[:, None]
    return kernel.astype("float32"), (bias - mean @ kernel).astype("float32"), C
