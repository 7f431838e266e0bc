"""Text classifiers: every family answers texts of any length, learns, and comes back from disk the same."""

import keras
import numpy as np
import pytest

from dltoolkit.errors import UserError
from dltoolkit.models.text import classifiers as text

SIZE, CLASSES = 40, 3


def network(family: str, **options) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = text.build(family, SIZE, CLASSES, longest=30, **options)
    if family == "ngram":
        ratios = np.random.default_rng(0).normal(size=(SIZE, CLASSES)) * (np.arange(SIZE) > 1)[:, None]
        text.set_naive_bayes(model, ratios, entries_per_text=8)
    return model


def some_texts(count: int = 6, longest: int = 12) -> np.ndarray:
    rng = np.random.default_rng(1)
    numbers = rng.integers(1, SIZE, (count, longest))
    numbers[np.arange(longest) >= rng.integers(1, longest + 1, (count, 1))] = 0
    return numbers.astype("int32")


@pytest.mark.parametrize("family", text.FAMILIES)
def test_padding_changes_no_answer(family):
    model, numbers = network(family), some_texts()
    answers = model.predict_on_batch(numbers)
    assert answers.shape == (6, CLASSES)
    assert answers.dtype == np.float32
    padded = np.pad(numbers, ((0, 0), (0, 9)))
    np.testing.assert_allclose(model.predict_on_batch(padded), answers, atol=1e-5)
    alone = np.concatenate([model.predict_on_batch(row[None, row > 0]) for row in numbers])
    np.testing.assert_allclose(alone, answers, atol=1e-5)


@pytest.mark.parametrize("family", text.FAMILIES)
def test_a_model_comes_back_from_disk_the_same(family, tmp_path):
    model, numbers = network(family), some_texts()
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_allclose(again.predict_on_batch(numbers), model.predict_on_batch(numbers), atol=1e-6)


@pytest.mark.parametrize("family", ["cnn", "lstm", "gru", "rnn", "transformer"])
def test_the_order_of_the_words_counts(family):
    model = network(family)
    one, other = model.predict_on_batch(np.array([[2, 3, 4, 5, 6], [6, 5, 4, 3, 2]], "int32"))
    assert np.abs(one - other).max() > 1e-4


@pytest.mark.parametrize("family", text.FAMILIES)
def test_every_family_learns(family):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, 240)
    numbers = rng.integers(10, SIZE, (240, 6)).astype("int32")
    numbers[np.arange(240), rng.integers(0, 6, 240)] = 2 + labels  # one word tells the class
    model = network(family, dropout=0.0)
    rate = 0.1 if family == "ngram" else 2e-2
    model.compile(keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(numbers[:200], labels[:200], batch_size=20, epochs=6, verbose=0)
    assert (model.predict_on_batch(numbers[200:]).argmax(axis=1) == labels[200:]).mean() > 0.8


def test_ngram_starts_as_naive_bayes_and_keeps_to_its_ratios():
    model = network("ngram")
    layer = model.get_layer("logits")
    ratios = keras.ops.convert_to_numpy(layer.ratio)
    answers = model.predict_on_batch(np.array([[5, 9, 0]], "int32"))
    np.testing.assert_allclose(answers[0], 0.5 * (ratios[5] + ratios[9]), rtol=1e-5)
    np.testing.assert_allclose(text.weights(model), 0.5 * ratios, rtol=1e-5)
    assert [variable.name for variable in layer.trainable_variables] == ["weight", "bias"]


def test_ngram_drops_entries_in_training_only():
    model, numbers = network("ngram", dropout=0.5), some_texts()
    assert (np.asarray(model(numbers, training=False)) == np.asarray(model(numbers, training=False))).all()
    assert (np.asarray(model(numbers, training=True)) != np.asarray(model(numbers, training=False))).any()


def test_unknown_family():
    with pytest.raises(UserError, match="Did you mean 'lstm'"):
        text.build("lsmt", SIZE, CLASSES, longest=30)
