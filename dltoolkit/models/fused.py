"""Fused operations for the parts of a transformer between its matrix products.

Keras composes layer normalization, the softmax of attention and GELU of many operations, each of which reads and writes
the whole tensor; on a CPU they take longer than the matrix products. Here XLA compiles each of them to one loop forward
and one backward, while oneDNN still computes the products: a training step of MiniLM takes two thirds of the time (see
``benchmarks/fused_layers.py``). All intermediate values are float32.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from dltoolkit.models import keras_internals

MASKED_LOGIT = -1e9  # added to attention logits of masked positions, whose softmax then becomes zero


_plain = contextvars.ContextVar("plain", default=False)  # whether the operations are those of TensorFlow


@contextlib.contextmanager
def plain_ops() -> Iterator[None]:
    """Let layers compute with TensorFlow's operations in the block, because no file holds what XLA compiles."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def _compiled(function: Callable) -> Callable:
    compiled = tf.function(function, jit_compile=True, autograph=False, reduce_retracing=True)
    return lambda *inputs: (function if _plain.get() else compiled)(*inputs)


def _normal_cdf_and_pdf(x, approximate):
    """Return the normal distribution function and its derivative at x, exactly or as the tanh form of GELU has them."""
    if approximate:
        scale = math.sqrt(2 / math.pi)
        cdf = 0.5 * (1 + tf.tanh(scale * (x + 0.044715 * x * x * x)))
        return cdf, 2 * cdf * (1 - cdf) * scale * (1 + 3 * 0.044715 * x * x)
    return 0.5 * (1 + tf.math.erf(x * math.sqrt(0.5))), tf.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _fused_gelu(approximate: bool) -> Callable:
    @_compiled
    def forward(x):
        x32 = tf.cast(x, tf.float32)
        return tf.cast(x32 * _normal_cdf_and_pdf(x32, approximate)[0], x.dtype)

    @_compiled
    def backward(x, output_gradient):
        x32 = tf.cast(x, tf.float32)
        cdf, pdf = _normal_cdf_and_pdf(x32, approximate)
        return tf.cast(tf.cast(output_gradient, tf.float32) * (cdf + x32 * pdf), x.dtype)

    @tf.custom_gradient
    def fused_gelu(x):
        return forward(x), lambda output_gradient: backward(x, output_gradient)

    def gelu(x):
        return tf.nn.gelu(x, approximate) if _plain.get() else fused_gelu(x)

    return gelu


gelu = _fused_gelu(approximate=False)
gelu_approximate = _fused_gelu(approximate=True)


@_compiled
def _layer_norm(x, gamma, beta, epsilon):
    """Return the normalized x, the means and the inverse standard deviations of its rows."""
    x32 = tf.cast(x, tf.float32)
    mean = tf.reduce_mean(x32, -1, keepdims=True)
    inv_std = tf.math.rsqrt(tf.reduce_mean(tf.square(x32 - mean), -1, keepdims=True) + epsilon)
    return tf.cast((x32 - mean) * (inv_std * gamma) + beta, x.dtype), mean, inv_std


@_compiled
def _layer_norm_gradients(x, gamma, mean, inv_std, output_gradient):
    """Return the gradients with respect to x, gamma and beta."""
    normalized = (tf.cast(x, tf.float32) - mean) * inv_std
    gradient = tf.cast(output_gradient, tf.float32)
    scaled = gradient * gamma
    through_statistics = tf.reduce_mean(scaled, -1, keepdims=True)
    through_statistics += normalized * tf.reduce_mean(scaled * normalized, -1, keepdims=True)
    batch_axes = list(range(len(x.shape) - 1))
    return (
        tf.cast(inv_std * (scaled - through_statistics), x.dtype),
        tf.reduce_sum(gradient * normalized, batch_axes),
        tf.reduce_sum(gradient, batch_axes),
    )


@_compiled
def _softmax(logits, attention_mask, scale):
    logits32 = tf.cast(logits, tf.float32) * scale + (1 - attention_mask) * MASKED_LOGIT
    exponentials = tf.exp(logits32 - tf.reduce_max(logits32, -1, keepdims=True))
    return tf.cast(exponentials * (1 / tf.reduce_sum(exponentials, -1, keepdims=True)), logits.dtype)


@_compiled
def _softmax_gradient(weights, scale, weights_gradient):
    weights32, gradient = tf.cast(weights, tf.float32), tf.cast(weights_gradient, tf.float32)
    gradient = scale * weights32 * (gradient - tf.reduce_sum(weights32 * gradient, -1, keepdims=True))
    return tf.cast(gradient, weights.dtype)


@keras.saving.register_keras_serializable(package="dltoolkit")
class LayerNormalization(keras.layers.LayerNormalization):
    """Layer normalization (Ba et al. 2016) over the last axis, with scale and offset.

    The arguments are those of Keras. Input and output: (..., units).
    """

    def call(self, inputs):
        @tf.custom_gradient
        def normalize(x, gamma, beta):
            outputs, mean, inv_std = _layer_norm(x, gamma, beta, tf.constant(self.epsilon, tf.float32))
            return outputs, lambda gradient: _layer_norm_gradients(x, gamma, mean, inv_std, gradient)

        inputs = tf.cast(inputs, self.compute_dtype)
        return normalize(inputs, *(tf.cast(weight, tf.float32) for weight in (self.gamma, self.beta)))


class MultiHeadAttention(keras_internals.AttentionBase):
    """Attention (Vaswani et al. 2017) along one axis, with the heads moved to the front, where products are fastest.

    The arguments and weights are those of Keras. Query (batch, time, units), key and value (batch, key_time, units),
    mask (batch, time or 1, key_time) -> (batch, time, units).
    """

    def attend(self, query, key, value, attention_mask, scale, training):
        mask = tf.ones((1, 1, 1)) if attention_mask is None else tf.cast(attention_mask, tf.float32)
        scale = tf.constant(scale, tf.float32)

        @tf.custom_gradient
        def softmax(logits):
            weights = _softmax(logits, mask[:, None], scale)
            return weights, lambda gradient: _softmax_gradient(weights, scale, gradient)

        # (batch, time, heads, head_dim) -> (batch, heads, time, head_dim)
        query, key, value = (tf.transpose(tensor, (0, 2, 1, 3)) for tensor in (query, key, value))
        weights = softmax(tf.matmul(query, key, transpose_b=True))  # (batch, heads, time, key_time)
        weights = self.dropped_attention(weights, training)
        return tf.transpose(tf.matmul(weights, value), (0, 2, 1, 3))


def use_fused_ops(model: keras.Model) -> None:
    """Let the layers of a model compute with the fused operations, with equal results up to rounding.

    Nothing changes if a GPU is in use: XLA compiles for each length of the texts, which takes longer there than it
    saves.

    Args:
        model: A model. Its LayerNormalization, MultiHeadAttention and Dense layers are changed in place, at any depth.
    """
    if tf.config.get_visible_devices("GPU"):
        return
    for layer in keras_internals.all_layers(model):
        if type(layer) is keras.layers.LayerNormalization:
            if layer.scale and layer.center and not layer.rms_scaling and layer.axis in (-1, [-1]):
                layer.__class__ = LayerNormalization
        elif type(layer) is keras.layers.MultiHeadAttention:
            layer.__class__ = MultiHeadAttention
        elif isinstance(layer, keras.layers.Dense):
            variant = keras_internals.gelu_variant(layer.activation)
            layer.activation = {"exact": gelu, "tanh": gelu_approximate}.get(variant, layer.activation)
