"""Tests of the batches of token windows."""

import itertools

import numpy as np
import pytest

from dltoolkit.data.language import pipeline
from dltoolkit.data.language.corpus import Corpus
from dltoolkit.data.language.tokenizers import ByteTokenizer
from dltoolkit.errors import UserError

CONTEXT_LENGTH = 20
BATCH_SIZE = 7


def make_corpus(train=1000, validation=130):
    """Return a corpus whose token IDs are their positions."""
    return Corpus(
        token_ids=np.arange(train + validation).astype(np.uint16),
        splits={"train": (0, train), "validation": (train, train + validation)},
        characters={},
        tokenizer=ByteTokenizer(),
        source="numbers",
        name="numbers",
        fingerprint="",
    )


def training_batches(start_step=0, count=12, seed=0):
    batches = pipeline.training_pipeline(
        make_corpus(), context_length=CONTEXT_LENGTH, batch_size=BATCH_SIZE, seed=seed, start_step=start_step
    )
    return [(x.numpy(), y.numpy()) for x, y in itertools.islice(batches, count)]


def test_training_pipeline_visits_every_window_once_per_epoch():
    steps = pipeline.windows(make_corpus(), CONTEXT_LENGTH) // BATCH_SIZE
    offsets = set()
    for epoch in range(2):
        batches = training_batches(epoch * steps, steps)
        assert all((y == x + 1).all() and x.shape == (BATCH_SIZE, CONTEXT_LENGTH) for x, y in batches)
        starts = [int(row[0]) for x, _ in batches for row in x]
        assert len(set(starts)) == BATCH_SIZE * steps
        assert len({start % CONTEXT_LENGTH for start in starts}) == 1
        offsets.add(starts[0] % CONTEXT_LENGTH)
    assert len(offsets) == 2  # the second epoch cuts the text elsewhere


def test_training_pipeline_resumes_at_any_step():
    uninterrupted, resumed = training_batches(), training_batches(9, 3)
    for expected, actual in zip(uninterrupted[9:], resumed, strict=True):
        assert (expected[0] == actual[0]).all()
    assert (training_batches(seed=1)[0][0] != uninterrupted[0][0]).any()


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_evaluation_pipeline_covers_every_token_in_batches_of_equal_shape(batch_size):
    dataset = pipeline.evaluation_pipeline(make_corpus(), "validation", CONTEXT_LENGTH, batch_size)
    batches = [(x.numpy(), y.numpy()) for x, y in dataset]
    assert len({x.shape for x, _ in batches}) == 1
    assert {int(token) for _, y in batches for token in y.ravel()} == set(range(1001, 1130))
    assert sum(y.size for _, y in batches) < 129 + CONTEXT_LENGTH * len(batches[0][0])


@pytest.mark.parametrize("chunks", [1, 3, 40])
@pytest.mark.parametrize("length", [2, 20, 21, 100, 101])
def test_scoring_batches_score_every_token_but_the_first_once(length, chunks):
    scored = []
    for x, y, is_scored in pipeline.scoring_batches(np.array_split(np.arange(length), chunks), 10, 2):
        assert x.shape == y.shape == is_scored.shape == (2, 10)
        assert (y[is_scored] == x[is_scored] + 1).all()
        scored += y[is_scored].tolist()
    assert scored == list(range(1, length))


def test_windows_refuses_a_split_that_is_too_short():
    message = "validation split of numbers has 130 tokens, too few for a context length of 200"
    with pytest.raises(UserError, match=message):
        pipeline.windows(make_corpus(), 200)
