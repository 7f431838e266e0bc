"""The linear probe is the best logistic regression on the features."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from dltoolkit.finetuning import linear_probe


@pytest.fixture
def labels():
    return np.random.default_rng(0).integers(0, 3, 90)


def features(labels: np.ndarray, units: int) -> np.ndarray:
    values = np.random.default_rng(1).normal(size=(len(labels), units)) * 3 + 7
    values[:, :3] += 2 * np.eye(3)[labels]
    return values


@pytest.mark.parametrize("units", [5, 200])
def test_fit_equals_logistic_regression_of_scikit_learn(labels, units):
    """With more units than examples the probe is fitted in the span of the examples, which must not matter."""
    x = features(labels, units)
    kernel, bias, C = linear_probe.fit((x[:60], labels[:60]), (x[60:], labels[60:]), 3)
    mean, variance = x[:60].mean(axis=0), x[:60].var(axis=0)
    scale = np.sqrt(variance + variance.mean())
    reference = LogisticRegression(C=C, max_iter=2000, tol=1e-6).fit((x[:60] - mean) / scale, labels[:60])
    expected = reference.predict_proba((x[60:] - mean) / scale)
    logits = x[60:] @ kernel + bias
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(probabilities / probabilities.sum(axis=1, keepdims=True), expected, atol=2e-2)


def test_fit_never_predicts_a_class_without_training_examples(labels):
    x = features(labels, 5)
    two = labels[:60] < 2
    kernel, bias, _ = linear_probe.fit((x[:60][two], labels[:60][two]), (x[60:], labels[60:]), 3)
    assert set((x @ kernel + bias).argmax(axis=1)) == {0, 1}


def test_fit_with_balanced_classes_predicts_a_rare_class_more_often():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [180, 20])
    x = rng.normal(size=(200, 4)) + labels[:, None]
    held_out = rng.permutation(200)[:60]
    plain, balanced = (
        linear_probe.fit((x, labels), (x[held_out], labels[held_out]), 2, balanced=balanced)
        for balanced in (False, True)
    )
    counts = [int((x @ kernel + bias).argmax(axis=1).sum()) for kernel, bias, _ in (plain, balanced)]
    assert counts[1] > counts[0]
