"""Tests of the language models: training, causality, ensembles and saving."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from toy_language_models import VOCAB_SIZE, build_model, random_tokens

from dltoolkit.errors import UserError
from dltoolkit.models.language import gpt
from dltoolkit.models.model_file import load_model


@pytest.mark.parametrize("family", gpt.FAMILIES)
def test_model_learns_to_count(family):
    keras.utils.set_random_seed(0)
    model = gpt.build(family, VOCAB_SIZE, layers=1, embedding_dim=32, heads=2)
    x = (np.arange(40)[:, None] + np.arange(21)) % VOCAB_SIZE
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-2), loss, jit_compile=False)
    untrained = model.evaluate(x[:, :-1], x[:, 1:], verbose=0)
    assert untrained == pytest.approx(np.log(VOCAB_SIZE), abs=1e-5)  # the logits are initialized to zero
    model.fit(x[:, :-1], x[:, 1:], batch_size=8, epochs=8, verbose=0)
    assert model.evaluate(x[:, :-1], x[:, 1:], verbose=0) < 0.3


@pytest.mark.parametrize("family", gpt.FAMILIES)
def test_logits_do_not_depend_on_later_tokens(family):
    model, token_ids = build_model(family), random_tokens(2, 12)
    changed = token_ids.copy()
    changed[:, 7:] = (changed[:, 7:] + 1) % VOCAB_SIZE
    before, after = (model.predict_on_batch(batch) for batch in (token_ids, changed))
    assert before[:, :7] == pytest.approx(after[:, :7], abs=1e-5)
    assert (np.abs(before[:, 7:] - after[:, 7:]).max(axis=-1) > 1e-3).all()


def test_ensemble_trains_each_model_on_its_rows_and_averages_probabilities():
    model, token_ids = build_model("gpt", ensemble_size=2), random_tokens(4, 9)
    for layer in model.layers:  # the second model differs from the first
        if layer.name.endswith("_model_2"):
            layer.set_weights([weight[..., ::-1] for weight in layer.get_weights()])
    probabilities = [
        tf.nn.softmax(
            keras.Model(model.get_layer(f"embedding{suffix}").input, model.get_layer(f"logits{suffix}").output)(
                token_ids
            )
        ).numpy()
        for suffix in ("", "_model_2")
    ]
    assert np.abs(probabilities[0] - probabilities[1]).max() > 0.01
    assert np.exp(model(token_ids)) == pytest.approx(np.mean(probabilities, axis=0), abs=1e-5)
    in_training = tf.nn.softmax(model(token_ids, training=True)).numpy()
    for row in range(4):
        assert in_training[row] == pytest.approx(probabilities[row % 2][row], abs=1e-5)


def test_first_input_feeds_the_first_model_of_an_ensemble_only():
    model, token_ids = build_model("gru", ensemble_size=2), random_tokens(2, 9)
    first = keras.Model(gpt.first_input(model), model.get_layer("logits").output)
    assert not any("model_2" in weight.path for weight in first.weights)
    alone = build_model("gru")
    alone.set_weights(first.get_weights())
    assert first(token_ids).numpy() == pytest.approx(alone(token_ids).numpy(), abs=1e-6)


@pytest.mark.parametrize(("family", "ensemble_size"), [("gpt", 1), ("gru", 1), ("gpt", 2)])
def test_model_survives_saving(family, ensemble_size, tmp_path):
    model, token_ids = build_model(family, dropout=0.1, ensemble_size=ensemble_size), random_tokens(2, 9)
    model.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    assert loaded.predict_on_batch(token_ids) == pytest.approx(model.predict_on_batch(token_ids), abs=1e-5)


def test_build_refuses_impossible_networks():
    with pytest.raises(UserError, match="Did you mean 'gpt'"):
        gpt.build("gtp", VOCAB_SIZE, layers=1, embedding_dim=8)
    with pytest.raises(UserError, match="16 cannot be divided among 3 heads .* multiple of 6"):
        gpt.build("gpt", VOCAB_SIZE, layers=1, embedding_dim=16, heads=3)
