"""Significance of a difference between two classifiers, and the verdict about a run."""

import numpy as np
import pytest

from dltoolkit.evaluation import baseline, metrics, significance

LABELS = np.repeat([0, 1], [80, 20])


def predictions(right_of_0: range, right_of_1: range) -> np.ndarray:
    """Return predictions for LABELS that are right for these examples of each class."""
    right = np.zeros(100, bool)
    right[list(right_of_0)] = True
    right[[80 + i for i in right_of_1]] = True
    return np.where(right, LABELS, 1 - LABELS)


def judged(network: np.ndarray, **baselines: np.ndarray) -> dict:
    """Return metrics.json of a network with baselines: the majority class, and those given."""
    test = metrics.classification(LABELS, np.eye(2)[network], ["ham", "spam"])
    rows = np.arange(100)
    scored = {name: baseline.Baseline(rows, LABELS, predicted, 2) for name, predicted in baselines.items()}
    scored["majority"] = baseline.majority(np.concatenate([LABELS, LABELS]), np.arange(100, 200), rows, ["ham", "spam"])
    return {"test": test, "baseline": baseline.compare(scored, rows, network, test)}


def test_compare_is_mcnemars_exact_test():
    """Of 12 examples that only one of them gets right, the network has 10: 2 * P(X <= 2) of Binomial(12, 1/2)."""
    network, other = predictions(range(72), range(20)), predictions(range(10, 74), range(20))
    result = significance.compare(LABELS, network, other, "accuracy")
    assert (result["network_only"], result["baseline_only"], result["examples"]) == (10, 2, 100)
    assert result["difference"] == pytest.approx(0.08)
    assert result["p_value"] == pytest.approx(2 * (1 + 12 + 66) / 2**12)


def test_compare_weighs_classes_equally_in_balanced_accuracy():
    """Ten more of the rare class outweigh ten fewer of the frequent one; in accuracy the two classifiers are equal."""
    network, other = predictions(range(60), range(15)), predictions(range(70), range(5))
    accuracy = significance.compare(LABELS, network, other, "accuracy")
    assert (accuracy["difference"], accuracy["p_value"]) == (0, 1)
    balanced = significance.compare(LABELS, network, other, "balanced_accuracy")
    assert balanced["difference"] == pytest.approx((10 / 20 - 10 / 80) / 2)
    assert 0.001 < balanced["p_value"] < 0.05
    swapped = significance.compare(LABELS, other, network, "balanced_accuracy")
    assert swapped["difference"] == -balanced["difference"]
    assert swapped["p_value"] == pytest.approx(balanced["p_value"])


def test_compare_of_equal_predictions_finds_nothing():
    same = predictions(range(50), range(10))
    for metric in ("accuracy", "balanced_accuracy"):
        result = significance.compare(LABELS, same, same, metric)
        assert (result["difference"], result["p_value"]) == (0, 1)


def test_compare_aligns_a_baseline_that_saw_a_sample_in_another_order():
    network, rows = predictions(range(80), range(10)), np.array([95, 3, 82, 40])
    sample = baseline.Baseline(rows, LABELS[rows], 1 - LABELS[rows], 2)
    test = metrics.classification(LABELS, np.eye(2)[network], ["ham", "spam"])
    (scores,) = baseline.compare({"linear_probe": sample}, np.arange(100), network, test).values()
    comparison = scores["comparison"]
    assert (comparison["examples"], comparison["network_only"], comparison["baseline_only"]) == (4, 3, 0)


@pytest.mark.parametrize(("sizes", "metric"), [((60, 40), "accuracy"), ((70, 30), "balanced_accuracy")])
def test_main_metric_is_balanced_where_classes_are_imbalanced(sizes, metric):
    labels = np.repeat([0, 1], sizes)
    scores = metrics.classification(labels, np.eye(3)[labels], ["a", "b", "absent"])
    assert significance.main_metric(scores) == metric


@pytest.mark.parametrize(
    ("network", "linear", "statement"),
    [
        ((range(80), range(0)), (range(80), range(15)), "The network is no better than always predicting 'ham':"),
        (
            (range(78), range(1)),
            (range(80), range(15)),
            "The network is not clearly better than always predicting 'ham':",
        ),
        ((range(40), range(2)), (range(80), range(15)), "The network is worse than always predicting 'ham':"),
        ((range(78), range(18)), (range(70), range(9)), "The network is better than the linear model:"),
        ((range(80), range(20)), (range(70), range(9)), "The network makes no mistakes,"),
        ((range(79), range(15)), (range(78), range(14)), "The network is not clearly better than the linear model:"),
        ((range(79), range(14)), (range(78), range(15)), "The network is no better than the linear model:"),
        ((range(70), range(9)), (range(78), range(18)), "The network is worse than the linear model:"),
        ((range(78), range(15)), (range(78), range(15)), "The network is no better than the linear model:"),
    ],
)
def test_verdict_names_what_the_test_examples_show(network, linear, statement):
    judgement = significance.verdict(judged(predictions(*network), linear=predictions(*linear)))
    assert judgement.statement == statement
    assert str(judgement).endswith(".")


def test_verdict_names_the_baseline_that_beats_a_network_no_better_than_the_majority():
    constant, linear = predictions(range(80), range(0)), predictions(range(80), range(20))
    assert str(significance.verdict(judged(constant, linear=linear))) == (
        "The network is no better than always predicting 'ham': both classify the same examples correctly (50.0 %). "
        "The linear model reaches 100.0 %."
    )
    assert "linear" not in str(significance.verdict(judged(constant, linear=constant)))


def test_verdict_does_not_explain_a_difference_that_is_not_significant():
    judgement = str(significance.verdict(judged(predictions(range(80), range(4)), linear=np.zeros(100, int))))
    assert judgement.startswith(
        "The network is not clearly better than always predicting 'ham': balanced accuracy 60.0 %"
    )
    assert "chance" not in judgement and judgement.endswith(").")


def test_verdict_counts_mistakes_where_classes_are_balanced():
    labels = np.repeat([0, 1], 50)
    rows, network, linear = np.arange(100), labels.copy(), labels.copy()
    network[:10], linear[:40] = 1, 1
    test = metrics.classification(labels, np.eye(2)[network], ["a", "b"])
    scored = {
        "linear": baseline.Baseline(rows, labels, linear, 2),
        "majority": baseline.Baseline(rows, labels, np.zeros(100, int), 2, {"label": "a"}),
    }
    verdict = significance.verdict({"test": test, "baseline": baseline.compare(scored, rows, network, test)})
    assert (
        str(verdict)
        == "The network makes 75 % fewer mistakes than the linear model: accuracy 90.0 % against 60.0 % (p < 0.001)."
    )


def test_verdict_takes_the_best_baseline_but_not_the_network_itself():
    network = predictions(range(78), range(18))
    weak, strong = predictions(range(70), range(2)), predictions(range(70), range(9))
    assert significance.verdict(judged(network, linear=weak, from_scratch=strong)).statement == (
        "The network is better than the small network trained from scratch:"
    )
    probe = significance.verdict(judged(network, linear=weak, linear_probe=network))
    assert probe.statement == "The network is better than the linear model:", "the network is the linear probe"
    assert significance.verdict({"test": {}, "baseline": {}}) is None
