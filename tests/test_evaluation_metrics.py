"""Metrics of a classifier: scikit-learn's values, confidence intervals, and plain JSON."""

import json
import warnings

import numpy as np
import pytest
from sklearn import metrics as reference

from dltoolkit.errors import UserError
from dltoolkit.evaluation import baseline, metrics

KEYS = {
    "loss",
    "accuracy",
    "accuracy_ci95",
    "balanced_accuracy",
    "balanced_accuracy_ci95",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "per_class",
    "confusion",
    "ece",
}


def random_predictions(seed: int, count: int = 400, classes: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Return labels (count,) and probabilities (count, classes); class 4 is only predicted, class 5 not even that."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 2, 3], count, p=[0.5, 0.3, 0.15, 0.05])
    logits = rng.normal(size=(count, classes))
    logits[np.arange(count), labels] += 1.5
    logits[:, 5] = -30.0
    powers = np.exp(logits)
    return labels, powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(5))
def test_classification_equals_scikit_learn(seed):
    labels, probabilities = random_predictions(seed)
    predictions = probabilities.argmax(axis=1)
    assert 4 in predictions  # it counts in the macro averages, class 5 does not
    scores = metrics.classification(labels, probabilities, list("abcdef"))

    precision, recall, f1, _ = reference.precision_recall_fscore_support(
        labels, predictions, average="macro", zero_division=0
    )
    assert scores["macro_precision"] == pytest.approx(precision)
    assert scores["macro_recall"] == pytest.approx(recall)
    assert scores["macro_f1"] == pytest.approx(f1)
    assert scores["accuracy"] == pytest.approx(reference.accuracy_score(labels, predictions))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # class 4 is predicted but never true
        balanced_accuracy = reference.balanced_accuracy_score(labels, predictions)
    assert scores["balanced_accuracy"] == pytest.approx(balanced_accuracy)
    assert scores["loss"] == pytest.approx(reference.log_loss(labels, probabilities, labels=range(6)))
    assert scores["confusion"] == reference.confusion_matrix(labels, predictions, labels=range(6)).tolist()
    each = reference.precision_recall_fscore_support(labels, predictions, labels=range(6), zero_division=0)
    for number, name in enumerate("abcdef"):
        of_class = scores["per_class"][name]
        expected = [part[number] for part in each]
        assert [of_class[key] for key in ("precision", "recall", "f1", "support")] == pytest.approx(expected)


def test_classification_returns_the_keys_of_the_contract_as_plain_json():
    labels, probabilities = random_predictions(0)
    scores = metrics.classification(labels, probabilities.astype(np.float32), list("abcdef"))
    assert set(scores) == KEYS
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    assert list(scores["per_class"]) == list("abcdef")
    assert scores["confusion"][0][0] + sum(scores["confusion"][0][1:]) == scores["per_class"]["a"]["support"]


def test_classification_has_the_true_classes_in_the_rows_of_the_confusion_matrix():
    probabilities = np.eye(3)[[0, 1, 1]]
    scores = metrics.classification(np.array([0, 0, 2]), probabilities, ["a", "b", "c"])
    assert scores["confusion"] == [[1, 1, 0], [0, 0, 0], [0, 1, 0]]


