"""The fused operations against the layers of Keras: outputs, gradients, dropout and saving."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from dltoolkit.models import fused

UNITS, LENGTH = 24, 9
RNG = np.random.default_rng(0)
VECTORS = RNG.normal(1, 2, (3, LENGTH, UNITS)).astype("float32")
PADDING_MASK = np.arange(LENGTH) < np.array([[LENGTH], [5], [1]])


class Block(keras.layers.Layer):
    """One encoder block of a transformer."""

    def __init__(self, activation, **kwargs):
        super().__init__(**kwargs)
        self.attention = keras.layers.MultiHeadAttention(3, UNITS // 3, dtype=self.dtype_policy)
        self.norm = keras.layers.LayerNormalization(epsilon=1e-3, dtype=self.dtype_policy)
        self.expand = keras.layers.Dense(2 * UNITS, activation, dtype=self.dtype_policy)
        self.reduce = keras.layers.Dense(UNITS, dtype=self.dtype_policy)

    def call(self, inputs):
        vectors, mask = inputs
        vectors = self.norm(vectors + self.attention(vectors, vectors, attention_mask=mask[:, None]))
        return vectors + self.reduce(self.expand(vectors))


def gelu_approximate(x):
    return keras.activations.gelu(x, approximate=True)


def network(activation="gelu", dtype="float32") -> keras.Model:
    vectors, mask = keras.Input((None, UNITS), dtype="float32"), keras.Input((None,), dtype="bool")
    model = keras.Model([vectors, mask], Block(activation, dtype=dtype)([vectors, mask]))
    rng = np.random.default_rng(3)
    for weight in model.weights:
        weight.assign(rng.normal(1.0 if weight.name == "gamma" else 0.0, 0.2, weight.shape))
    return model


def outputs_and_gradients(model: keras.Model, jit_compile: bool = False) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the outputs, and the gradients of a loss that weighs every output differently."""
    loss_weights = np.where(PADDING_MASK[..., None], np.arange(UNITS), 0).astype("float32")

    @tf.function(jit_compile=jit_compile, autograph=False)
    def step(vectors):
        with tf.GradientTape() as tape:
            tape.watch(vectors)
            outputs = tf.cast(model([vectors, tf.constant(PADDING_MASK)], training=True), tf.float32)
            loss = tf.reduce_mean(tf.square(outputs) * loss_weights)
        return outputs, tape.gradient(loss, [vectors, *(weight.value for weight in model.trainable_weights)])

    outputs, gradients = step(tf.constant(VECTORS))
    return outputs.numpy(), [gradient.numpy() for gradient in gradients]


@pytest.mark.parametrize(
    ("activation", "jit_compile"), [("gelu", False), ("gelu", True), (gelu_approximate, False), ("relu", False)]
)
def test_use_fused_ops_keeps_outputs_and_gradients(activation, jit_compile):
    expected, expected_gradients = outputs_and_gradients(network(activation))
    model = network(activation)
    fused.use_fused_ops(model)
    block = next(layer for layer in model.layers if isinstance(layer, Block))
    assert isinstance(block.norm, fused.LayerNormalization)
    assert isinstance(block.attention, fused.MultiHeadAttention)
    assert (block.expand.activation in (fused.gelu, fused.gelu_approximate)) == (activation != "relu")
    outputs, gradients = outputs_and_gradients(model, jit_compile)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-3, atol=1e-3)


@pytest.mark.skipif(os.environ.get("ONEDNN_MAX_CPU_ISA") == "AVX2", reason="oneDNN then lacks bfloat16")
def test_use_fused_ops_is_as_exact_in_bfloat16():
    exact, exact_gradients = outputs_and_gradients(network())
    plain, model = network(dtype="mixed_bfloat16"), network(dtype="mixed_bfloat16")
    fused.use_fused_ops(model)
    errors = []
    for each in (plain, model):
        outputs, gradients = outputs_and_gradients(each)
        gradient_errors = [np.abs(mine - right).mean() for mine, right in zip(gradients, exact_gradients, strict=True)]
        errors.append(np.mean([np.abs(outputs - exact).mean(), *gradient_errors]))
    assert errors[1] < 1.2 * errors[0]


def test_use_fused_ops_keeps_dropout_and_attention_scores():
    vectors = keras.Input((LENGTH, UNITS))
    attention = keras.layers.MultiHeadAttention(3, 8, dropout=0.5)
    model = keras.Model(vectors, attention(vectors, vectors))
    fused.use_fused_ops(model)
    in_training, in_inference = (model(VECTORS, training=training).numpy() for training in (True, False))
    assert np.abs(in_training - in_inference).max() > 1e-3
    outputs, scores = attention(VECTORS, VECTORS, return_attention_scores=True)
    np.testing.assert_allclose(outputs, in_inference, atol=1e-5)
    np.testing.assert_allclose(tf.reduce_sum(scores, -1), 1, atol=1e-5)


@pytest.mark.parametrize("options", [{"axis": 1}, {"scale": False}, {"center": False}])
def test_use_fused_ops_leaves_other_normalizations_alone(options):
    vectors = keras.Input((LENGTH, UNITS))
    model = keras.Model(vectors, keras.layers.LayerNormalization(**options)(vectors))
    expected = model(VECTORS)
    fused.use_fused_ops(model)
    np.testing.assert_array_equal(model(VECTORS), expected)


def test_use_fused_ops_keeps_a_model_savable(tmp_path):
    model = keras.Sequential([keras.Input((LENGTH, UNITS)), keras.layers.LayerNormalization()])
    fused.use_fused_ops(model)
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(reloaded(VECTORS), model(VECTORS), atol=1e-6)


@pytest.mark.parametrize("activation", ["gelu", gelu_approximate])
def test_plain_ops_compile_nothing_and_give_equal_outputs(activation):
    model = network(activation)
    expected = model([VECTORS, PADDING_MASK])
    fused.use_fused_ops(model)

    @tf.function(autograph=False)
    def answer(vectors):
        with fused.plain_ops():
            return model([vectors, tf.constant(PADDING_MASK)])

    np.testing.assert_allclose(answer(tf.constant(VECTORS)), expected, atol=1e-5)
    operations = answer.get_concrete_function(tf.constant(VECTORS)).graph.get_operations()
    assert not {each.type for each in operations} & {"PartitionedCall", "StatefulPartitionedCall", "Erf"}
