"""Drawing tokens: with the probabilities that were asked for, and the same text with and without what was kept."""

import numpy as np
import pytest
import tensorflow as tf
from test_models_gpt import SIZE, build, some_tokens

from dltoolkit.models.language import sampling
from dltoolkit.models.language.sampling import Sampling

PROBABILITIES = np.array([0.5, 0.25, 0.15, 0.07, 0.03])


def frequencies(how, seen=None, draws=20_000):
    logits = tf.constant(np.tile(np.log(PROBABILITIES), (draws, 1)), tf.float32)
    mask = None if seen is None else tf.constant(np.tile(seen, (draws, 1)))
    uniform = tf.random.stateless_uniform(logits.shape, [1, 2], minval=1e-20)
    return np.bincount(sampling.draw(logits, how, uniform, mask).numpy(), minlength=5) / draws


def share(kept, power=1.0):
    chosen = np.where(kept, PROBABILITIES, 0) ** power * np.array(kept)
    return chosen / chosen.sum()


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (Sampling(), PROBABILITIES),
        (Sampling(temperature=0.5), share([1, 1, 1, 1, 1], 2.0)),
        (Sampling(temperature=0.0), [1, 0, 0, 0, 0]),
        (Sampling(top_k=2), share([1, 1, 0, 0, 0])),
        (Sampling(top_k=50), PROBABILITIES),
        (Sampling(top_p=0.5), [1, 0, 0, 0, 0]),
        (Sampling(top_p=0.7), share([1, 1, 0, 0, 0])),
        (Sampling(top_p=0.8), share([1, 1, 1, 0, 0])),
        (Sampling(min_p=0.2), share([1, 1, 1, 0, 0])),
        (Sampling(top_k=3, top_p=0.6), share([1, 1, 0, 0, 0])),
    ],
)
def test_tokens_come_as_often_as_they_should(how, expected):
    assert frequencies(how) == pytest.approx(np.array(expected), abs=0.015)


def test_tokens_seen_before_are_penalised():
    """Log-probabilities are negative logits, which the penalty multiplies (Keskar et al. 2019)."""
    seen = np.array([True, False, False, False, False])
    weighed = np.where(seen, PROBABILITIES**2.0, PROBABILITIES)
    assert frequencies(Sampling(repetition_penalty=2.0), seen) == pytest.approx(weighed / weighed.sum(), abs=0.015)


def generated(model, prompts, count, **options):
    how = Sampling(**options)
    pieces = sampling.generate(model, prompts, max_tokens=count, context_length=16, how=how, seed=5)
    return np.concatenate(list(pieces), axis=1)


def without_cache(model, prompt, count, context_length=16):
    """The same windows, each token from a fresh look at all of its window."""
    chunk = max(1, min(sampling.CHUNK, context_length // 2))
    text, window, place = list(prompt), None, context_length
    for i in range(count):
        if i % chunk == 0 and place + chunk > context_length:
            kept = context_length - chunk if window is None else context_length // 2
            window = max(0, len(text) - kept)
            place = len(text) - window
        text.append(int(model.predict_on_batch(np.array([text[window:]]))[0, -1].argmax()))
        place += 1
    return text[len(prompt) :]


@pytest.mark.parametrize("family", ["gpt", "lstm"])
def test_greedy_text_is_the_same_with_and_without_cache(family):
    """Over several windows, from a short prompt, one longer than the context, and one alone in the batch."""
    model = build(family)
    prompts = [some_tokens(1, n, seed=n)[0].tolist() for n in (3, 25)]
    for prompt in prompts:
        assert generated(model, [prompt], 40, temperature=0)[0].tolist() == without_cache(model, prompt, 40)


def test_rows_of_a_batch_do_not_disturb_each_other():
    model = build("gpt")
    prompts = [some_tokens(1, n, seed=n)[0].tolist() for n in (3, 6)]
    together = generated(model, prompts, 8, temperature=0)
    assert [row.tolist() for row in together] == [
        generated(model, [prompt], 8, temperature=0)[0].tolist() for prompt in prompts
    ]


def test_the_seed_decides():
    model = build("gpt")
    draws = [
        np.concatenate(list(sampling.generate(model, [[1], [1]], max_tokens=20, context_length=16, seed=seed)), axis=1)
        for seed in (1, 1, 2)
    ]
    assert (draws[0] == draws[1]).all()
    assert (draws[0] != draws[2]).any()
    assert (draws[0][0] != draws[0][1]).any(), "two rows of one prompt differ"
    assert draws[0].shape == (2, 20)
    assert draws[0].max() < SIZE


def test_many_texts_are_the_same_on_any_number_of_cores(monkeypatch):
    model, prompts = build("gpt"), [tokens.tolist() for tokens in some_tokens(9, 5)]
    drawn = {}
    for cores in (1, 2):  # 9 texts together; or 5 and 4
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        pieces = list(sampling.generate(model, prompts, max_tokens=21, context_length=12, seed=3))
        drawn[cores] = np.concatenate(pieces, axis=1)
    assert drawn[1].shape == (9, 21)
    assert (drawn[1] == drawn[2]).all()
    assert len({tuple(row) for row in drawn[1].tolist()}) == 9
