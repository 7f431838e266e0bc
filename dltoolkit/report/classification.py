"""The last step of a classifier's training: evaluate the best epoch, then write its scores, predictions and report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit.evaluation import baseline, classification, metrics, ranking
from dltoolkit.report import page

if TYPE_CHECKING:
    import keras

    from dltoolkit.evaluation.classification import Evaluation, LabeledBatches
    from dltoolkit.evaluation.ngram_baseline import NgramWeight
    from dltoolkit.run import Run


def evaluate_and_report(
    run: Run,
    model: keras.Model,
    splits: Mapping[str, LabeledBatches],
    *,
    baselines: Mapping[str, baseline.Baseline],
    rows: np.ndarray,
    names: Sequence[str],
    describe: Callable[[int], dict[str, Any]],
    samples: Mapping[str, np.ndarray] | None = None,
    top_features: Mapping[str, Sequence[NgramWeight]] | None = None,
    known: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Calibrate and evaluate a classifier, and write metrics.json, predictions.csv and report.html.

    Args:
        run: Trained run.
        model: Model of the best epoch, whose last layer is named ``logits``.
        splits: Labels and batches of ``validation`` and ``test``.
        baselines: Baselines on the same test split.
        rows: Rows of the data set in the test split, int (n,), in its order.
        names: Name of each example of the data set.
        describe: Maps a position in the test split to the ``image`` or ``text`` of a Mistake.
        samples: Image grids for the report, by name.
        top_features: N-grams with the largest weights of each class.
        known: Whether the network knows anything in each example of ``splits``, by split; by default, it does.

    Returns:
        The metrics of the splits.
    """
    evaluation = classification.calibrate_and_evaluate(run, model, splits, known)
    compared = baseline.compare(baselines, rows, evaluation.probabilities.argmax(axis=1), evaluation.metrics["test"])
    run.write_json("metrics.json", {**evaluation.metrics, "baseline": compared})
    run.write_rows("predictions.csv", prediction_rows(evaluation, rows, names))
    page.write(
        run,
        mistakes=evaluation.worst_mistakes(lambda i: {"name": names[rows[i]], **describe(i)}),
        samples=samples,
        reliability=metrics.reliability(evaluation.labels, evaluation.probabilities),
        ranking=ranking.curves(evaluation.labels, evaluation.probabilities),
        top_features=top_features,
    )
    return evaluation.metrics


def prediction_rows(evaluation: Evaluation, rows: np.ndarray, names: Sequence[str]) -> list[dict[str, str]]:
    """Return a row of predictions.csv for each example of the test split, in the order of the data set.

    Args:
        evaluation: Predictions on the test split.
        rows: Rows of the data set in the test split, int (n,), in the order of the predictions.
        names: Name of each example of the data set.
    """
    predicted = evaluation.probabilities.argmax(axis=1)
    return [
        {
            "input": names[rows[i]],
            "label": evaluation.classes[evaluation.labels[i]],
            "predicted_label": evaluation.classes[predicted[i]],
            "probability": f"{evaluation.probabilities[i, predicted[i]]:.6f}",
        }
        for i in np.argsort(rows)
    ]
