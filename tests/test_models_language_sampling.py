"""Tests of sampling: the probabilities of single tokens, and the windows, batches and seeds of whole texts."""

import numpy as np
import pytest
from toy_language_models import VOCAB_SIZE, build_model, random_tokens

from dltoolkit.errors import UserError
from dltoolkit.models.language import decoders, sampling
from dltoolkit.models.language.sampling import SamplingParams

PROBABILITIES = np.array([0.5, 0.25, 0.15, 0.07, 0.03])
DRAWS = 2_000  # equally spaced numbers instead of random ones, so that a frequency is exact to 1 / DRAWS
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def decoder():
    return decoders.build(build_model("gpt"))


def frequencies(params, occurred=None):
    logits = np.tile(np.log(PROBABILITIES), (DRAWS, 1)).astype("float32")
    mask = None if occurred is None else np.tile(occurred, (DRAWS, 1))
    uniform = (np.arange(DRAWS) + 0.5) / DRAWS
    return np.bincount(sampling.sample(logits, params, uniform, mask), minlength=5) / DRAWS


def renormalize(included, power=1.0):
    weights = PROBABILITIES**power * np.array(included)
    return weights / weights.sum()


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (SamplingParams(), PROBABILITIES),
        (SamplingParams(temperature=0.5), renormalize([1, 1, 1, 1, 1], power=2.0)),
        (SamplingParams(temperature=0.0), [1, 0, 0, 0, 0]),
        (SamplingParams(top_k=2), renormalize([1, 1, 0, 0, 0])),
        (SamplingParams(top_k=50), PROBABILITIES),
        (SamplingParams(top_p=0.5), [1, 0, 0, 0, 0]),
        (SamplingParams(top_p=0.7), renormalize([1, 1, 0, 0, 0])),
        (SamplingParams(top_p=0.75), renormalize([1, 1, 0, 0, 0])),
        (SamplingParams(top_p=0.9), renormalize([1, 1, 1, 0, 0])),
        (SamplingParams(top_p=0.9001), renormalize([1, 1, 1, 1, 0])),
        (SamplingParams(top_p=1e-9), [1, 0, 0, 0, 0]),
        (SamplingParams(top_p=0.8), renormalize([1, 1, 1, 0, 0])),
        (SamplingParams(min_p=0.2), renormalize([1, 1, 1, 0, 0])),
        (SamplingParams(top_k=3, top_p=0.6), renormalize([1, 1, 0, 0, 0])),
    ],
)
def test_sample_draws_tokens_with_their_probabilities(params, expected):
    assert frequencies(params) == pytest.approx(np.array(expected), abs=TOLERANCE)


def test_sample_penalizes_repetitions():
    """Log-probabilities are negative logits, which the penalty multiplies."""
    occurred = np.array([True, False, False, False, False])
    weights = np.where(occurred, PROBABILITIES**2.0, PROBABILITIES)
    measured = frequencies(SamplingParams(repetition_penalty=2.0), occurred)
    assert measured == pytest.approx(weights / weights.sum(), abs=TOLERANCE)


def test_sample_draws_from_the_smallest_sets_among_equal_probabilities():
    """Of ten equally probable tokens, top_k=3 and top_p=0.3 leave exactly three."""
    logits, uniform = np.zeros((DRAWS, 10), "float32"), (np.arange(DRAWS) + 0.5) / DRAWS
    for params in (SamplingParams(top_k=3), SamplingParams(top_p=0.3), SamplingParams(top_p=0.299)):
        assert set(sampling.sample(logits, params, uniform).tolist()) == {0, 1, 2}
    rounded = np.tile(np.log([0.1, 0.4, 0.3, 0.2]), (DRAWS, 1)).astype("float32")  # the 0.4 is a little less
    for top_p in (0.4, 1e-9):
        assert set(sampling.sample(rounded, SamplingParams(top_p=top_p), uniform).tolist()) == {1}


