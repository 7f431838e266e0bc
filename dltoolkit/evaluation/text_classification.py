"""Evaluation and prediction that the text classification recipes share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit.data.text import dataset as text
from dltoolkit.data.text import pipeline as text_pipeline
from dltoolkit.data.text.encoders import VocabularyEncoder
from dltoolkit.data.text.vocabulary import Vocabulary
from dltoolkit.data.text.words import TokenizedTexts
from dltoolkit.evaluation import baseline, classification, prediction

if TYPE_CHECKING:
    from dltoolkit.data.options import TextReadOptions
    from dltoolkit.data.text.dataset import TextSplits
    from dltoolkit.data.text.encoders import TextEncoder
    from dltoolkit.evaluation.classification import LabeledBatches
    from dltoolkit.evaluation.prediction import Prediction
    from dltoolkit.run import Run

BATCH_SIZE = 64  # texts of an evaluation batch
LENGTH_MULTIPLE = 16  # batches are padded to such lengths: oneDNN prepares for each length, and caches only a few
PREDICTION_BATCH_SIZE = 1024  # texts that are classified together by stream_predictions
# The network trained from scratch: epochs, bounds of the training steps, batch size, learning rate, words of a text
FROM_SCRATCH_EPOCHS, FROM_SCRATCH_STEPS, FROM_SCRATCH_BATCH_SIZE = 5, (150, 800), 32
FROM_SCRATCH_LEARNING_RATE = 7e-4
FROM_SCRATCH_MAX_LENGTH = 256


def from_scratch(splits: TextSplits, *, seed: int) -> dict[str, Any]:
    """Train a small convolutional network from scratch on the same texts, and score it on the test split."""
    import keras

    from dltoolkit.config import OptimizerOptions
    from dltoolkit.models.text import classifiers
    from dltoolkit.training import optimizer

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
    optimizer.compile(model, options, batch_size, loss=loss, jit_compile=False).steps = steps
    batches = text_pipeline.training_pipeline(encoded, batch_size=batch_size, seed=seed)
    model.fit(batches, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0)
    labels, test_batches = labeled_batches(encoded, "test")
    note = "a small convolutional network of words (Kim 2014) trained from scratch"
    predictions = prediction.logits(model, test_batches).argmax(axis=1)
    return baseline.score(predictions, labels, classes, note, seed=seed)


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
    from dltoolkit import progress

    if other is None:
        splits = build_splits()
        run.check_data(splits.describe())
        splits.encoder = encoder
        return classification.measure(run.model, labeled_batches(splits, "test"), run.classes)
    run.warn_of_training_data(other)
    texts, labels, _ = text.labeled(other, run.classes, read, warn=progress.warn)
    token_ids = encoder(TokenizedTexts(texts))
    order = token_ids.sort_by_length(np.arange(len(token_ids)))
    batches = text_pipeline.padded_batches(token_ids, order, BATCH_SIZE)
    return classification.measure(run.model, (labels[order], batches), run.classes)


def stream_predictions(
    run: Run,
    inputs: Iterable[Any],
    encoder: TextEncoder,
    *,
    top_k: int = 5,
    threshold: float = 0.0,
    text_column: str | None = None,
) -> Iterator[Prediction]:
    """Yield predictions for texts, as the texts arrive.

    Args:
        run: Run of a text classifier.
        inputs: Texts, files, folders, glob patterns, or tables with a text column.
        encoder: Converts texts into the token IDs that the model reads.
        top_k: Number of classes that each prediction lists.
        threshold: Probability below which the label is ``unsure``.
        text_column: Name or position of the text column of a table; by default recognized by its name.
    """
    return prediction.classify(
        run.model,
        run.classes,
        text.expand(inputs, text_column=text_column),
        text.read_text,
        top_k,
        threshold=threshold,
        stack=lambda texts: encoder(TokenizedTexts(texts)).to_padded(),
        batch_size=PREDICTION_BATCH_SIZE,
    )
