"""Tests of the batches of texts: little padding, every text once per epoch, any step as the start."""

import itertools

import numpy as np
import pytest

from dltoolkit.data.text import dataset, pipeline
from dltoolkit.data.text.encoders import VocabularyEncoder
from dltoolkit.data.text.vocabulary import Vocabulary

STEPS = 93  # per epoch: 1,500 training texts in batches of 16


@pytest.fixture(scope="module")
def splits():
    """2,000 texts of very different lengths, each of which begins with a word that no other text contains."""
    rng = np.random.default_rng(0)
    lengths = np.exp(rng.normal(3, 0.8, 2000)).astype(int) + 2
    rows = np.arange(2000)
    splits = dataset.TextSplits(
        texts=[f"first{i} " + "word " * (length - 1) for i, length in enumerate(lengths)],
        labels=(rows % 3).astype(np.int32),
        names=[],
        train=rows[:1500],
        validation=rows[1500:1800],
        test=rows[1800:],
        classes=["a", "b", "c"],
        fingerprint="",
        source="",
    )
    vocabulary = Vocabulary.build(splits.tokenized, rows, max_size=10_000, min_df=1)
    splits.encoder = VocabularyEncoder(vocabulary, max_length=10_000)
    return splits


def take_batches(splits, start: int = 0, count: int = STEPS, **options) -> list[tuple[np.ndarray, ...]]:
    batches = pipeline.training_pipeline(splits, batch_size=16, seed=3, start_step=start, **options)
    return [tuple(part.numpy() for part in batch) for batch in itertools.islice(batches, count)]


def find_rows(splits, batches) -> list[int]:
    """Return the row of each text of some batches, by its first word."""
    first_words = splits.token_ids.values[splits.token_ids.row_splits[:-1]]
    row_of = {word: row for row, word in enumerate(first_words)}
    return [row_of[text[0]] for batch in batches for text in batch[0]]


def test_training_pipeline_yields_every_text_once_with_little_padding(splits):
    batches = take_batches(splits)
    rows = find_rows(splits, batches)
    assert len(rows) == len(set(rows)) == 16 * STEPS
    labels = np.concatenate([batch[1].argmax(axis=1) for batch in batches])
    assert (labels == splits.labels[rows]).all()
    padding = np.mean(np.concatenate([(batch[0] == 0).ravel() for batch in batches]))
    assert padding < 0.1  # more than half of all numbers in batches of random texts
    times = [batch[0].shape[1] for batch in batches]
    assert times != sorted(times)  # short and long batches are mixed


def test_training_pipeline_shuffles_epochs_and_resumes_at_any_step(splits):
    batches = take_batches(splits, count=2 * STEPS)
    epochs = batches[:STEPS], batches[STEPS:]
    assert find_rows(splits, epochs[0]) != find_rows(splits, epochs[1])
    compositions = [{tuple(sorted(find_rows(splits, [batch]))) for batch in epoch} for epoch in epochs]
    assert compositions[0] != compositions[1]
    resumed = take_batches(splits, start=STEPS + 20, count=10)
    assert find_rows(splits, resumed) == find_rows(splits, epochs[1][20:30])


def test_training_pipeline_rounds_lengths_up(splits):
    times = {batch[0].shape[1] for batch in take_batches(splits, count=30, length_multiple=8)}
    assert all(time % 8 == 0 or time == splits.token_ids.lengths.max() for time in times)


def test_training_pipeline_weights_texts_by_class(splits):
    for token_ids, labels, weights in take_batches(splits, count=3, class_weights=np.array([1.0, 2.0, 3.0])):
        assert len(token_ids) == len(weights) == 16
        assert (weights == 1 + labels.argmax(axis=1)).all()


def test_evaluation_pipeline_sorts_texts_by_length(splits):
    batches = [tuple(part.numpy() for part in batch) for batch in pipeline.evaluation_pipeline(splits, "test", 16)]
    rows = splits.sort_by_length("test")
    assert sorted(rows) == splits.test.tolist()
    assert (np.diff(splits.token_ids.lengths[rows]) >= 0).all()
    assert find_rows(splits, batches) == rows.tolist()
    assert (np.concatenate([batch[1].argmax(axis=1) for batch in batches]) == splits.labels[rows]).all()
    for batch, (token_ids,) in zip(batches, pipeline.padded_batches(splits.token_ids, rows, 16), strict=True):
        assert (batch[0] == token_ids).all()
