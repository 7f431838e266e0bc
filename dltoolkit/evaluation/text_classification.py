"""Evaluation and prediction that the text classification recipes share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit import progress
from dltoolkit.data.readers import source
from dltoolkit.data.text import dataset as text
from dltoolkit.data.text import inputs
from dltoolkit.data.text import pipeline as text_pipeline
from dltoolkit.data.text.encoders import VocabularyEncoder
from dltoolkit.data.text.inputs import Meaning
from dltoolkit.data.text.vocabulary import Vocabulary
from dltoolkit.data.text.words import TokenizedTexts
from dltoolkit.errors import UserError
from dltoolkit.evaluation import classification, prediction, predictor
from dltoolkit.evaluation.baseline import Baseline
from dltoolkit.evaluation.predictor import Predictor
from dltoolkit.formatting import counted

if TYPE_CHECKING:
    from dltoolkit.data.options import TextReadOptions
    from dltoolkit.data.text.dataset import TextSplits
    from dltoolkit.data.text.encoders import TextEncoder
    from dltoolkit.evaluation.classification import LabeledBatches
    from dltoolkit.run import Run

BATCH_SIZE = 64  # texts of an evaluation batch
LENGTH_MULTIPLE = 16  # batches are padded to such lengths: oneDNN prepares for each length, and caches only a few
PREDICTION_BATCH_SIZE = 1024  # texts that are classified together
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
        return classification.measure(run.model, labeled_batches(splits, "test"), run.labels)
    trained = None if run.warn_of_training_data(other) else run.info["data"].get("fingerprint")
    texts, labels, _ = text.labeled(other, run.labels, read, note=progress.note, warn=progress.warn, trained=trained)
    token_ids = encoder(TokenizedTexts(texts))
    if token_ids.truncated:
        limits = {"count": token_ids.truncated, "max_length": encoder.max_length, "unit": encoder.unit}
        progress.warn(text.describe_truncation(limits, len(texts)))
    blocks = np.array_split(np.arange(len(texts)), 1 + len(texts) // PREDICTION_BATCH_SIZE)
    if unknown := sum(int((~is_known(token_ids.take(rows).to_padded(), encoder)).sum()) for rows in blocks):
        progress.warn(f"{unknown:,} of {len(texts):,} texts have no word that the model knows.")
    order = token_ids.sort_by_length(np.arange(len(token_ids)))
    batches = text_pipeline.padded_batches(token_ids, order, BATCH_SIZE)
    return classification.measure(run.model, (labels[order], batches), run.labels)


def is_known(token_ids: np.ndarray, encoder: TextEncoder) -> np.ndarray:
    """Return whether each row of token IDs (n, time), padded with 0, holds a token that says something, bool (n,)."""
    return ~np.isin(token_ids, [0, *encoder.unknown_token_ids, *encoder.special_token_ids]).all(axis=1)


class TextPredictor(Predictor):
    """The classifier of texts of a run.

    A text is a ``str``, whatever it holds, or bytes in UTF-8; a file with one text is a ``pathlib.Path``.

    Args:
        run: Run of a text classifier.
        encoder: Converts texts into the token IDs that the model reads.
    """

    noun = "text"

    def __init__(self, run: Run, encoder: TextEncoder):
        super().__init__(run, PREDICTION_BATCH_SIZE)
        self.encoder = encoder
        self.encoding: str | None = None  # character encoding of files
        self._warned_of_truncation = False

    def read(self, item: Any) -> str:
        """Return the text of an input."""
        if hasattr(item, "__array__") and not isinstance(item, str | bytes):
            array = predictor.to_numpy(item)
            item = array.item() if array.ndim == 0 else item
        self.check_type(item, (str, bytes, os.PathLike))
        if isinstance(item, os.PathLike):
            path = Path(item)
            if path.is_dir():
                raise UserError("a folder, not a file with one text")
            if source.table_suffix(path):
                raise UserError("a table, not a file with one text: read it, and give its texts")
        return text.read_text(item, self.encoding if isinstance(item, os.PathLike) else None)

    def stack(self, values: list[str]) -> np.ndarray:
        """Return token IDs, int32 (n, time), padded with 0; a warning says once that texts are truncated."""
        if not values:
            return np.empty((0, 1), np.int32)
        token_ids = self.encoder(TokenizedTexts(values))
        if token_ids.truncated and not self._warned_of_truncation:
            self._warned_of_truncation = True
            limit = f"{self.encoder.max_length:,} {self.encoder.unit}"
            progress.warn(f"Some texts are longer than the {limit} that the model reads; their middle is left out.")
        return token_ids.to_padded()

    def is_known(self, batch: np.ndarray) -> np.ndarray:
        """Return whether each text has a word that the training texts, or the texts of pretraining, contain."""
        return is_known(batch, self.encoder)

    def split_array(self, array: np.ndarray) -> tuple[Iterable[Any], bool]:
        if array.ndim == 0:
            return [array.item()], True
        column = array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)
        return (array.ravel().tolist() if column else array), False

    def expand(self, words: Iterable[Any], text_column: str | None = None, meaning: Meaning = "auto") -> Iterator[Any]:
        return inputs.expand(words, text_column=text_column, meaning=meaning, encoding=self.encoding)
