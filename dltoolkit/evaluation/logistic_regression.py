"""Logistic regression: one fit and one search for its regularization, behind every linear model of the toolkit."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

Model = TypeVar("Model")
TOLERANCES = {"lbfgs": 1e-3, "liblinear": 1e-4}  # stopping tolerance of each solver, in its own unit
HELD_OUT = 5  # one training example in five is held out to compare values of C


def fit(
    x: Any,
    y: np.ndarray,
    C: float,
    *,
    max_iter: int,
    solver: Literal["lbfgs", "liblinear"] = "lbfgs",
    class_weight: Literal["balanced"] | None = None,
) -> LogisticRegression:
    """Fit scikit-learn's logistic regression without its convergence warning.

    Args:
        x: Features, float (n, features), dense or a SciPy sparse matrix.
        y: Labels, int or bool (n,), with at least two distinct values.
        C: Inverse regularization strength, above 0.
        max_iter: Iterations after which the solver stops.
        solver: ``lbfgs`` fits all classes together; ``liblinear`` fits two classes in the dual, which suits sparse
            features.
        class_weight: ``balanced`` gives every class the same total weight.
    """
    from sklearn.linear_model import LogisticRegression  # the import takes one to two seconds

    model = LogisticRegression(
        C=C,
        max_iter=max_iter,
        solver=solver,
        dual=solver == "liblinear",
        tol=TOLERANCES[solver],
        class_weight=class_weight,
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ConvergenceWarning: the callers choose max_iter for speed
        return model.fit(x, y)


def search(
    candidates: Sequence[float],
    evaluate: Callable[[float], tuple[float, Model]],
    *,
    max_seconds: float | None = None,
) -> tuple[float, Model]:
    """Return the candidate C with the highest score and its model; the first candidate wins a tie.

    Args:
        candidates: Values of C to try, in ascending order if there is a time limit, because a higher C takes longer.
        evaluate: Maps C to ``(score, model)``.
        max_seconds: Time limit. A candidate is left out if the one before it suggests that it would exceed the limit.
    """
    best, start, last = None, time.monotonic(), 0.0
    for C in candidates:
        now = time.monotonic()
        if best is not None and max_seconds is not None and now - start + last > max_seconds:
            break
        score, model = evaluate(C)
        last = time.monotonic() - now
        if best is None or score > best[0]:
            best = score, C, model
    return best[1], best[2]


def search_held_out(
    candidates: Sequence[float],
    predict: Callable[[np.ndarray, np.ndarray, float], np.ndarray],
    y: np.ndarray,
    rng: np.random.Generator,
    *,
    default: float,
    min_classes: int = 2,
) -> float:
    """Return the candidate C with the highest accuracy on a held-out fifth of the training examples.

    Args:
        candidates: Values of C to try.
        predict: Maps ``(rows to fit, rows to predict, C)`` to predicted labels int (rows to predict,).
        y: Labels of the training examples, int (n,).
        rng: Draws the held-out rows.
        default: C that is returned if there are too few examples to hold any out.
        min_classes: Distinct labels that the remaining rows must have.
    """
    order = rng.permutation(len(y))
    held_out, rest = order[: len(y) // HELD_OUT], order[len(y) // HELD_OUT :]
    if not len(held_out) or len(np.unique(y[rest])) < min_classes:
        return default

    def accuracy(C: float) -> tuple[float, None]:
        return float((predict(rest, held_out, C) == y[held_out]).mean()), None

    return search(candidates, accuracy)[0]
