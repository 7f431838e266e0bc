"""The order in which a classifier of two classes ranks examples: ROC and precision-recall curves."""

from __future__ import annotations

import numpy as np


def scores(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Return roc_auc and average_precision of a classifier of two classes; nothing if a class does not occur.

    Args:
        labels: True class indices, 0 or 1, int (n,).
        probabilities: Probabilities of the second class, float (n,).
    """
    from sklearn.metrics import average_precision_score, roc_auc_score  # the import takes a second

    if len(np.unique(labels)) < 2:
        return {}
    return {
        "roc_auc": float(roc_auc_score(labels, probabilities)),
        "average_precision": float(average_precision_score(labels, probabilities)),
    }


def curves(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, np.ndarray | float] | None:
    """Return the ROC curve and the precision-recall curve; None unless there are two classes and both occur.

    Args:
        labels: True class indices, int (n,).
        probabilities: Predicted probabilities, float (n, classes).

    Returns:
        false_positive_rate and true_positive_rate, arrays of one length; precision and recall, arrays of another
        length, recall ascending; prevalence, the share of the second class; and the ``scores``.
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    if np.shape(probabilities)[1] != 2 or len(np.unique(labels)) < 2:
        return None
    second = np.asarray(probabilities)[:, 1]
    false_positive_rate, true_positive_rate, _ = roc_curve(labels, second)
    precision, recall, _ = precision_recall_curve(labels, second, drop_intermediate=True)
    return {
        "false_positive_rate": false_positive_rate,
        "true_positive_rate": true_positive_rate,
        "precision": precision[::-1],
        "recall": recall[::-1],
        "prevalence": float(np.mean(labels)),
        **scores(labels, second),
    }
