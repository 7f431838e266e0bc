"""ROC and precision-recall curves of a classifier of two classes."""

import numpy as np
import pytest

from dltoolkit.evaluation import metrics, ranking

LABELS = np.array([0, 0, 1, 1, 1])
SECOND = np.array([0.1, 0.6, 0.4, 0.8, 0.9])  # probability of the second class; one pair of six is out of order


def points(x: np.ndarray, y: np.ndarray) -> set[tuple[float, float]]:
    return set(zip(x.round(4).tolist(), y.round(4).tolist(), strict=True))


def test_scores_count_the_pairs_in_order():
    scores = ranking.scores(LABELS, SECOND)
    assert scores["roc_auc"] == pytest.approx(5 / 6)
    assert scores["average_precision"] == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert ranking.scores(LABELS[2:], SECOND[2:]) == {}, "without examples of one class, nothing is ranked"


def test_curves_pass_through_the_rates_of_each_threshold():
    curves = ranking.curves(LABELS, np.stack([1 - SECOND, SECOND], axis=1))
    rates = points(curves["false_positive_rate"], curves["true_positive_rate"])
    assert {(0.0, 0.0), (0.0, 0.6667), (0.5, 0.6667), (0.5, 1.0), (1.0, 1.0)} <= rates
    assert {(0.6667, 1.0), (1.0, 0.75)} <= points(curves["recall"], curves["precision"])
    assert curves["prevalence"] == pytest.approx(0.6)
    assert ranking.curves(LABELS, np.full((5, 3), 1 / 3)) is None


def test_metrics_hold_the_scores_of_two_classes_only():
    two = metrics.classification(LABELS, np.stack([1 - SECOND, SECOND], axis=1), ["a", "b"])
    assert two["roc_auc"] == pytest.approx(5 / 6)
    assert "roc_auc" not in metrics.classification(LABELS, np.full((5, 3), 1 / 3), ["a", "b", "c"])
