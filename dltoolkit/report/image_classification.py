"""The last step of an image classifier's training: baselines, evaluation and report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from dltoolkit.evaluation import baseline, image_classification, training_examples
from dltoolkit.report import classification

if TYPE_CHECKING:
    import keras

    from dltoolkit.data.image.dataset import ImageSplits
    from dltoolkit.run import Run


def evaluate_and_report(
    run: Run,
    model: keras.Model,
    splits: ImageSplits,
    *,
    baselines: Mapping[str, baseline.Baseline] | None = None,
    samples: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Evaluate an image classifier next to its baselines, and write metrics.json and report.html.

    Args:
        run: Trained run.
        model: Model of the best epoch: raw pixels in, logits out of a last layer named ``logits``.
        splits: Images that the run was trained on.
        baselines: Further baselines, besides the majority class and the linear model.
        samples: Image grids for the report, by name.
    """
    labels, train, test = splits.labels, splits.train, splits.test
    images, classes = splits.images, splits.classes
    simple = {
        "majority": baseline.majority(labels, train, test, classes),
        "linear": baseline.linear(
            images, labels[train], images, labels[test], classes, train_rows=train, test_rows=test
        ),
    }
    training_examples.save(run, splits)
    classification.evaluate_and_report(
        run,
        model,
        {split: image_classification.labeled_batches(splits, split) for split in ("validation", "test")},
        baselines={**simple, **(baselines or {})},
        rows=test,
        names=splits.relative_names(),
        describe=lambda i: {"image": images[test[i]]},
        samples=samples,
    )
