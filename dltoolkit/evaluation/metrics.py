"""What a classifier's probabilities are worth: scores with an interval, calibration, and its worst mistakes.

Everything here is NumPy on two arrays: ``labels``, the true class numbers, int (n,), and ``probabilities``,
float (n, classes), rows that sum to one. A confusion matrix is all that precision, recall and F1 need.
"""

import numpy as np

from dltoolkit.errors import UserError

RESAMPLES = 10_000  # enough that the 2.5th percentile no longer moves in the fourth digit
FEW = 10  # below this many mistakes (or right answers) a bootstrap interval is too narrow
NORMAL_975 = 1.959964  # 97.5th percentile of the normal distribution
SMALLEST = 1e-7  # Keras' floor under a probability before the logarithm: no sample costs more than 16.1 nats


def classification(
    labels: np.ndarray, probabilities: np.ndarray, classes: list[str], *, seed: int = 0
) -> dict[str, float | list | dict]:
    """Return every score of a classifier as plain Python numbers, ready for ``metrics.json``.

    Args:
        labels: true class numbers, int (n,).
        probabilities: float (n, classes).
        classes: the label of each column of ``probabilities``.
        seed: for the bootstrap behind ``accuracy_ci95``.

    Returns:
        loss (cross-entropy, nats), accuracy, accuracy_ci95 [low, high] (see ``interval``), macro_precision,
        macro_recall, macro_f1 (over the classes that occur in the truth or among the answers, and 0 where a
        ratio has nothing to divide by, which are scikit-learn's rules), per_class {label: precision, recall,
        f1, support}, confusion (rows are the truth, columns the answers), and ece, the expected calibration
        error over 15 bins.

    Raises:
        UserError: if there is nothing to score, or the probabilities contain NaN.
    """
    labels, probabilities = _checked(labels, probabilities, len(classes))
    matrix = confusion(labels, probabilities.argmax(axis=1), len(classes))
    scores = from_confusion(matrix)
    of_the_truth = probabilities[np.arange(len(labels)), labels]
    bins = reliability(labels, probabilities)
    share = bins["count"] / len(labels)
    return {
        "loss": float(-np.log(np.clip(of_the_truth, SMALLEST, 1.0)).mean()),
        "accuracy": scores["accuracy"],
        "accuracy_ci95": interval(int(np.trace(matrix)), len(labels), seed=seed),
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
        "ece": float((share * np.abs(bins["accuracy"] - bins["confidence"])).sum()),
    }


def confusion(labels: np.ndarray, answers: np.ndarray, classes: int) -> np.ndarray:
    """Count (truth, answer) pairs: int (classes, classes), rows are the truth."""
    pairs = np.asarray(labels, np.int64) * classes + np.asarray(answers, np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def from_confusion(matrix: np.ndarray) -> dict[str, float | np.ndarray]:
    """Accuracy, macro precision, recall and F1, and the three per class, float (classes,), of a confusion matrix."""
    right, true, answered = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    precision, recall, f1 = _ratio(right, answered), _ratio(right, true), _ratio(2 * right, true + answered)
    occurs = (true + answered) > 0  # a class that is neither asked for nor answered says nothing about the model
    return {
        "accuracy": float(right.sum() / matrix.sum()),
        "macro_precision": float(precision[occurs].mean()),
        "macro_recall": float(recall[occurs].mean()),
        "macro_f1": float(f1[occurs].mean()),
        "precision": precision,
        "recall": recall,
        "f1": f1,
    }


def interval(right: int, count: int, *, seed: int = 0) -> list[float]:
    """Return the 95 % interval [low, high] of an accuracy of ``right`` in ``count``.

    The percentile bootstrap (Efron 1979): drawing n answers anew, of which a share p is right, is a binomial
    draw, so no answer needs to be drawn one by one. With fewer than ten mistakes (or ten right answers)
    resampling is too sure of itself, and without any it calls the accuracy certain; there the interval is
    Wilson's (1927), which for 100 % of n reaches down to about 1 - 3.8 / n.
    """
    share = right / count
    if min(right, count - right) >= FEW:
        draws = np.random.default_rng(seed).binomial(count, share, RESAMPLES) / count
        low, high = np.percentile(draws, [2.5, 97.5])
        return [float(low), float(high)]
    square = NORMAL_975**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = NORMAL_975 * np.sqrt(share * (1 - share) / count + square / (4 * count**2)) / (1 + square / count)
    return [max(0.0, float(middle - half)), min(1.0, float(middle + half))]


def reliability(labels: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> dict[str, np.ndarray]:
    """Compare confidence with accuracy in equal-width bins of confidence (Guo et al. 2017).

    Returns:
        confidence (mean of the bin; its middle where the bin is empty), accuracy (0 where empty) and count,
        arrays of length ``bins``. Bin m holds confidences in (m / bins, (m + 1) / bins].
    """
    labels, probabilities = _checked(labels, probabilities, np.shape(probabilities)[1])
    confidence = probabilities.max(axis=1)
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    right = np.bincount(place, weights=probabilities.argmax(axis=1) == labels, minlength=bins)
    total = np.bincount(place, weights=confidence, minlength=bins)
    middle = (np.arange(bins) + 0.5) / bins
    return {
        "confidence": np.where(count > 0, _ratio(total, count), middle),
        "accuracy": _ratio(right, count),
        "count": count,
    }


def worst_mistakes(labels: np.ndarray, probabilities: np.ndarray, count: int = 25) -> np.ndarray:
    """Return the indices of the wrong answers, the most confident first, int (at most ``count``,)."""
    labels, probabilities = _checked(labels, probabilities, np.shape(probabilities)[1])
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:count]


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Divide, with 0 where there is nothing to divide by."""
    return np.divide(above, below, out=np.zeros(len(below)), where=below > 0)


def _checked(labels: np.ndarray, probabilities: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Both as int64 and float64 arrays, or an error that says what cannot be scored."""
    labels, probabilities = np.asarray(labels, np.int64), np.asarray(probabilities, np.float64)
    if probabilities.shape != (len(labels), classes):
        raise ValueError(f"probabilities have shape {probabilities.shape}, expected {(len(labels), classes)}")
    if not len(labels):
        raise UserError("There is nothing to score: the split is empty; give it data, or a larger --limit.")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}, but there are {classes} classes")
    bad = int((~np.isfinite(probabilities)).any(axis=1).sum())
    if bad:
        raise UserError(
            f"{bad} of {len(labels)} answers are not numbers (NaN), so the network has diverged; "
            "train it again with a lower --learning-rate."
        )
    if probabilities.min() < -1e-3 or probabilities.max() > 1 + 1e-2:  # slack for bfloat16
        raise ValueError("probabilities must lie between 0 and 1; these look like logits: apply a softmax first")
    return labels, probabilities
