"""Tests of the layers of language models."""

import numpy as np
import pytest
import tensorflow as tf
from toy_language_models import VOCAB_SIZE, build_model, random_tokens

from dltoolkit.models.language import decoder_layers
from dltoolkit.models.language.decoder_layers import BigramEmbedding, DecoderBlock


def test_attention_does_not_depend_on_the_block_size(monkeypatch):
    token_ids = random_tokens(2, 13)
    in_one_block = build_model("gpt")(token_ids).numpy()
    monkeypatch.setattr(decoder_layers, "BLOCK_SIZE", 4)
    assert build_model("gpt")(token_ids).numpy() == pytest.approx(in_one_block, abs=1e-5)


def test_rotary_scores_depend_on_distances_only():
    rng = np.random.default_rng(0)
    query, key = (rng.normal(size=8).astype("float32") for _ in range(2))
    angles = np.arange(10, dtype="float32")[:, None] * np.array([1.0, 0.3, 0.1, 0.03], "float32")
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    rotated = [
        decoder_layers.apply_rotary(tf.tile(vector[None, None, None], (1, 10, 1, 1)), cos, sin)[0, :, 0].numpy()
        for vector in (query, key)
    ]
    scores = rotated[0] @ rotated[1].T
    assert scores[:-1, :-1] == pytest.approx(scores[1:, 1:], abs=1e-5)
    assert np.linalg.norm(rotated[0], axis=1) == pytest.approx(np.linalg.norm(query), abs=1e-5)


def test_rms_norm_returns_vectors_of_unit_mean_square():
    x = tf.constant(np.random.default_rng(0).normal(0, 5, (3, 8)), tf.float32)
    assert np.square(decoder_layers.rms_norm(x)).mean(axis=1) == pytest.approx(1, abs=1e-5)


def test_dropout_is_independent_and_active_in_training_only():
    model, token_ids = build_model("gpt", dropout=0.5), tf.constant(random_tokens(2, 9))
    assert model(token_ids).numpy() == pytest.approx(model(token_ids).numpy(), abs=1e-6)
    assert np.abs(model(token_ids, training=True) - model(token_ids, training=True)).max() > 0.01
    block = DecoderBlock(2, dropout=0.25)
    block.build((None, 50, 16))
    dropped = block._apply_dropout(tf.ones((40, 50, 16)), training=True).numpy()
    assert np.unique(dropped) == pytest.approx([0, 4 / 3])
    assert dropped.mean() == pytest.approx(1, abs=0.02)  # more than five standard errors of 32,000 numbers
    correlations = np.corrcoef(dropped.reshape(-1, 16).T)[0, 1:]
    assert correlations == pytest.approx(0, abs=0.1)  # more than four standard errors of 2,000 pairs


@pytest.mark.parametrize("buckets", [VOCAB_SIZE**2, 7])
def test_bigram_embedding_depends_on_the_bigram_only(buckets):
    layer = BigramEmbedding(VOCAB_SIZE, 4, buckets)
    vectors = layer(np.array([[3, 5, 3, 5, 0, 5], [0, 5, 8, 3, 5, 0]])).numpy()
    assert layer.embeddings.shape == (buckets, 4)
    assert (vectors[0, 1] == vectors[0, 3]).all() and (vectors[0, 1] == vectors[1, 4]).all()
    assert (vectors[0, 5] == vectors[1, 1]).all()
    assert (vectors[0, 4] == vectors[1, 5]).all()
    if buckets == VOCAB_SIZE**2:
        assert len(np.unique(vectors.reshape(-1, 4), axis=0)) == 8  # the number of distinct bigrams
