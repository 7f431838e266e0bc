"""Windows of tokens: all of the text in every pass, the same from any step on, each next token beside its own."""

import itertools

import numpy as np
import pytest

from dltoolkit.data.language import pipeline as token_pipeline
from dltoolkit.data.language.corpus import RunningText
from dltoolkit.data.language.tokenizers import Bytes
from dltoolkit.errors import UserError


def text(train=1000, validation=130):
    tokens = np.arange(train + validation).astype(np.uint16)
    parts = {"train": (0, train), "validation": (train, train + validation)}
    return RunningText(
        tokens=tokens, parts=parts, characters={}, tokenizer=Bytes(), source="numbers", name="n", fingerprint=""
    )


def batches(start_step=0, count=12, seed=0):
    pipeline = token_pipeline.training_pipeline(
        text(), context_length=20, batch_size=7, seed=seed, start_step=start_step
    )
    return [(x.numpy(), y.numpy()) for x, y in itertools.islice(pipeline, count)]


def test_a_pass_holds_every_window_once():
    steps = token_pipeline.windows(text(), 20) // 7
    for first in (0, steps):
        some = batches(first, steps)
        assert all((y == x + 1).all() and x.shape == (7, 20) for x, y in some)
        starts = sorted(int(row[0]) for x, _ in some for row in x)
        assert (np.diff(starts) % 20 == 0).all()
        assert len(set(starts)) == 7 * steps
    assert batches()[0][0][0, 0] % 20 != batches(steps)[0][0][0, 0] % 20, "another pass, other cuts"


def test_going_on_at_a_step_is_as_if_nothing_had_happened():
    whole, late = batches(), batches(9, 3)
    assert all((a[0] == b[0]).all() for a, b in zip(whole[9:], late, strict=True))
    assert not (batches(seed=1)[0][0] == whole[0][0]).all()


@pytest.mark.parametrize("size", [1, 4, 64])
def test_evaluation_sees_every_token_in_batches_of_one_shape(size):
    found = [(x.numpy(), y.numpy()) for x, y in token_pipeline.evaluation_pipeline(text(), "validation", 20, size)]
    assert len({x.shape for x, _ in found}) == 1
    assert {int(token) for _, y in found for token in y.ravel()} == set(range(1001, 1130))
    assert sum(y.size for _, y in found) < 129 + 20 * len(found[0][0])


@pytest.mark.parametrize("pieces", [1, 3, 40])
@pytest.mark.parametrize("length", [2, 20, 21, 100, 101])
def test_every_token_but_the_first_is_scored_once(length, pieces):
    scored = []
    for x, y, counts in token_pipeline.scoring_batches(np.array_split(np.arange(length), pieces), 10, 2):
        assert x.shape == y.shape == counts.shape == (2, 10)
        assert (y[counts] == x[counts] + 1).all()
        scored += y[counts].tolist()
    assert scored == list(range(1, length))


def test_a_text_too_short_for_the_context_is_refused():
    with pytest.raises(UserError, match="validation part of numbers has 130 tokens, too few for a context of 200"):
        token_pipeline.windows(text(), 200)
