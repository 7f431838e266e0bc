"""What lies between a transformer's matrix products, in one pass over memory forth and one back.

Keras composes layer normalisation, attention's softmax and GELU of many operations, each of which reads and writes all
numbers; on a CPU they take longer than the products. Here XLA compiles each to one loop and the products stay oneDNN's:
a training step of MiniLM takes two thirds of the time (see ``benchmarks/fused_layers.py``). Inside, all is float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import keras
import tensorflow as tf

HIDDEN = -1e9  # added to the scores of what must not be seen


def _compiled(function: Callable) -> Callable:
    return tf.function(function, jit_compile=True, autograph=False, reduce_retracing=True)


def _gelu_parts(x, approximate):
    """The normal distribution's share below each number, and its slope there; as GELU approximates them, or exactly."""
    if approximate:
        inner = math.sqrt(2 / math.pi)
        below = 0.5 * (1 + tf.tanh(inner * (x + 0.044715 * x * x * x)))
        return below, 2 * below * (1 - below) * inner * (1 + 3 * 0.044715 * x * x)
    return 0.5 * (1 + tf.math.erf(x * math.sqrt(0.5))), tf.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _gelu(approximate: bool) -> Callable:
    @_compiled
    def forth(x):
        wide = tf.cast(x, tf.float32)
        return tf.cast(wide * _gelu_parts(wide, approximate)[0], x.dtype)

    @_compiled
    def back(x, of_output):
        wide = tf.cast(x, tf.float32)
        below, slope = _gelu_parts(wide, approximate)
        return tf.cast(tf.cast(of_output, tf.float32) * (below + wide * slope), x.dtype)

    @tf.custom_gradient
    def gelu(x):
        return forth(x), lambda of_output: back(x, of_output)

    return gelu


gelu = _gelu(approximate=False)
gelu_approximate = _gelu(approximate=True)


@_compiled
def _normalise(x, scale, offset, epsilon):
    wide = tf.cast(x, tf.float32)
    mean = tf.reduce_mean(wide, -1, keepdims=True)
    deviation = tf.math.rsqrt(tf.reduce_mean(tf.square(wide - mean), -1, keepdims=True) + epsilon)
    return tf.cast((wide - mean) * (deviation * scale) + offset, x.dtype), mean, deviation


@_compiled
def _normalise_back(x, scale, mean, deviation, of_output):
    normal = (tf.cast(x, tf.float32) - mean) * deviation
    wide = tf.cast(of_output, tf.float32)
    own = wide * scale
    shared = tf.reduce_mean(own, -1, keepdims=True) + normal * tf.reduce_mean(own * normal, -1, keepdims=True)
    rows = list(range(len(x.shape) - 1))
    return (
        tf.cast(deviation * (own - shared), x.dtype),
        tf.reduce_sum(wide * normal, rows),
        tf.reduce_sum(wide, rows),
    )


@_compiled
def _softmax(scores, seen, scale):
    wide = tf.cast(scores, tf.float32) * scale + (1 - seen) * HIDDEN
    powers = tf.exp(wide - tf.reduce_max(wide, -1, keepdims=True))
    return tf.cast(powers * (1 / tf.reduce_sum(powers, -1, keepdims=True)), scores.dtype)


@_compiled
def _softmax_back(shares, scale, of_shares):
    wide, slope = tf.cast(shares, tf.float32), tf.cast(of_shares, tf.float32)
    return tf.cast(scale * wide * (slope - tf.reduce_sum(wide * slope, -1, keepdims=True)), shares.dtype)


@keras.saving.register_keras_serializable(package="dltoolkit")
class LayerNormalization(keras.layers.LayerNormalization):
    """Layer normalisation (Ba et al. 2016) over the last axis, with a scale and an offset: arguments as Keras has them.

    Input and output: (..., units).
    """

    def call(self, inputs):
        @tf.custom_gradient
        def normalised(x, scale, offset):
            outputs, mean, deviation = _normalise(x, scale, offset, tf.constant(self.epsilon, tf.float32))
            return outputs, lambda of_output: _normalise_back(x, scale, mean, deviation, of_output)

        inputs = tf.cast(inputs, self.compute_dtype)
        return normalised(inputs, *(tf.cast(weight, tf.float32) for weight in (self.gamma, self.beta)))


class MultiHeadAttention(keras.layers.MultiHeadAttention):
    """Attention (Vaswani et al. 2017) along one axis, with the heads put first, where products are fastest.

    Arguments and weights as Keras has them. Query (batch, time, units), keys and values (batch, seen, units), mask
    (batch, time or 1, seen) -> (batch, time, units).
    """

    def _compute_attention(
        self,
        query,
        key,
        value,
        attention_mask=None,
        training=None,
        return_attention_scores=False,
        use_causal_mask=False,
    ):
        if return_attention_scores or use_causal_mask or len(query.shape) != 4:
            how = (attention_mask, training, return_attention_scores, use_causal_mask)
            return super()._compute_attention(query, key, value, *how)
        seen = tf.ones((1, 1, 1)) if attention_mask is None else tf.cast(attention_mask, tf.float32)
        scale = tf.constant(self._inverse_sqrt_key_dim, tf.float32)

        @tf.custom_gradient
        def softmax(scores):
            shares = _softmax(scores, seen[:, None], scale)
            return shares, lambda of_shares: _softmax_back(shares, scale, of_shares)

        query, key, value = (tf.transpose(heads, (0, 2, 1, 3)) for heads in (query, key, value))
        shares = softmax(tf.matmul(query, key, transpose_b=True))
        if self._dropout > 0:
            shares = self._dropout_layer(shares, training=training)
        return tf.transpose(tf.matmul(shares, value), (0, 2, 1, 3)), None


def quicken(network: keras.Model) -> None:
    """Let a network's layers compute as those of this module do, the same but for rounding.

    Not where a GPU is in use: XLA compiles for each length of text, which takes longer there than it saves.

    Args:
        network: whose LayerNormalization, MultiHeadAttention and Dense layers, however deep, are changed in place.
    """
    if tf.config.get_visible_devices("GPU"):
        return
    for layer in network._flatten_layers():
        if type(layer) is keras.layers.LayerNormalization:
            if layer.scale and layer.center and not layer.rms_scaling and layer.axis in (-1, [-1]):
                layer.__class__ = LayerNormalization
        elif type(layer) is keras.layers.MultiHeadAttention:
            layer.__class__ = MultiHeadAttention
        elif isinstance(layer, keras.layers.Dense):
            layer.activation = _quick(layer.activation)


def _quick(activation: Callable) -> Callable:
    if activation is keras.activations.gelu:
        return gelu
    return gelu_approximate if getattr(activation, "__name__", "") == "gelu_approximate" else activation
