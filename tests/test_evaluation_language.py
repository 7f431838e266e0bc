"""Scores of language models: exact sums, and baselines that are proper probabilities."""

import gzip
import math

import keras
import numpy as np
import pytest

from dltoolkit.evaluation import language


def causal_model(vocab_size: int) -> keras.Model:
    """Return a model whose logits depend on all earlier tokens of the window: token IDs (batch, time) in."""
    keras.utils.set_random_seed(3)
    token_ids = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(vocab_size, 8, embeddings_initializer="normal")(token_ids)
    return keras.Model(token_ids, keras.layers.Dense(vocab_size)(keras.ops.cumsum(x, axis=1)))


def test_measure_scores_every_token_once_in_its_window():
    model, tokens = causal_model(13), np.random.default_rng(0).integers(0, 13, 50)
    measured = language.measure(model, [tokens[:7].astype("uint16"), tokens[7:].astype("uint16")], 100, 8)
    nats = 0.0
    for i in range(1, 50):
        window = tokens[max(0, -(-(i - 8) // 4) * 4) : i]  # windows of 8 tokens begin at every 4th
        logits = model.predict_on_batch(window[None])[0, -1].astype(float)
        nats += math.log(np.exp(logits).sum()) - logits[tokens[i]]
    assert measured["loss"] == pytest.approx(nats / 49, abs=1e-4)
    assert measured["bits_per_character"] == pytest.approx(nats / math.log(2) / 100, abs=1e-4)
    assert measured["perplexity"] == pytest.approx(math.exp(nats / 49), rel=1e-3)
    assert measured["tokens"] == 49


@pytest.mark.parametrize("order", [1, 2, 3])
def test_kneser_ney_returns_probabilities(order):
    """The probabilities of all next tokens sum to one after every context, also after unseen ones."""
    rng = np.random.default_rng(0)
    train = rng.choice(4, 300, p=[0.5, 0.3, 0.15, 0.05])
    for before in ([0, 1], [3, 3], [4, 4]):
        shares = [language.kneser_ney(train, np.array([*before, last]), 5, order)[-1] for last in range(5)]
        assert min(shares) > 0
        assert sum(shares) == pytest.approx(1, abs=1e-9)


def test_kneser_ney_equals_a_bigram_computed_by_hand():
    """In a b a b a c, two bigrams occur twice and one once: the discount is (1 + 0.5) / (1 + 2 * 2 + 1)."""
    train = np.array([0, 1, 0, 1, 0, 2])  # bigrams: ab 2, ba 2, ac 1
    discount = 1.5 / (1 + 2 * 2 + 1)
    unigram = language.kneser_ney(train, np.array([0, 1]), 3, 1)[0]
    assert unigram == pytest.approx((2 - 0.375) / 6 + 0.375 * 3 / 6 / 3)  # discount (1 + 0.5) / (1 + 2 + 1)
    lower = (1 - 3.5 / 4) / 3 + (3.5 / 4) * 3 / 3 / 3  # each token has one predecessor, so D = 3.5 / 4
    expected = (2 - discount) / 3 + discount * 2 / 3 * lower
    assert language.kneser_ney(train, np.array([0, 1]), 3, 2)[0] == pytest.approx(expected)


def test_baselines_improve_with_the_order():
    rng = np.random.default_rng(0)
    text = np.repeat(rng.integers(0, 20, 3000), 3).astype("uint16")
    scores = language.baselines(text[:8000], text[8000:], 1000, 20, "x" * 1000)
    assert scores["5-gram"]["loss"] < 0.6 * scores["unigram"]["loss"]
    assert scores["unigram"]["loss"] == pytest.approx(math.log(20), abs=0.05)
    assert scores["gzip"]["bits_per_character"] == pytest.approx(8 * len(gzip.compress(b"x" * 1000)) / 1000)
