"""Metrics of a classifier: scores with a confidence interval, calibration, and the most confident mistakes.

All functions take arrays: ``labels``, the true class indices, int (n,), and ``predictions``, int (n,), or
``probabilities``, float (n, classes), with rows that sum to one.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dltoolkit.errors import UserError
from dltoolkit.evaluation import ranking
from dltoolkit.formatting import percent

RESAMPLES = 10_000  # bootstrap draws, enough that the 2.5th percentile is stable in the fourth digit
MIN_BOOTSTRAP = 10  # mistakes (or correct predictions) below which a bootstrap interval is too narrow
EPSILON = 1e-7  # smallest probability in a logarithm, as in Keras: no example costs more than 16.1 nats


def classification(
    labels: np.ndarray, probabilities: np.ndarray, classes: list[str], *, seed: int = 0
) -> dict[str, float | list | dict]:
    """Return all metrics of a classifier as plain Python numbers, ready for ``metrics.json``.

    Args:
        labels: True class indices, int (n,).
        probabilities: Predicted probabilities, float (n, classes).
        classes: Label of each column of ``probabilities``.
        seed: Seed of the bootstrap behind ``accuracy_ci95``.

    Returns:
        loss (cross-entropy, nats), accuracy, accuracy_ci95 [low, high] (see ``interval``), balanced_accuracy (mean
        recall of the classes that occur), balanced_accuracy_ci95 (see ``balanced_interval``), macro_precision,
        macro_recall, macro_f1 (means over the classes that occur or are predicted; an undefined ratio is 0), per_class
        {label: precision, recall, f1, support}, confusion (rows are true, columns predicted classes), and ece, the
        expected calibration error over 15 bins. If there are two classes and both occur, also roc_auc and
        average_precision (of the second class).

    Raises:
        UserError: If the split is empty, or the probabilities contain NaN.
    """
    labels, probabilities = _validated(labels, probabilities, len(classes))
    scores = score(labels, probabilities.argmax(axis=1), len(classes))
    matrix = scores["confusion"]
    true_probabilities = probabilities[np.arange(len(labels)), labels]
    bins = reliability(labels, probabilities)
    weights = bins["count"] / len(labels)
    return {
        "loss": float(-np.log(np.clip(true_probabilities, EPSILON, 1.0)).mean()),
        "accuracy": scores["accuracy"],
        "accuracy_ci95": interval(int(np.trace(matrix)), len(labels), seed=seed),
        "balanced_accuracy": scores["balanced_accuracy"],
        "balanced_accuracy_ci95": balanced_interval(matrix, seed=seed),
        "macro_precision": scores["macro_precision"],
        "macro_recall": scores["macro_recall"],
        "macro_f1": scores["macro_f1"],
        "per_class": {
            label: {
                "precision": float(scores["precision"][i]),
                "recall": float(scores["recall"][i]),
                "f1": float(scores["f1"][i]),
                "support": int(matrix[i].sum()),
            }
            for i, label in enumerate(classes)
        },
        "confusion": matrix.tolist(),
        "ece": float((weights * np.abs(bins["accuracy"] - bins["confidence"])).sum()),
        **(ranking.scores(labels, probabilities[:, 1]) if len(classes) == 2 else {}),
    }


def describe_guesses(measured: Mapping[str, Any], noun: str) -> str:
    """Return a sentence about the inputs that the model knows nothing of, which its scores guess; "" without any.

    Args:
        measured: Metrics of a split; see ``classification.metrics_of``.
        noun: Name of the inputs in the plural.
    """
    unknown = measured.get("unknown_inputs")
    if not unknown:
        return ""
    return (
        f"{unknown['count']:,} of {int(np.sum(measured['confusion'])):,} {noun} have no word that the model knows, so "
        f"predict answers them with unknown_input. The scores count a guess for each, "
        f"{unknown['correct_guesses']:,} of them correct; without these, the accuracy is "
        f"{percent(unknown['accuracy_without_guesses'])}."
    )


def score(labels: np.ndarray, predictions: np.ndarray, classes: int) -> dict[str, float | np.ndarray]:
    """Return the scores of predicted classes: scikit-learn's, over ``classes`` classes.

    Returns:
        accuracy, balanced_accuracy, macro_precision, macro_recall and macro_f1 as floats; precision, recall and f1,
        float (classes,); confusion, int (classes, classes), whose rows are the true classes.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support  # the import takes a second

    numbers = np.arange(classes)
    matrix = confusion_matrix(labels, predictions, labels=numbers)
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predictions, labels=numbers, zero_division=0
    )
    occurs = (support + matrix.sum(axis=0)) > 0  # a class neither present nor predicted is left out, as in scikit-learn
    return {
        "accuracy": float(np.trace(matrix) / matrix.sum()),
        "balanced_accuracy": float(recall[support > 0].mean()),
        "macro_precision": float(precision[occurs].mean()),
        "macro_recall": float(recall[occurs].mean()),
        "macro_f1": float(f1[occurs].mean()),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "confusion": matrix,
    }


