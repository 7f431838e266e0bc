"""Tests of the text classifiers: padding, word order, training and saving of every family."""

import keras
import numpy as np
import pytest

from dltoolkit.errors import UserError
from dltoolkit.models import portable
from dltoolkit.models.text import classifiers

VOCAB_SIZE, CLASSES = 40, 3


def build_model(family: str, **options) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = classifiers.build(family, VOCAB_SIZE, CLASSES, max_length=30, **options)
    if family == "ngram":
        ratios = np.random.default_rng(0).normal(size=(VOCAB_SIZE, CLASSES)) * (np.arange(VOCAB_SIZE) > 1)[:, None]
        classifiers.set_naive_bayes(model, ratios, entries_per_text=8)
    return model


def random_texts(count: int = 6, max_length: int = 12) -> np.ndarray:
    rng = np.random.default_rng(1)
    token_ids = rng.integers(1, VOCAB_SIZE, (count, max_length))
    token_ids[np.arange(max_length) >= rng.integers(1, max_length + 1, (count, 1))] = 0
    return token_ids.astype("int32")


@pytest.mark.parametrize("family", classifiers.FAMILIES)
def test_logits_do_not_depend_on_padding(family):
    model, token_ids = build_model(family), random_texts()
    logits = model.predict_on_batch(token_ids)
    assert logits.shape == (6, CLASSES)
    assert logits.dtype == np.float32
    padded = np.pad(token_ids, ((0, 0), (0, 9)))
    np.testing.assert_allclose(model.predict_on_batch(padded), logits, atol=1e-5)
    unpadded = np.concatenate([model(row[None, row > 0]) for row in token_ids])
    np.testing.assert_allclose(unpadded, logits, atol=1e-5)


@pytest.mark.parametrize("family", ["cnn", "lstm", "gru", "rnn", "transformer"])
def test_logits_depend_on_the_order_of_the_words(family):
    model = build_model(family)
    forward, backward = model(np.array([[2, 3, 4, 5, 6], [6, 5, 4, 3, 2]], "int32")).numpy()
    assert np.abs(forward - backward).max() > 1e-4  # rounding errors are below 1e-6


@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=pytest.mark.slow if name in ("lstm", "rnn") else ()) for name in classifiers.FAMILIES],
)
def test_model_learns_the_word_that_decides_the_class(family):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, 240)
    token_ids = rng.integers(10, VOCAB_SIZE, (240, 6)).astype("int32")
    token_ids[np.arange(240), rng.integers(0, 6, 240)] = 2 + labels
    sizes = {} if family == "ngram" else {"embedding_dim": 16, "units": 16}
    model = build_model(family, dropout=0.0, **sizes)
    learning_rate = 0.1 if family == "ngram" else 2e-2
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(learning_rate), loss, jit_compile=False)
    model.fit(token_ids[:200], labels[:200], batch_size=20, epochs=6, verbose=0)
    accuracy = (model.predict_on_batch(token_ids[200:]).argmax(axis=1) == labels[200:]).mean()
    assert accuracy > 0.8  # a third is chance


def test_ngram_starts_as_naive_bayes_with_fixed_ratios():
    model = build_model("ngram")
    layer = model.get_layer("logits")
    ratios = keras.ops.convert_to_numpy(layer.ratio)
    logits = model.predict_on_batch(np.array([[5, 9, 0]], "int32"))
    np.testing.assert_allclose(logits[0], 0.5 * (ratios[5] + ratios[9]), rtol=1e-5)
    weights = classifiers.ngram_weights(portable.to_keras_layers(model))
    np.testing.assert_allclose(weights, 0.5 * ratios, rtol=1e-5)
    assert [variable.name for variable in layer.trainable_variables] == ["weight", "bias"]


def test_ngram_drops_entries_in_training_only():
    model, token_ids = build_model("ngram", dropout=0.5), random_texts()
    logits = model(token_ids, training=False).numpy()
    np.testing.assert_allclose(model(token_ids, training=False), logits, atol=1e-6)
    assert np.abs(model(token_ids, training=True) - logits).max() > 0.1


def test_build_refuses_impossible_networks():
    with pytest.raises(UserError, match="Did you mean 'lstm'"):
        classifiers.build("lsmt", VOCAB_SIZE, CLASSES, max_length=30)
    with pytest.raises(UserError, match="at least two classes, not 1"):
        classifiers.build("lstm", VOCAB_SIZE, 1, max_length=30)
