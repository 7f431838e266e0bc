"""Layers of language models, registered with Keras as ``dltoolkit>…``."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from dltoolkit.models.language import cached_layers

BLOCK_SIZE = 64  # queries per attention block; a block does not compute the keys behind it, about half of all products


@keras.saving.register_keras_serializable(package="dltoolkit")
class BigramEmbedding(keras.layers.Layer):
    """Embedding of bigrams: each token together with the token before it.

    Maps token IDs int32 (batch, time) to vectors (batch, time, units). The first token of a row is paired with token 0.
    If there are more bigrams than ``buckets``, several of them share a vector through hashing (Joulin et al. 2016).
    The model learns which tokens follow a bigram faster from these vectors than through attention.

    Args:
        vocab_size: Number of tokens in the vocabulary.
        units: Size of the vectors.
        buckets: Maximum number of vectors.
    """

    def __init__(self, vocab_size: int, units: int, buckets: int = 16_384, **kwargs):
        super().__init__(**kwargs)
        self.vocab_size, self.units, self.buckets = vocab_size, units, buckets

    def build(self, input_shape):
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(min(self.vocab_size**2, self.buckets), self.units),
            initializer=keras.initializers.RandomNormal(stddev=1.0),
        )

    def call(self, token_ids):
        return self.lookup(tf.pad(token_ids[:, :-1], [[0, 0], [1, 0]]), token_ids)

    def lookup(self, previous_ids, token_ids):
        """Return the vectors (batch, time, units) of tokens and the tokens before them, int (batch, time) each."""
        previous_ids, token_ids = tf.cast(previous_ids, tf.int64), tf.cast(token_ids, tf.int64)
        bigrams = cached_layers.hash_bigrams(previous_ids, token_ids, self.vocab_size, self.buckets)
        return tf.gather(tf.cast(tf.convert_to_tensor(self.embeddings), self.compute_dtype), bigrams)

    def compute_output_shape(self, input_shape):
        return (*input_shape, self.units)

    def get_config(self):
        config = {"vocab_size": self.vocab_size, "units": self.units, "buckets": self.buckets}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="dltoolkit")
class DecoderBlock(keras.layers.Layer):
    """Transformer block of a decoder: causal self-attention and an MLP, both with residual connections.

    Maps (batch, time, embedding_dim) to the same shape. The positions are rotary embeddings (Su et al. 2021), so that
    attention depends on distances only.

    Args:
        heads: Number of attention heads; ``embedding_dim / heads`` must be an even integer.
        mlp_ratio: Hidden units of the MLP divided by ``embedding_dim``.
        dropout: Dropout rate of both residual branches, which is rounded to a multiple of 1/256.
    """

    def __init__(self, heads: int, mlp_ratio: int = 4, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.mlp_ratio, self.dropout = heads, mlp_ratio, dropout
        self.seed_generator = keras.random.SeedGenerator()

    def build(self, input_shape):
        embedding_dim = input_shape[-1]
        hidden_dim, stddev = self.mlp_ratio * embedding_dim, 0.5 * embedding_dim**-0.5

        def dense(name, units, initializer, inputs=embedding_dim):
            layer = keras.layers.Dense(
                units, use_bias=False, kernel_initializer=initializer, name=name, dtype=self.dtype_policy
            )
            layer.build((None, inputs))
            return layer

        self.qkv = dense("qkv", 3 * embedding_dim, keras.initializers.RandomNormal(stddev=stddev))
        self.proj = dense("proj", embedding_dim, "zeros")
        self.fc1 = dense("fc1", hidden_dim, keras.initializers.RandomNormal(stddev=stddev))
        self.fc2 = dense("fc2", embedding_dim, "zeros", hidden_dim)

    def call(self, x, training=False):
        x += self._apply_dropout(self.proj(self._causal_attention(x)), training)
        return x + self._apply_dropout(self._mlp(x), training)

    def step(self, x, key, value, window):
        """Return the outputs for tokens that follow others, and the keys and values of all of them.

        Args:
            x: The new tokens of all texts, (batch * time, embedding_dim).
            key: Keys of the earlier tokens, (batch, heads, earlier, head_dim).
            value: Their values, likewise.
            window: The :class:`Window` of the tokens, which is the same for all blocks.
        """
        qkv = tf.reshape(self.qkv(rms_norm(x)), window.shape(3 * self.heads, key.shape[-1]))
        new_key, new_value = tf.split(qkv, (2 * self.heads, self.heads), axis=2)  # the first one has the queries, too
        new_key = tf.transpose(apply_rotary(rms_norm(new_key), window.cos, window.sin), (0, 2, 1, 3))
        query, new_key = tf.split(new_key, 2, axis=1)
        key = tf.concat([key, new_key], axis=2)
        value = tf.concat([value, tf.transpose(new_value, (0, 2, 1, 3))], axis=2)
        attended = _attention(query * key.shape[-1] ** -0.5, key, value, window.attention_mask)
        x += self.proj(tf.reshape(tf.transpose(attended, (0, 2, 1, 3)), (-1, x.shape[-1])))
        return x + self._mlp(x), key, value

    def _mlp(self, x):
        return self.fc2(tf.square(tf.nn.relu(self.fc1(rms_norm(x)))))

    def _causal_attention(self, x):
        """Return attended values (batch, time, embedding_dim)."""
        batch, time, embedding_dim = _shape(x)
        query, key, value = self._project_heads(x)
        positions = tf.range(time)

        def attend_block(begin, end):
            """Attend from the positions ``begin`` to ``end`` to all positions before ``end``."""
            attention_mask = positions[None, None, None, :end] <= positions[begin:end, None]  # (1, 1, queries, keys)
            return _attention(query[:, :, begin:end], key[:, :, :end], value[:, :, :end], attention_mask)

        ends = [*range(BLOCK_SIZE, time, BLOCK_SIZE), time] if isinstance(time, int) else [time]
        blocks = [attend_block(begin, end) for begin, end in zip([0, *ends], ends, strict=False)]
        attended = tf.transpose(tf.concat(blocks, axis=2), (0, 2, 1, 3))  # (batch, time, heads, head_dim)
        return tf.reshape(attended, (batch, time, embedding_dim))

    def _project_heads(self, x):
        """Return queries, keys and values, each (batch, heads, time, head_dim), for x (batch, time, embedding_dim)."""
        batch, time, embedding_dim = _shape(x)
        head_dim = embedding_dim // self.heads
        inv_freq = cached_layers.inverse_frequencies(head_dim)
        positions = tf.expand_dims(tf.cast(tf.range(time), tf.float32), 1)
        angles = positions * inv_freq  # (time, head_dim / 2)
        cos, sin = (tf.expand_dims(tf.cast(function(angles), x.dtype), 1) for function in (tf.cos, tf.sin))

        parts = tf.split(self.qkv(rms_norm(x)), 3, axis=-1)
        query, key, value = (tf.reshape(part, (batch, time, self.heads, head_dim)) for part in parts)
        query = apply_rotary(rms_norm(query), cos, sin) * head_dim**-0.5
        key = apply_rotary(rms_norm(key), cos, sin)
        return (tf.transpose(part, (0, 2, 1, 3)) for part in (query, key, value))

    def _apply_dropout(self, x, training):
        """Apply dropout that uses each byte of a random number, because drawing them takes a quarter of a step."""
        if not (training and self.dropout):
            return x
        batch, time, embedding_dim = tf.unstack(tf.shape(x))
        seed = tf.cast(self.seed_generator.next(), tf.int32)
        numbers = tf.random.stateless_uniform((batch, time, embedding_dim // 4 + 1), seed, None, None, tf.uint32)
        random_bytes = tf.reshape(tf.bitcast(numbers, tf.uint8), (batch, time, -1))[..., :embedding_dim]
        threshold = round(256 * self.dropout)
        scaled = x * (256 / (256 - threshold))
        return tf.where(tf.cast(random_bytes, tf.int32) >= threshold, scaled, tf.zeros_like(x))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        config = {"heads": self.heads, "mlp_ratio": self.mlp_ratio, "dropout": self.dropout}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="dltoolkit")
class EnsembleSplit(keras.layers.Layer):
    """The rows of a training batch that one model of an ensemble learns from; all rows outside training.

    The first of two models gets the rows 0, 2, 4, …, so that the parts of a batch on several replicas are split alike.

    Args:
        index: Index of the model, from 0.
        ensemble_size: Number of models; it must divide the number of rows of a training batch.
    """

    def __init__(self, index: int, ensemble_size: int, **kwargs):
        super().__init__(**kwargs)
        self.index, self.ensemble_size = index, ensemble_size

    def call(self, x, training=False):
        return x[self.index :: self.ensemble_size] if training else x

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "index": self.index, "ensemble_size": self.ensemble_size}


@keras.saving.register_keras_serializable(package="dltoolkit")
class EnsembleAverage(keras.layers.Layer):
    """The logits of an ensemble, from a list of the logits of its models, (batch, time, vocab_size) each.

    Outside training, the result is the logarithm of the models' mean probabilities. In training, where each model has
    seen its own rows (:class:`EnsembleSplit`), the result is the logits of all rows, in the order of the batch.
    """

    def call(self, logits, training=False):
        if not training:
            return average_logits(logits)
        rows = tf.stack(logits, axis=1)  # (batch / ensemble_size, ensemble_size, time, vocab_size)
        return tf.reshape(rows, tf.concat([[-1], tf.shape(rows)[2:]], 0))

    def compute_output_shape(self, input_shape):
        return input_shape[0]


def average_logits(logits):
    """Return the logarithm of the mean probabilities of several logits (…, vocab_size)."""
    return tf.reduce_logsumexp(tf.nn.log_softmax(tf.stack(logits)), axis=0) - np.log(len(logits)).astype("float32")


class Window:
    """What the blocks of a network share that reads tokens which follow others.

    Args:
        ids: The new tokens, (batch, time).
        key: Keys of the earlier tokens, (batch, heads, earlier, head_dim).

    Attributes:
        cos: Cosines of the angles of the new tokens' positions, (time, 1, head_dim / 2).
        sin: Their sines, likewise.
        attention_mask: Whether a new token attends to a token, (time, earlier + time).
    """

    def __init__(self, ids, key):
        self._batch, self._time = _shape(ids)
        earlier = tf.shape(key)[2]
        positions = tf.expand_dims(earlier + tf.range(self._time), 1)
        angles = tf.cast(positions, tf.float32) * cached_layers.inverse_frequencies(key.shape[-1])
        self.cos, self.sin = (tf.expand_dims(function(angles), 1) for function in (tf.cos, tf.sin))
        self.attention_mask = tf.range(earlier + self._time)[None] <= positions
        self._shapes: dict[tuple[int, ...], tf.Tensor] = {}

    def shape(self, *sizes: int):
        """Return the shape (batch, time, …) as one tensor for all blocks."""
        if sizes not in self._shapes:
            self._shapes[sizes] = tf.stack([self._batch, self._time, *sizes])
        return self._shapes[sizes]


def apply_rotary(x, cos, sin):
    """Rotate vectors (batch, time, heads, head_dim) by angles whose ``cos`` and ``sin`` are (time, 1, head_dim / 2)."""
    x1, x2 = tf.split(x, 2, axis=-1)
    return tf.concat([x1 * cos - x2 * sin, x2 * cos + x1 * sin], axis=-1)


def rms_norm(x):
    """Divide vectors by their root mean square (Zhang & Sennrich 2019)."""
    return x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), axis=-1, keepdims=True) + cached_layers.EPSILON)


def _attention(query, key, value, attention_mask):
    """Return the attended values (batch, heads, queries, head_dim) of the keys that the boolean mask allows."""
    scores = tf.matmul(query, key, transpose_b=True)
    masked = tf.where(attention_mask, scores, tf.constant(cached_layers.MASKED_SCORE, scores.dtype))
    return tf.matmul(tf.nn.softmax(masked), value)


def _shape(x):
    """Return the sizes of the axes of a tensor, as integers if they are static."""
    dynamic_shape = tf.unstack(tf.shape(x))
    return [dynamic if size is None else size for size, dynamic in zip(x.shape, dynamic_shape, strict=True)]
