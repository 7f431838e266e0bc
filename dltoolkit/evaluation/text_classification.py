"""Evaluation that the text classification recipes share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit import progress
from dltoolkit.data.text import dataset as text
from dltoolkit.data.text import pipeline as text_pipeline
from dltoolkit.data.text.encoders import VocabularyEncoder
from dltoolkit.data.text.vocabulary import Vocabulary
from dltoolkit.evaluation import classification, metrics, prediction, training_examples
from dltoolkit.evaluation.baseline import Baseline
from dltoolkit.evaluation.text_predictor import PREDICTION_BATCH_SIZE, is_known
from dltoolkit.formatting import counted

if TYPE_CHECKING:
    from dltoolkit.data.options import TextReadOptions
    from dltoolkit.data.text.dataset import TextSplits
    from dltoolkit.data.text.encoders import TextEncoder
    from dltoolkit.data.text.ragged import Ragged
    from dltoolkit.evaluation.classification import LabeledBatches
    from dltoolkit.run import Run

BATCH_SIZE = 64  # texts of an evaluation batch
LENGTH_MULTIPLE = 16  # batches are padded to such lengths: oneDNN prepares for each length, and caches only a few
# The network trained from scratch: epochs, bounds of the training steps, batch size, learning rate, words of a text
FROM_SCRATCH_EPOCHS, FROM_SCRATCH_STEPS, FROM_SCRATCH_BATCH_SIZE = 5, (150, 800), 32
FROM_SCRATCH_LEARNING_RATE = 7e-4
FROM_SCRATCH_MAX_LENGTH = 256


@progress.phase("Training a small network from scratch for comparison")
def from_scratch(splits: TextSplits, *, seed: int, max_seconds: float | None = None) -> Baseline:
    """Train a small convolutional network from scratch on the same texts, and classify the test split.

    Args:
        splits: The texts.
        seed: Seed of the training.
        max_seconds: Time limit of the training.
    """
    import keras

    from dltoolkit.config import OptimizerOptions
    from dltoolkit.models.text import classifiers
    from dltoolkit.training import optimizer
    from dltoolkit.training.time_limit import TimeLimit

    min_df = 2 if len(splits.train) > 1000 else 1
    vocabulary = Vocabulary.build(splits.tokenized, splits.train, max_size=20_000, min_df=min_df)
    encoded, classes = splits.with_encoder(VocabularyEncoder(vocabulary, FROM_SCRATCH_MAX_LENGTH)), len(splits.classes)
    keras.utils.set_random_seed(seed)
    model = classifiers.build("cnn", len(vocabulary), classes, max_length=FROM_SCRATCH_MAX_LENGTH)
    batch_size = min(FROM_SCRATCH_BATCH_SIZE, len(splits.train))
    min_steps, max_steps = FROM_SCRATCH_STEPS
    steps = min(max_steps, max(min_steps, FROM_SCRATCH_EPOCHS * len(splits.train) // batch_size))
    options = OptimizerOptions(optimizer="adamw", learning_rate=FROM_SCRATCH_LEARNING_RATE)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    schedule = optimizer.compile(model, options, batch_size, loss=loss, jit_compile=False)
    schedule.steps = steps
    limit = TimeLimit(schedule, max_seconds)
    batches = text_pipeline.training_pipeline(encoded, batch_size=batch_size, seed=seed)
    model.fit(batches, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0, callbacks=[limit])
    labels, test_batches = labeled_batches(encoded, "test")
    limited = f" in {counted(limit.limited_steps, 'step')} because of --max-time" if limit.limited_steps else ""
    note = f"a small convolutional network of words (Kim 2014) trained from scratch{limited}"
    predictions = prediction.logits(model, test_batches).argmax(axis=1)
    return Baseline(encoded.sort_by_length("test"), labels, predictions, classes, {"note": note})


def labeled_batches(splits: TextSplits, split: str) -> LabeledBatches:
    """Return the labels of a split, and its batches in the same order."""
    batches = text_pipeline.evaluation_pipeline(splits, split, BATCH_SIZE, LENGTH_MULTIPLE)
    return splits.labels[splits.sort_by_length(split)], batches


def evaluate(
    run: Run, build_splits: Callable[[], TextSplits], other: str | None, read: TextReadOptions, encoder: TextEncoder
) -> dict[str, Any]:
    """Measure a text classifier on the test split of its run, or on other labeled texts.

    Args:
        run: Run of a text classifier.
        build_splits: Reads the data of the run again.
        other: Value of ``--data``, or None for the run's own test split.
        read: Options for reading ``other``.
        encoder: Converts texts into the token IDs that the model reads.

    Raises:
        UserError: If the data of the run have changed, or the other data contain a class that the run does not have.
    """
    if other is None:
        splits = build_splits()
        run.check_data(splits.describe())
        progress.note(splits.describe_evaluated())
        splits = splits.with_encoder(encoder)
        return _measure(run, labeled_batches(splits, "test"), find_known(splits, "test"))
    trained = training_examples.load(run)
    texts, labels, _ = text.labeled(other, run.labels, read, note=progress.note, warn=progress.warn, trained=trained)
    token_ids = encoder(texts)
    if token_ids.truncated:
        limits = {"count": token_ids.truncated, "max_length": encoder.max_length, "unit": encoder.unit}
        progress.warn(text.describe_truncation(limits, len(labels)))
    order = token_ids.sort_by_length(np.arange(len(token_ids)))
    batches = text_pipeline.padded_batches(token_ids, order, BATCH_SIZE)
    return _measure(run, (labels[order], batches), _find_known(token_ids.take(order), encoder))


def find_known(splits: TextSplits, split: str) -> np.ndarray:
    """Return whether the model knows a word of each text of a split, bool (n,), in the order of its batches."""
    return _find_known(splits.token_ids.take(splits.sort_by_length(split)), splits.encoder)


def _find_known(token_ids: Ragged, encoder: TextEncoder) -> np.ndarray:
    """Return whether each row has a word that the model knows, bool (rows,)."""
    blocks = np.array_split(np.arange(len(token_ids)), 1 + len(token_ids) // PREDICTION_BATCH_SIZE)
    return np.concatenate([is_known(token_ids.take(rows).to_padded(), encoder) for rows in blocks])


def _measure(run: Run, split: LabeledBatches, known: np.ndarray) -> dict[str, Any]:
    """Return the metrics of one split, and say how many of the texts the model can only guess."""
    measured = classification.measure(run.model, split, run.labels, known)
    warn_of_guesses(measured)
    return measured


def warn_of_guesses(measured: Mapping[str, Any], noun: str = "texts") -> None:
    """Print how many guesses the scores of texts count, if there are any; ``noun`` names the texts."""
    if sentence := metrics.describe_guesses(measured, noun):
        progress.warn(sentence)
