"""Significance of the difference between two classifiers on the same examples, and the verdict about a run.

A difference in accuracy is judged by McNemar's exact test (1947), a difference in balanced accuracy by the paired
permutation test, which is McNemar's test within each class. Both consider only the examples of which exactly one of
the classifiers is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

LEVEL = 0.05  # p-value below which a difference is called significant
PERMUTATIONS = 20_000  # draws of the permutation test, which resolve p-values down to 0.00005
IMBALANCED = 2.0  # ratio of the largest to the smallest class from which balanced accuracy is the main score
BASELINES = {
    "linear": "the linear model",
    "linear_probe": "the linear probe",
    "from_scratch": "the small network trained from scratch",
}


class Verdict(NamedTuple):
    """A sentence about a run: its main statement, and the rest, which explains it."""

    statement: str
    explanation: str

    def __str__(self) -> str:
        return self.statement + self.explanation


def main_metric(scores: Mapping[str, Any]) -> str:
    """Return the metric that is named first: balanced_accuracy if the classes are imbalanced, otherwise accuracy.

    Args:
        scores: Metrics of a split, as ``metrics.json`` holds them.
    """
    supports = [values["support"] for values in scores.get("per_class", {}).values() if values["support"]]
    imbalanced = supports and max(supports) >= IMBALANCED * min(supports)
    return "balanced_accuracy" if imbalanced and "balanced_accuracy" in scores else "accuracy"


def compare(labels: np.ndarray, predictions: np.ndarray, others: np.ndarray, metric: str) -> dict:
    """Compare the predictions of a network with those of a baseline on the same examples.

    Args:
        labels: True class indices, int (n,).
        predictions: Predicted classes of the network, int (n,).
        others: Predicted classes of the baseline, int (n,).
        metric: ``accuracy`` or ``balanced_accuracy``.

    Returns:
        metric, difference (of the network's score and the baseline's), test (``mcnemar`` or ``permutation``), p_value
        (two-sided), examples, and network_only and baseline_only, the numbers of examples that only one of the two
        predicts correctly.
    """
    right, other_right = predictions == labels, others == labels
    network_only, baseline_only = right & ~other_right, other_right & ~right
    gained, lost = int(network_only.sum()), int(baseline_only.sum())
    if metric == "accuracy":
        from scipy.stats import binomtest

        difference = (gained - lost) / len(labels)
        p_value = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    else:
        present, supports = np.unique(labels, return_counts=True)
        gains, losses = (
            np.array([wins[labels == index].sum() for index in present]) for wins in (network_only, baseline_only)
        )
        difference = float(((gains - losses) / supports).mean())
        draws = np.zeros(PERMUTATIONS)
        rng = np.random.default_rng(0)
        for count, support in zip(gains + losses, supports, strict=True):
            if count:  # if the two are equally good, a win of either is equally likely
                draws += (2 * rng.binomial(count, 0.5, PERMUTATIONS) - count) / support
        extreme = np.abs(draws / len(present)) >= abs(difference) - 1e-12
        p_value = float((extreme.sum() + 1) / (PERMUTATIONS + 1))
    return {
        "metric": metric,
        "difference": float(difference),
        "test": "mcnemar" if metric == "accuracy" else "permutation",
        "p_value": min(1.0, p_value),
        "examples": len(labels),
        "network_only": gained,
        "baseline_only": lost,
    }


def verdict(metrics: Mapping[str, Any]) -> Verdict | None:
    """Return the verdict about a classifier; None if it was not compared with a baseline.

    The majority class comes first: if the network is not better, that is the verdict, with the score of the best of the
    other baselines if that is better than both. Otherwise the network is compared with the best of the other baselines.

    Args:
        metrics: The contents of metrics.json.
    """
    test, baselines = metrics.get("test", {}), metrics.get("baseline", {})
    compared = {name: scores for name, scores in baselines.items() if "comparison" in scores}
    majority = compared.pop("majority", None)
    probe = compared.get("linear_probe", {}).get("comparison")
    if probe and not probe["network_only"] + probe["baseline_only"] and len(compared) > 1:
        del compared["linear_probe"]  # the network is the linear probe
    name = max(compared, key=lambda name: _score(compared[name]), default=None)
    best = BASELINES.get(name, f"the baseline {(name or '').replace('_', ' ')}")
    if majority and (name is None or not _is_better(majority["comparison"])):
        result = _versus(test, majority, f"always predicting '{majority['label']}'")
        if (
            name is None
            or compared[name]["comparison"]["difference"] >= 0
            or _score(compared[name]) <= _score(majority)
        ):
            return result
        better = f" {best[0].upper()}{best[1:]} reaches {100 * _score(compared[name]):.1f} %."
        return Verdict(result.statement, result.explanation + better)
    return _versus(test, compared[name], best) if compared else None


def _score(baseline: Mapping[str, Any]) -> float:
    """Return the score of a baseline by which it is compared with the network."""
    return baseline[baseline["comparison"]["metric"]]


def _is_better(comparison: Mapping[str, Any]) -> bool:
    return comparison["difference"] > 0 and comparison["p_value"] < LEVEL


def _versus(test: Mapping[str, Any], baseline: Mapping[str, Any], name: str) -> Verdict:
    """Return the verdict about a network and one baseline."""
    comparison = baseline["comparison"]
    metric, difference, p_value = comparison["metric"], comparison["difference"], comparison["p_value"]
    significant = p_value < LEVEL
    score, other = test[metric], baseline[metric]
    if comparison["examples"] < sum(values["support"] for values in test.get("per_class", {}).values()):
        score = other + difference  # the baseline was measured on a sample of the test split
    against = f"{metric.replace('_', ' ')} {100 * score:.1f} % against {100 * other:.1f} %"
    against += f" ({'p < 0.001' if p_value < 0.001 else f'p = {p_value:.2g}'})"
    if not comparison["network_only"] + comparison["baseline_only"]:
        return Verdict(
            f"The network is no better than {name}:",
            f" both classify the same examples correctly ({100 * score:.1f} %).",
        )
    if difference > 0 and significant:
        if test["accuracy"] == 1:
            return Verdict("The network makes no mistakes,", f" unlike {name}: {against}.")
        if metric == "accuracy":
            fewer = difference / (1 - other)
            return Verdict(f"The network makes {100 * fewer:.0f} % fewer mistakes than {name}:", f" {against}.")
        return Verdict(f"The network is better than {name}:", f" {against}.")
    if difference > 0:
        return Verdict(f"The network is not clearly better than {name}:", f" {against}.")
    if significant:
        return Verdict(
            f"The network is worse than {name}:",
            f" {against}; train longer, or check the labels and the learning rate.",
        )
    return Verdict(f"The network is no better than {name}:", f" {against}.")
