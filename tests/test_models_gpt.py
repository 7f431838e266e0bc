"""Language models: they learn, never look ahead, are saved whole, and answer alike with and without what was kept."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dltoolkit.errors import UserError
from dltoolkit.models.language import decoder_layers, gpt
from dltoolkit.models.language.decoder_layers import DecoderBlock, PairEmbedding
from dltoolkit.models.model_file import load_model

SIZE = 11


def build(family, **options):
    keras.utils.set_random_seed(3)
    model = gpt.build(family, SIZE, **{"layers": 2, "width": 16, "heads": 2, **options})
    for layer in model.layers:  # projections begin at zero, which would hide what is wrong
        rng = np.random.default_rng(len(layer.name))
        layer.set_weights([rng.normal(0, 0.3, w.shape) for w in layer.get_weights()])
    return model


def some_tokens(batch, time, seed=0):
    return np.random.default_rng(seed).integers(0, SIZE, (batch, time)).astype("int32")


@pytest.mark.parametrize("family", gpt.FAMILIES)
def test_learns_what_comes_next(family):
    keras.utils.set_random_seed(0)
    model = gpt.build(family, SIZE, layers=1, embedding_dim=32, heads=2)
    x = (np.arange(40)[:, None] + np.arange(21)) % SIZE  # counting
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-2), loss, jit_compile=False)
    model.fit(x[:, :-1], x[:, 1:], batch_size=8, epochs=8, verbose=0)
    assert model.evaluate(x[:, :-1], x[:, 1:], verbose=0) < 0.3 < np.log(SIZE)


@pytest.mark.parametrize("family", gpt.FAMILIES)
def test_never_looks_ahead(family):
    model, tokens = build(family), some_tokens(2, 12)
    changed = tokens.copy()
    changed[:, 7:] = (changed[:, 7:] + 1) % SIZE
    before, after = (model.predict_on_batch(some) for some in (tokens, changed))
    assert before[:, :7] == pytest.approx(after[:, :7], abs=1e-5)
    assert not np.allclose(before[:, 7:], after[:, 7:], atol=1e-3)


def test_attention_in_blocks_is_attention(monkeypatch):
    tokens = some_tokens(2, 13)
    whole = build("gpt")(tokens).numpy()
    monkeypatch.setattr(decoder_layers, "BLOCK", 4)
    assert build("gpt")(tokens).numpy() == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize(("family", "members"), [*((family, 1) for family in gpt.FAMILIES), ("gpt", 3), ("gru", 2)])
def test_one_token_after_the_other_is_as_good_as_all_at_once(family, ensemble_size):
    """Rows of different lengths, padded on the left, read up to a place and then on, token by token."""
    model, tokens = build(family, ensemble_size=ensemble_size), some_tokens(3, 12)
    decoder = gpt.decoder(model)
    expected = model.predict_on_batch(tokens)
    shifted = np.zeros((3, 16), "int32")
    first = np.array([0, 2, 3], "int32")
    for row in range(3):
        shifted[row, first[row] : first[row] + 12] = tokens[row]
    logits, state = decoder.read(tf.constant(shifted[:, :10]), tf.constant(first), tf.constant(8), 16)
    for place in range(8, 13):
        for row in range(3):
            if place - first[row] <= 12:
                assert logits[row].numpy() == pytest.approx(expected[row, place - first[row] - 1], abs=1e-4)
        logits, state = decoder.advance(tf.constant(shifted[:, place]), state, tf.constant(place), tf.constant(first))


def test_members_learn_from_their_own_rows_and_answer_together():
    model, tokens = build("gpt", ensemble_size=2), some_tokens(4, 9)
    for layer in model.layers:  # the second differs from the first
        if layer.name.endswith("_of_2"):
            layer.set_weights([weight[..., ::-1] for weight in layer.get_weights()])
    alone = [
        tf.nn.softmax(
            keras.Model(model.get_layer(f"embedding{end}").input, model.get_layer(f"logits{end}").output)(tokens)
        )
        for end in ("", "_of_2")
    ]
    assert not np.allclose(*alone, atol=0.01)
    assert np.exp(model(tokens)) == pytest.approx(np.mean(alone, axis=0), abs=1e-5)
    learning = tf.nn.softmax(model(tokens, training=True)).numpy()
    for row in range(4):
        assert learning[row] == pytest.approx(alone[row % 2][row].numpy(), abs=1e-5)


@pytest.mark.parametrize(("family", "members"), [("gpt", 1), ("gru", 1), ("gpt", 2)])
def test_saved_and_loaded(family, ensemble_size, tmp_path):
    model, tokens = build(family, dropout=0.1, ensemble_size=ensemble_size), some_tokens(2, 9)
    model.save(tmp_path / "model.keras")
    again = load_model(tmp_path / "model.keras")
    assert again.predict_on_batch(tokens) == pytest.approx(model.predict_on_batch(tokens), abs=1e-5)


def test_dropout_drops_in_training_only():
    model, tokens = build("gpt", dropout=0.5), tf.constant(some_tokens(2, 9))
    assert np.allclose(model(tokens), model(tokens))
    assert not np.allclose(model(tokens, training=True), model(tokens, training=True))
    block = DecoderBlock(2, dropout=0.25)
    block.build((None, 50, 16))
    dropped = block._dropped(tf.ones((40, 50, 16)), training=True).numpy()
    assert np.unique(dropped) == pytest.approx([0, 4 / 3])
    assert dropped.mean() == pytest.approx(1, abs=0.02)
    assert np.corrcoef(dropped.reshape(-1, 16).T)[0, 1:] == pytest.approx(0, abs=0.1), "each number by itself"


@pytest.mark.parametrize("buckets", [SIZE**2, 7])
def test_a_pair_has_one_vector_wherever_it_stands(buckets):
    layer = PairEmbedding(SIZE, 4, buckets)
    vectors = layer(np.array([[3, 5, 3, 5, 0, 5], [0, 5, 8, 3, 5, 0]])).numpy()
    assert layer.vectors.shape == (buckets, 4)
    assert (vectors[0, 1] == vectors[0, 3]).all() and (vectors[0, 1] == vectors[1, 4]).all()
    assert (vectors[0, 5] == vectors[1, 1]).all()
    assert (vectors[0, 4] == vectors[1, 5]).all()
    if buckets == SIZE**2:
        assert len(np.unique(vectors.reshape(-1, 4), axis=0)) == 8, "different pairs, different vectors"


def test_impossible_networks_are_refused():
    with pytest.raises(UserError, match="Did you mean 'gpt'"):
        gpt.build("gtp", SIZE, layers=1, embedding_dim=8)
    with pytest.raises(UserError, match="3 heads"):
        gpt.build("gpt", SIZE, layers=1, embedding_dim=16, heads=3)
