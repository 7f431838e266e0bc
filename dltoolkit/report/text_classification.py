"""The last step of a text classifier's training: baselines, evaluation and report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dltoolkit.evaluation import baseline, ngram_baseline, text_classification, training_examples
from dltoolkit.report import classification

if TYPE_CHECKING:
    import keras

    from dltoolkit.data.text.dataset import TextSplits
    from dltoolkit.evaluation.ngram_baseline import NgramWeight
    from dltoolkit.run import Run


def evaluate_and_report(
    run: Run,
    model: keras.Model,
    splits: TextSplits,
    *,
    baselines: Mapping[str, baseline.Baseline] | None = None,
    top_features: Sequence[Sequence[NgramWeight]] | None = None,
) -> None:
    """Evaluate a text classifier next to its baselines, and write metrics.json and report.html.

    Args:
        run: Trained run.
        model: Model of the best epoch: token IDs (batch, time) in, logits out of its last layer ``logits``.
        splits: Texts that the run was trained on.
        baselines: Further baselines, besides the majority class and the linear model.
        top_features: N-grams with the largest weights of each class; by default those of the linear model.
    """
    labels, train, test = splits.labels, splits.train, splits.sort_by_length("test")
    linear, linear_features = ngram_baseline.linear(splits.tokenized, labels, train, test, splits.classes)
    simple = {"majority": baseline.majority(labels, train, test, splits.classes), "linear": linear}
    training_examples.save(run, splits)
    evaluated = ("validation", "test")
    measured = classification.evaluate_and_report(
        run,
        model,
        {split: text_classification.labeled_batches(splits, split) for split in evaluated},
        baselines={**simple, **(baselines or {})},
        rows=test,
        names=splits.relative_names(),
        describe=lambda i: {"text": splits.texts[test[i]]},
        top_features=dict(zip(splits.classes, top_features or linear_features, strict=True)),
        known={split: text_classification.find_known(splits, split) for split in evaluated},
    )
    text_classification.warn_of_guesses(measured["test"], "test texts")
