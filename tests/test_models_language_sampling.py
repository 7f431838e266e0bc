"""Tests of sampling: the probabilities of single tokens, and the windows, batches and seeds of whole texts."""

import numpy as np
import pytest
import tensorflow as tf
from toy_language_models import VOCAB_SIZE, build_model, random_tokens

from dltoolkit.models.language import sampling
from dltoolkit.models.language.sampling import SamplingParams

PROBABILITIES = np.array([0.5, 0.25, 0.15, 0.07, 0.03])
DRAWS = 20_000
TOLERANCE = 0.015  # more than four standard errors of a frequency


@pytest.fixture(scope="module")
def model():
    return build_model("gpt")


def frequencies(params, occurred=None):
    logits = tf.constant(np.tile(np.log(PROBABILITIES), (DRAWS, 1)), tf.float32)
    mask = None if occurred is None else tf.constant(np.tile(occurred, (DRAWS, 1)))
    uniform = tf.random.stateless_uniform(logits.shape, [1, 2], minval=1e-20)
    return np.bincount(sampling.sample(logits, params, uniform, mask).numpy(), minlength=5) / DRAWS


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


def generate(model, prompts, max_tokens, *, seed=5, context_length=16, **params):
    chunks = sampling.generate(
        model,
        prompts,
        max_tokens=max_tokens,
        context_length=context_length,
        params=SamplingParams(**params),
        seed=seed,
    )
    return np.concatenate(list(chunks), axis=1)


def greedy_without_cache(model, prompt, max_tokens, context_length=16):
    """Return the most probable continuation through the same windows, from the logits of the whole window."""
    chunk_tokens = max(1, min(sampling.CHUNK_TOKENS, context_length // 2))
    text, start, position = list(prompt), None, context_length
    for i in range(max_tokens):
        if i % chunk_tokens == 0 and position + chunk_tokens > context_length:
            prompt_tokens = context_length - chunk_tokens if start is None else context_length // 2
            start = max(0, len(text) - prompt_tokens)
            position = len(text) - start
        text.append(int(model.predict_on_batch(np.array([text[start:]]))[0, -1].argmax()))
        position += 1
    return text[len(prompt) :]


@pytest.mark.parametrize("family", ["gpt", "lstm"])
def test_generate_equals_decoding_without_a_cache(family):
    """The texts span several windows; one prompt is short, the other is longer than the context."""
    model = build_model(family)
    prompts = [random_tokens(1, length, seed=length)[0].tolist() for length in (3, 25)]
    generated = generate(model, prompts, 40, temperature=0).tolist()
    assert generated == [greedy_without_cache(model, prompt, 40) for prompt in prompts]


def test_generate_continues_prompts_independently(model):
    prompts = [random_tokens(1, length, seed=length)[0].tolist() for length in (3, 6)]
    together = generate(model, prompts, 8, temperature=0).tolist()
    assert together == [generate(model, [prompt], 8, temperature=0)[0].tolist() for prompt in prompts]


def test_generate_depends_on_the_seed(model):
    texts = [generate(model, [[1], [1]], 20, seed=seed) for seed in (1, 1, 2)]
    assert texts[0].shape == (2, 20)
    assert texts[0].max() < VOCAB_SIZE
    assert (texts[0] == texts[1]).all()
    assert (texts[0] != texts[2]).any()
    assert (texts[0][0] != texts[0][1]).any()  # two rows with the same prompt


def test_generate_does_not_depend_on_the_number_of_cores(model, monkeypatch):
    prompts = [token_ids.tolist() for token_ids in random_tokens(9, 5)]
    texts = {}
    for cores in (1, 2):  # one group of 9 texts, or groups of 5 and 4
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        texts[cores] = generate(model, prompts, 13, seed=3, context_length=12)
    assert texts[1].shape == (9, 13)
    assert (texts[1] == texts[2]).all()
    assert len({tuple(row) for row in texts[1].tolist()}) == 9