def interval(correct: int, count: int, *, seed: int = 0) -> list[float]:
    """Return the 95 % confidence interval [low, high] of an accuracy of ``correct`` in ``count``.

    The interval is the percentile bootstrap (Efron 1979): the number of correct predictions in a resample is a
    binomial draw, so predictions need not be resampled one by one. With fewer than ten mistakes (or ten correct
    predictions) the bootstrap is too narrow, and without any mistake it has no width; then the interval is Wilson's
    (1927), which for 100 % of n reaches down to about 1 - 3.8 / n.
    """
    if min(correct, count - correct) >= MIN_BOOTSTRAP:
        accuracies = np.random.default_rng(seed).binomial(count, correct / count, RESAMPLES) / count
        low, high = np.percentile(accuracies, [2.5, 97.5])
        return [float(low), float(high)]
    from scipy.stats import binomtest

    wilson = binomtest(correct, count).proportion_ci(0.95, method="wilson")
    return [float(wilson.low), float(wilson.high)]


def balanced_interval(matrix: np.ndarray, *, seed: int = 0) -> list[float] | None:
    """Return the 95 % interval [low, high] of the balanced accuracy of a confusion matrix (classes, classes).

    The recall of each class that occurs is drawn from its posterior distribution under Jeffreys' prior, which has a
    width also if all of its examples are classified correctly, and the interval is that of the mean (Brodersen 2010).
    There is none if several classes occur and a single one is predicted: a constant scores exactly 1 / classes.
    """
    supports, correct = matrix.sum(axis=1), np.diag(matrix)
    present = supports > 0
    if present.sum() > 1 and np.count_nonzero(matrix.sum(axis=0)) == 1:
        return None
    rng = np.random.default_rng(seed)
    means = np.zeros(RESAMPLES)
    for right, wrong in zip(correct[present], (supports - correct)[present], strict=True):
        means += rng.beta(right + 0.5, wrong + 0.5, RESAMPLES) / present.sum()
    score = (correct[present] / supports[present]).mean()
    low, high = np.percentile(means, [2.5, 97.5])
    return [float(min(low, score)), float(max(high, score))]


def reliability(labels: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> dict[str, np.ndarray]:
    """Compare confidence with accuracy in equal-width bins of confidence (Guo et al. 2017).

    Returns:
        confidence (mean of the bin, or its middle if the bin is empty), accuracy (0 if empty) and count, arrays of
        length ``bins``. Bin m holds confidences in (m / bins, (m + 1) / bins].
    """
    labels, probabilities = _validated(labels, probabilities, np.shape(probabilities)[1])
    confidence = probabilities.max(axis=1)
    bin_index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(bin_index, minlength=bins)
    correct = np.bincount(bin_index, weights=probabilities.argmax(axis=1) == labels, minlength=bins)
    total = np.bincount(bin_index, weights=confidence, minlength=bins)
    middle = (np.arange(bins) + 0.5) / bins
    used = count > 0
    return {
        "confidence": np.divide(total, count, out=middle, where=used),
        "accuracy": np.divide(correct, count, out=np.zeros(bins), where=used),
        "count": count,
    }


def worst_mistakes(labels: np.ndarray, probabilities: np.ndarray, count: int = 25) -> np.ndarray:
    """Return the indices of the most confident mistakes in descending order, int (at most ``count``,)."""
    labels, probabilities = _validated(labels, probabilities, np.shape(probabilities)[1])
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:count]


def _validated(labels: np.ndarray, probabilities: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return both as int64 and float64 arrays, or raise an error that names the invalid value."""
    labels, probabilities = np.asarray(labels, np.int64), np.asarray(probabilities, np.float64)
    if probabilities.shape != (len(labels), classes):
        raise ValueError(f"probabilities have shape {probabilities.shape}, expected {(len(labels), classes)}")
    if not len(labels):
        raise UserError("The split to evaluate is empty: use more data, or a larger --limit.")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels range from {labels.min()} to {labels.max()}, but there are {classes} classes")
    invalid = int((~np.isfinite(probabilities)).any(axis=1).sum())
    if invalid:
        raise UserError(
            f"{invalid} of {len(labels)} predictions are NaN because the training diverged: "
            "train again with a lower --learning-rate."
        )
    if probabilities.min() < -1e-3 or probabilities.max() > 1 + 1e-2:  # tolerance for bfloat16
        raise ValueError("probabilities must lie between 0 and 1; these look like logits: apply a softmax first")
    return labels, probabilities