def test_sample_never_draws_an_excluded_token_and_refuses_numbers_that_are_not_finite():
    logits = np.array([[-np.inf, 0.0, 1.0]])
    drawn = [sampling.sample(logits, SamplingParams(temperature=9.0), np.array([u])) for u in (0.0, 0.3, 1 - 2**-53)]
    assert [int(token) for (token,) in drawn] == [1, 1, 2]
    assert sampling.sample(logits, SamplingParams(temperature=1e-320), np.array([0.9])).tolist() == [2]
    with pytest.raises(UserError, match="not finite"):
        sampling.sample(np.array([[0.0, np.nan]]), SamplingParams(), np.array([0.5]))


def generate(decoder, prompts, max_tokens, *, seed=5, context_length=16, unknown_id=None, **params):
    chunks = sampling.generate(
        decoder,
        prompts,
        max_tokens=max_tokens,
        context_length=context_length,
        params=SamplingParams(**params),
        seed=seed,
        unknown_id=unknown_id,
    )
    return np.concatenate(list(chunks), axis=1)


def greedy_without_cache(model, prompt, max_tokens, context_length=16):
    """Return the most probable continuation through the same windows, from the logits of the whole window."""
    text, window = list(prompt), min(len(prompt), context_length)
    for _ in range(max_tokens):
        text.append(int(model.predict_on_batch(np.array([text[-window:]]))[0, -1].argmax()))
        window = (context_length // 2 if window == context_length else window) + 1
    return text[len(prompt) :]


@pytest.mark.parametrize("family", ["gpt", "lstm"])
def test_generate_equals_decoding_without_a_cache(family):
    """The texts span several windows; one prompt is short, the other is longer than the context."""
    model = build_model(family)
    prompts = [random_tokens(1, length, seed=length)[0].tolist() for length in (3, 25)]
    generated = generate(decoders.build(model), prompts, 40, temperature=0).tolist()
    assert generated == [greedy_without_cache(model, prompt, 40) for prompt in prompts]


@pytest.mark.parametrize("family", ["gpt", "gru"])
def test_the_text_of_a_prompt_does_not_depend_on_the_other_prompts(family):
    """The texts span several windows, which a prompt of another length does not move."""
    decoder = decoders.build(build_model(family))
    prompts = [random_tokens(1, length, seed=length)[0].tolist() for length in (3, 12, 30, 6)]
    for params in ({}, {"temperature": 0.7, "top_k": 4, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.3}):
        together = generate(decoder, prompts, 60, **params).tolist()
        assert together == [generate(decoder, [prompt], 60, **params)[0].tolist() for prompt in prompts]
        twice = generate(decoder, [prompts[1], prompts[0], prompts[1]], 60, **params).tolist()
        assert twice[:2] == [together[1], together[0]]
        assert twice[2] != twice[0]  # the second text for the same prompt is another one


def test_generate_depends_on_the_seed(decoder):
    texts = [generate(decoder, [[1], [1]], 20, seed=seed) for seed in (1, 1, 2, -1)]
    assert texts[0].shape == (2, 20)
    assert texts[0].max() < VOCAB_SIZE
    assert (texts[0] == texts[1]).all()
    assert (texts[0] != texts[2]).any()
    assert (texts[0] != texts[3]).any()
    first, second = generate(decoder, [[1], [2]], 20, temperature=1e6)  # every token is equally probable
    assert (first != second).any()


def test_generate_does_not_depend_on_the_chunks_and_never_draws_the_unknown_token(decoder, monkeypatch):
    texts = generate(decoder, [[1], [2]], 50, temperature=3.0, unknown_id=0)
    assert 0 not in texts
    assert 0 in generate(decoder, [[1], [2]], 50, temperature=3.0)
    monkeypatch.setattr(sampling, "CHUNK_TOKENS", 7)
    assert (generate(decoder, [[1], [2]], 50, temperature=3.0, unknown_id=0) == texts).all()


def test_generate_returns_the_first_token_at_once(decoder):
    chunks = sampling.generate(decoder, [[1]], max_tokens=40, context_length=16)
    assert [chunk.shape[1] for chunk in chunks] == [1, 16, 16, 7]
