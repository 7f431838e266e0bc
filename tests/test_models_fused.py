"""A quickened network answers and learns as Keras' own layers do."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dltoolkit.models import fused

UNITS, WORDS = 24, 9
RNG = np.random.default_rng(0)
VECTORS = RNG.normal(1, 2, (3, WORDS, UNITS)).astype("float32")
SEEN = np.arange(WORDS) < np.array([[WORDS], [5], [1]])  # how much of each text is no padding


class Block(keras.layers.Layer):
    """One encoder block of a transformer."""

    def __init__(self, activation, **kwargs):
        super().__init__(**kwargs)
        self.attention = keras.layers.MultiHeadAttention(3, UNITS // 3, dtype=self.dtype_policy)
        self.norm = keras.layers.LayerNormalization(epsilon=1e-3, dtype=self.dtype_policy)
        self.wide = keras.layers.Dense(2 * UNITS, activation, dtype=self.dtype_policy)
        self.narrow = keras.layers.Dense(UNITS, dtype=self.dtype_policy)

    def call(self, inputs):
        vectors, seen = inputs
        vectors = self.norm(vectors + self.attention(vectors, vectors, attention_mask=seen[:, None]))
        return vectors + self.narrow(self.wide(vectors))


def gelu_approximate(x):
    return keras.activations.gelu(x, approximate=True)


def network(activation="gelu", dtype="float32") -> keras.Model:
    keras.utils.set_random_seed(3)
    vectors, seen = keras.Input((None, UNITS), dtype="float32"), keras.Input((None,), dtype="bool")
    model = keras.Model([vectors, seen], Block(activation, dtype=dtype)([vectors, seen]))
    for seed, weight in enumerate(model.weights):  # biases too are no mere zeros
        weight.assign(weight + keras.random.normal(weight.shape, stddev=0.1, seed=seed))
    return model


def learned(model: keras.Model, compiled: bool = False) -> tuple[np.ndarray, list[np.ndarray]]:
    """Answers, and what a loss that weighs each number differently says of inputs and weights."""
    weighing = np.where(SEEN[..., None], np.arange(UNITS), 0).astype("float32")

    @tf.function(jit_compile=compiled, autograph=False)
    def gradients(vectors):
        with tf.GradientTape() as tape:
            tape.watch(vectors)
            answers = tf.cast(model([vectors, tf.constant(SEEN)], training=True), tf.float32)
            loss = tf.reduce_mean(tf.square(answers) * weighing)
        return answers, tape.gradient(loss, [vectors, *(weight.value for weight in model.trainable_weights)])

    answers, slopes = gradients(tf.constant(VECTORS))
    return answers.numpy(), [slope.numpy() for slope in slopes]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("activation", ["gelu", gelu_approximate, "relu"])
def test_answers_and_gradients_stay_the_same(activation, compiled):
    expected, slopes = learned(network(activation))
    quick = network(activation)
    fused.quicken(quick)
    block = next(layer for layer in quick.layers if isinstance(layer, Block))
    assert isinstance(block.norm, fused.LayerNormalization)
    assert isinstance(block.attention, fused.MultiHeadAttention)
    assert (block.wide.activation in (fused.gelu, fused.gelu_approximate)) == (activation != "relu")
    answers, quick_slopes = learned(quick, compiled)
    np.testing.assert_allclose(answers, expected, rtol=1e-4, atol=1e-4)
    for slope, quick_slope in zip(slopes, quick_slopes, strict=True):
        np.testing.assert_allclose(quick_slope, slope, rtol=1e-3, atol=1e-3)


def test_bfloat16_is_as_good():
    exact, slopes = learned(network())
    plain, quick = network(dtype="mixed_bfloat16"), network(dtype="mixed_bfloat16")
    fused.quicken(quick)
    errors = []
    for model in (plain, quick):
        answers, own = learned(model)
        off = [np.abs(mine - slope).mean() for mine, slope in zip(own, slopes, strict=True)]
        errors.append(np.mean([np.abs(answers - exact).mean(), *off]))
    assert errors[1] < 1.2 * errors[0]


def test_attention_keeps_its_dropout_and_its_scores():
    vectors = keras.Input((WORDS, UNITS))
    attention = keras.layers.MultiHeadAttention(3, 8, dropout=0.5)
    model = keras.Model(vectors, attention(vectors, vectors))
    fused.quicken(model)
    learning, answering = (model(VECTORS, training=training).numpy() for training in (True, False))
    assert np.abs(learning - answering).max() > 1e-3
    answers, scores = attention(VECTORS, VECTORS, return_attention_scores=True)
    np.testing.assert_allclose(answers, answering, atol=1e-5)
    np.testing.assert_allclose(tf.reduce_sum(scores, -1), 1, atol=1e-5)


@pytest.mark.parametrize("how", [{"axis": 1}, {"scale": False}, {"center": False}])
def test_another_normalisation_is_left_alone(how):
    vectors = keras.Input((WORDS, UNITS))
    model = keras.Model(vectors, keras.layers.LayerNormalization(**how)(vectors))
    expected = model(VECTORS)
    fused.quicken(model)
    np.testing.assert_array_equal(model(VECTORS), expected)


def test_a_quickened_network_is_saved_as_any_other(tmp_path):
    quick = keras.Sequential([keras.Input((WORDS, UNITS)), keras.layers.LayerNormalization()])
    fused.quicken(quick)
    quick.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(VECTORS), quick(VECTORS), atol=1e-6)
