"""Scores of a classifier: equal to scikit-learn's, honest about their uncertainty, and fit for JSON."""

import json

import numpy as np
import pytest
from sklearn import metrics as reference

from dltoolkit.errors import UserError
from dltoolkit.evaluation import calibration, metrics

KEYS = {
    "loss",
    "accuracy",
    "accuracy_ci95",
    "balanced_accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "per_class",
    "confusion",
    "ece",
}


def random_answers(seed: int, count: int = 400, classes: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Labels (count,) and probabilities (count, classes); class 4 never occurs, class 5 never at all."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 2, 3], count, p=[0.5, 0.3, 0.15, 0.05])
    logits = rng.normal(size=(count, classes))
    logits[np.arange(count), labels] += 1.5
    logits[:, 5] = -30.0
    powers = np.exp(logits)
    return labels, powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_scikit_learn(seed):
    labels, probabilities = random_answers(seed)
    answers = probabilities.argmax(axis=1)
    assert 4 in answers  # answered but never true: it counts; class 5 does neither: it does not
    found = metrics.classification(labels, probabilities, list("abcdef"))

    precision, recall, f1, _ = reference.precision_recall_fscore_support(
        labels, answers, average="macro", zero_division=0
    )
    assert found["macro_precision"] == pytest.approx(precision)
    assert found["macro_recall"] == pytest.approx(recall)
    assert found["macro_f1"] == pytest.approx(f1)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(labels, answers))
    assert found["loss"] == pytest.approx(reference.log_loss(labels, probabilities, labels=range(6)))
    assert found["confusion"] == reference.confusion_matrix(labels, answers, labels=range(6)).tolist()
    each = reference.precision_recall_fscore_support(labels, answers, labels=range(6), zero_division=0)
    for number, name in enumerate("abcdef"):
        scores = found["per_class"][name]
        expected = [part[number] for part in each]
        assert [scores[key] for key in ("precision", "recall", "f1", "support")] == pytest.approx(expected)


def test_the_contract_names_and_plain_json():
    labels, probabilities = random_answers(0)
    found = metrics.classification(labels, probabilities.astype(np.float32), list("abcdef"))
    assert set(found) == KEYS
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert list(found["per_class"]) == list("abcdef")
    assert found["confusion"][0][0] + sum(found["confusion"][0][1:]) == found["per_class"]["a"]["support"]


def test_confusion_rows_are_the_truth():
    probabilities = np.eye(3)[[0, 1, 1]]
    found = metrics.classification(np.array([0, 0, 2]), probabilities, ["a", "b", "c"])
    assert found["confusion"] == [[1, 1, 0], [0, 0, 0], [0, 1, 0]]


def test_a_probability_of_zero_costs_much_but_not_infinity():
    found = metrics.classification(np.array([0, 1]), np.array([[1.0, 0.0], [1.0, 0.0]]), ["a", "b"])
    assert found["loss"] == pytest.approx(-np.log(1e-7) / 2)


def test_the_interval_is_the_bootstrap_of_the_answers():
    rng = np.random.default_rng(1)
    right = rng.random(1000) < 0.8
    resampled = right[rng.integers(0, 1000, (4000, 1000))].mean(axis=1)
    assert metrics.interval(int(right.sum()), 1000) == pytest.approx(np.percentile(resampled, [2.5, 97.5]), abs=0.003)
    assert metrics.interval(800, 1000, seed=3) == metrics.interval(800, 1000, seed=3)


@pytest.mark.parametrize(
    ("right", "count", "expected"),
    [(100, 100, (0.9630, 1.0)), (0, 100, (0.0, 0.0370)), (99, 100, (0.9455, 0.9982)), (1, 1, (0.2065, 1.0))],
)
def test_with_few_mistakes_the_interval_is_wilsons(right, count, expected):
    assert metrics.interval(right, count) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("share", [0.5, 0.93, 0.99])
def test_the_interval_holds_the_true_accuracy_nineteen_times_in_twenty(share):
    rng = np.random.default_rng(0)
    ends = np.array([metrics.interval(int(rng.binomial(270, share)), 270, seed=i) for i in range(300)])
    assert 0.91 <= ((ends[:, 0] <= share) & (share <= ends[:, 1])).mean() <= 0.99


def test_calibration_error_by_hand():
    probabilities = np.tile([0.8, 0.2], (10, 1))
    found = metrics.classification(np.array([0] * 5 + [1] * 5), probabilities, ["a", "b"])
    assert found["ece"] == pytest.approx(0.3)  # claims 0.8, is right half of the time


def test_calibration_error_of_guo_2017_bin_by_bin():
    labels, probabilities = random_answers(7, count=2000)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    error = 0.0
    for number in range(15):
        inside = (confidence > number / 15) & (confidence <= (number + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert metrics.classification(labels, probabilities, list("abcdef"))["ece"] == pytest.approx(error)


def test_the_temperature_mends_overconfidence_and_stays_modest_without_mistakes():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 2000)
    honest = rng.normal(size=(2000, 3)) + 1.5 * np.eye(3)[labels]
    at_its_best = calibration.fit_temperature(honest, labels)
    assert calibration.fit_temperature(3 * honest, labels) == pytest.approx(3 * at_its_best, rel=0.02)
    assert calibration.fit_temperature(np.eye(3)[[0, 1, 2] * 5], np.array([0, 1, 2] * 5)) > 0.15


def test_reliability_puts_full_confidence_into_the_last_bin():
    bins = metrics.reliability(np.array([0, 1, 1]), np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.4]]), bins=5)
    assert bins["count"].tolist() == [0, 0, 1, 0, 2]
    assert bins["accuracy"].tolist() == [0, 0, 0, 0, 1]
    assert bins["confidence"] == pytest.approx([0.1, 0.3, 0.6, 0.7, 1.0])


def test_worst_mistakes_are_wrong_and_most_confident_first():
    labels = np.array([0, 1, 0, 1, 0])
    probabilities = np.array([[0.1, 0.9], [0.3, 0.7], [0.4, 0.6], [0.99, 0.01], [0.9, 0.1]])
    assert metrics.worst_mistakes(labels, probabilities).tolist() == [3, 0, 2]
    assert metrics.worst_mistakes(labels, probabilities, 1).tolist() == [3]
    assert metrics.worst_mistakes(labels[4:], probabilities[4:]).tolist() == []


def test_what_cannot_be_scored_says_why():
    good = np.array([[0.5, 0.5], [0.5, 0.5]])
    with pytest.raises(UserError, match="1 of 2 predictions are NaN"):
        metrics.classification(np.array([0, 1]), np.array([[0.5, 0.5], [np.nan, 0.5]]), ["a", "b"])
    with pytest.raises(UserError, match="split to evaluate is empty"):
        metrics.classification(np.array([], int), np.zeros((0, 2)), ["a", "b"])
    with pytest.raises(ValueError, match="softmax"):
        metrics.classification(np.array([0, 1]), 4 * good, ["a", "b"])
    with pytest.raises(ValueError, match="2 classes"):
        metrics.classification(np.array([0, 2]), good, ["a", "b"])
    with pytest.raises(ValueError, match="shape"):
        metrics.classification(np.array([0, 1]), good, ["a", "b", "c"])