def test_score_averages_over_the_classes_that_occur_or_are_predicted():
    scores = metrics.score(np.array([0, 0, 0, 1]), np.array([0, 0, 2, 1]), 4)
    assert scores["precision"].tolist() == [1, 1, 0, 0]
    assert scores["recall"] == pytest.approx([2 / 3, 1, 0, 0])
    assert scores["macro_precision"] == pytest.approx(2 / 3)  # class 2 is predicted; class 3 is left out
    assert scores["macro_recall"] == pytest.approx((2 / 3 + 1) / 3)
    assert scores["macro_f1"] == pytest.approx((0.8 + 1) / 3)
    assert scores["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)  # classes 2 and 3 do not occur
    assert scores["accuracy"] == 0.75


def test_classification_limits_the_loss_of_a_probability_of_zero():
    scores = metrics.classification(np.array([0, 1]), np.array([[1.0, 0.0], [1.0, 0.0]]), ["a", "b"])
    assert scores["loss"] == pytest.approx(-np.log(1e-7) / 2)


def test_interval_is_the_bootstrap_of_the_predictions():
    rng = np.random.default_rng(1)
    right = rng.random(1000) < 0.8
    resampled = right[rng.integers(0, 1000, (4000, 1000))].mean(axis=1)
    assert metrics.interval(int(right.sum()), 1000) == pytest.approx(np.percentile(resampled, [2.5, 97.5]), abs=0.003)
    assert metrics.interval(800, 1000, seed=3) == metrics.interval(800, 1000, seed=3)


def test_balanced_interval_is_as_wide_as_the_rarest_class_is_uncertain():
    """The recalls 90 % of 1,000 and 50 % of 10 have standard errors of 1 and 16 points, their mean of 8."""
    low, high = metrics.balanced_interval(np.array([[900, 100, 0], [5, 5, 0], [0, 0, 0]]))
    assert (low, high) == pytest.approx((0.7 - 1.96 * 0.075, 0.7 + 1.96 * 0.075), abs=0.02)
    low, high = metrics.balanced_interval(np.diag([20, 20]))
    assert high == 1 and 0.9 < low < 0.99


def test_balanced_interval_of_a_constant_prediction_does_not_exist():
    """Its score is exactly 1 / classes; the recall of a single class that occurs is uncertain."""
    assert metrics.balanced_interval(np.array([[0, 30], [0, 10]])) is None
    assert metrics.balanced_interval(np.array([[20, 0], [0, 0]]))[1] == 1
    constant = baseline.majority(np.repeat([0, 1], 20), np.arange(40), np.arange(40), ["a", "b"]).scores()
    assert (constant["balanced_accuracy"], constant["balanced_accuracy_ci95"]) == (0.5, None)


@pytest.mark.parametrize(
    ("right", "count", "expected"),
    [(100, 100, (0.9630, 1.0)), (0, 100, (0.0, 0.0370)), (99, 100, (0.9455, 0.9982)), (1, 1, (0.2065, 1.0))],
)
def test_interval_is_wilsons_for_few_mistakes(right, count, expected):
    assert metrics.interval(right, count) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("share", [0.5, 0.93, 0.99])
def test_interval_covers_the_true_accuracy_in_95_percent_of_the_samples(share):
    rng = np.random.default_rng(0)
    ends = np.array([metrics.interval(int(rng.binomial(270, share)), 270, seed=i) for i in range(300)])
    assert 0.91 <= ((ends[:, 0] <= share) & (share <= ends[:, 1])).mean() <= 0.99


def test_classification_has_the_calibration_error_computed_by_hand():
    probabilities = np.tile([0.8, 0.2], (10, 1))
    scores = metrics.classification(np.array([0] * 5 + [1] * 5), probabilities, ["a", "b"])
    assert scores["ece"] == pytest.approx(0.3)  # confidence 0.8, accuracy 0.5


def test_classification_has_the_calibration_error_of_guo_2017():
    labels, probabilities = random_predictions(7, count=2000)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    error = 0.0
    for number in range(15):
        inside = (confidence > number / 15) & (confidence <= (number + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert metrics.classification(labels, probabilities, list("abcdef"))["ece"] == pytest.approx(error)


def test_reliability_puts_a_confidence_of_1_into_the_last_bin():
    bins = metrics.reliability(np.array([0, 1, 1]), np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.4]]), bins=5)
    assert bins["count"].tolist() == [0, 0, 1, 0, 2]
    assert bins["accuracy"].tolist() == [0, 0, 0, 0, 1]
    assert bins["confidence"] == pytest.approx([0.1, 0.3, 0.6, 0.7, 1.0])


def test_worst_mistakes_are_sorted_by_confidence():
    labels = np.array([0, 1, 0, 1, 0])
    probabilities = np.array([[0.1, 0.9], [0.3, 0.7], [0.4, 0.6], [0.99, 0.01], [0.9, 0.1]])
    assert metrics.worst_mistakes(labels, probabilities).tolist() == [3, 0, 2]
    assert metrics.worst_mistakes(labels, probabilities, 1).tolist() == [3]
    assert metrics.worst_mistakes(labels[4:], probabilities[4:]).tolist() == []


def test_classification_refuses_invalid_input():
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
