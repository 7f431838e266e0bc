"""Logistic regression and the search for its regularization."""

import warnings

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from dltoolkit.evaluation import logistic_regression


def two_classes(count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Features (count, 5), of which the first separates the labels (count,) with some overlap."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, count)
    x = rng.normal(size=(count, 5))
    x[:, 0] += 2 * labels
    return x, labels


def test_fit_separates_classes_without_convergence_warnings():
    x, labels = two_classes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for solver, features in (("lbfgs", x), ("liblinear", csr_matrix(x))):
            model = logistic_regression.fit(features, labels, 1.0, max_iter=2, solver=solver)
            assert (model.predict(features) == labels).mean() > 0.75
            assert np.abs(model.coef_[0]).argmax() == 0


def test_fit_shrinks_weights_for_small_C():
    x, labels = two_classes()
    weights = [np.abs(logistic_regression.fit(x, labels, C, max_iter=50).coef_).sum() for C in (0.001, 0.1, 10.0)]
    assert weights == sorted(weights)
    assert weights[0] < 0.2 * weights[2]


def test_fit_balances_classes():
    x, labels = two_classes()
    rare = np.flatnonzero(labels == 1)[:10]
    rows = np.concatenate([np.flatnonzero(labels == 0), rare])
    plain, balanced = (
        logistic_regression.fit(x[rows], labels[rows], 1.0, max_iter=50, class_weight=weight).predict(x[rare])
        for weight in (None, "balanced")
    )
    assert balanced.sum() > plain.sum()


def test_search_returns_the_model_of_the_highest_score_and_the_first_of_equals():
    scores = {0.1: 0.5, 1.0: 0.9, 10.0: 0.9}
    assert logistic_regression.search(list(scores), lambda C: (scores[C], f"model {C}")) == (1.0, "model 1.0")


def test_search_held_out_compares_predictions_on_a_disjoint_fifth():
    y = np.arange(50) % 2
    seen = []

    def predict(fitted, predicted, C):
        seen.append((len(fitted), len(predicted)))
        assert not set(fitted) & set(predicted)
        return y[predicted] if C == 1.0 else 1 - y[predicted]

    C = logistic_regression.search_held_out((0.1, 1.0, 10.0), predict, y, np.random.default_rng(0), default=5.0)
    assert C == 1.0
    assert seen == [(40, 10)] * 3


@pytest.mark.parametrize(("y", "min_classes"), [([0, 1, 0, 1], 2), ([0] * 20, 2), ([0, 1] * 10, 3)])
def test_search_held_out_falls_back_to_the_default(y, min_classes):
    def predict(fitted, predicted, C):
        raise AssertionError("nothing can be compared")

    rng = np.random.default_rng(0)
    y = np.array(y)
    C = logistic_regression.search_held_out((0.1, 1.0), predict, y, rng, default=5.0, min_classes=min_classes)
    assert C == 5.0
