"""The last step of a classifier's training: evaluate the best epoch, then write metrics.json and report.html."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit.evaluation import classification, metrics
from dltoolkit.report import page

if TYPE_CHECKING:
    import keras

    from dltoolkit.evaluation.classification import LabeledBatches
    from dltoolkit.evaluation.ngram_baseline import NgramWeight
    from dltoolkit.run import Run


def evaluate_and_report(
    run: Run,
    model: keras.Model,
    splits: Mapping[str, LabeledBatches],
    *,
    baseline: Mapping[str, Mapping[str, Any]],
    describe: Callable[[int], dict[str, Any]],
    samples: Mapping[str, np.ndarray] | None = None,
    top_features: Mapping[str, Sequence[NgramWeight]] | None = None,
) -> None:
    """Calibrate and evaluate a classifier, and write metrics.json and report.html.

    Args:
        run: Trained run.
        model: Model of the best epoch, whose last layer is named ``logits``.
        splits: Labels and batches of ``validation`` and ``test``.
        baseline: Scores of the baselines on the same test split.
        describe: Maps a position in the test split to the ``name`` and the ``image`` or ``text`` of a Mistake.
        samples: Image grids for the report, by name.
        top_features: N-grams with the largest weights of each class.
    """
    evaluation = classification.calibrate_and_evaluate(run, model, splits)
    run.write_json("metrics.json", {**evaluation.metrics, "baseline": baseline})
    page.write(
        run,
        mistakes=evaluation.worst_mistakes(describe),
        samples=samples,
        reliability=metrics.reliability(evaluation.labels, evaluation.probabilities),
        top_features=top_features,
    )
