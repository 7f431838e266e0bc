"""The layers of language models, registered with Keras as ``dltoolkit>…``; each also reads one token at a time."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

BLOCK = 64  # places that attention is computed for at a time


@keras.saving.register_keras_serializable(package="dltoolkit")
class PairEmbedding(keras.layers.Layer):
    """A learned vector for each token together with the one before it, in place of which the first has a 0.

    Tokens int32 (batch, time) -> (batch, time, units). With more pairs than ``buckets`` several share a vector, by a
    hash (as the n-grams of Joulin et al. 2016 do). What follows a pair is learned sooner than through attention.

    Args:
        vocabulary: how many tokens there are.
        units: length of a vector.
        buckets: vectors at most.
    """

    def __init__(self, vocabulary: int, units: int, buckets: int = 16_384, **kwargs):
        super().__init__(**kwargs)
        self.vocabulary, self.units, self.buckets = vocabulary, units, buckets

    def build(self, input_shape):
        self.vectors = self.add_weight(
            name="vectors",
            shape=(min(self.vocabulary**2, self.buckets), self.units),
            initializer=keras.initializers.RandomNormal(stddev=1.0),
        )

    def call(self, tokens):
        return self.look_up(tf.pad(tokens[:, :-1], [[0, 0], [1, 0]]), tokens)

    def look_up(self, before, tokens):
        """The vectors of ``tokens`` that stand behind those in ``before``, of the same shape."""
        pairs = tf.cast(before, tf.int64) * self.vocabulary + tf.cast(tokens, tf.int64)
        if self.vocabulary**2 > self.buckets:
            pairs = pairs * 2_654_435_761 % (1 << 32) % self.buckets  # Knuth's multiplicative hash
        return tf.gather(tf.cast(tf.convert_to_tensor(self.vectors), self.compute_dtype), pairs)

    def compute_output_shape(self, input_shape):
        return (*input_shape, self.units)

    def get_config(self):
        own = {"vocabulary": self.vocabulary, "units": self.units, "buckets": self.buckets}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="dltoolkit")
class DecoderBlock(keras.layers.Layer):
    """Causal self-attention and a feed-forward layer, each added to what comes in (see ``models.gpt``).

    (batch, time, width) -> the same. Positions are rotary (Su et al. 2021), so only distances count.

    Args:
        heads: of attention; the width must divide into as many parts of even size.
        expansion: units of the hidden layer, as a multiple of the width.
        dropout: of what attention and the feed-forward layer add, in steps of 1/256.
    """

    def __init__(self, heads: int, expansion: int = 4, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.expansion, self.dropout = heads, expansion, dropout
        self.seed_generator = keras.random.SeedGenerator()

    def build(self, input_shape):
        embedding_dim = input_shape[-1]

        def dense(name, units, initializer, inputs=embedding_dim):
            layer = keras.layers.Dense(
                units, use_bias=False, kernel_initializer=initializer, name=name, dtype=self.dtype_policy
            )
            layer.build((None, inputs))
            return layer

        self.attend = dense(
            "attend", 3 * embedding_dim, keras.initializers.RandomNormal(stddev=0.5 * embedding_dim**-0.5)
        )
        self.project = dense("project", embedding_dim, "zeros")
        self.expand = dense(
            "expand", self.expansion * embedding_dim, keras.initializers.RandomNormal(stddev=0.5 * embedding_dim**-0.5)
        )
        self.reduce = dense("reduce", embedding_dim, "zeros", self.expansion * embedding_dim)

    def call(self, x, training=False):
        return self._finish(x, self._attended(x, None)[0], training)

    def read(self, x, first):
        """As a call, where each row begins at place ``first``; also returns keys and values (batch, heads, time, d)."""
        attended, kept = self._attended(x, first)
        return self._finish(x, attended, False), kept

    def advance(self, x, kept, place, first):
        """Take in one more token (batch, width) at ``place`` of the window, with the keys and values kept so far."""
        batch, embedding_dim = x.shape
        query, key, value = self._heads(x[:, None], place)
        keys, values = (
            keras.ops.slice_update(old, (0, 0, place, 0), new) for old, new in zip(kept, (key, value), strict=True)
        )
        places = tf.range(keys.shape[2])
        seen = (places <= place) & (places >= first[:, None])  # (batch, time)
        attended = _attend(query, keys, values, seen[:, None, None])
        return self._finish(x, tf.reshape(attended, (batch, embedding_dim)), False), (keys, values)

    def _attended(self, x, first):
        batch, time, embedding_dim = tf.unstack(tf.shape(x))
        batch, time, embedding_dim = (
            fixed or now for fixed, now in zip(x.shape, (batch, time, embedding_dim), strict=True)
        )
        query, key, value = self._heads(x)
        places = tf.range(time)

        def block(begin, end):
            """What the places from ``begin`` to ``end`` see of those before ``end``: the rest is not computed."""
            seen = places[None, None, None, :end] <= places[begin:end, None]  # (1, 1, to, from)
            if first is not None:
                seen &= places[:end] >= first[:, None, None, None]
            return _attend(query[:, :, begin:end], key[:, :, :end], value[:, :, :end], seen)

        ends = [*range(BLOCK, time, BLOCK), time] if isinstance(time, int) else [time]
        attended = [block(begin, end) for begin, end in zip([0, *ends], ends, strict=False)]
        attended = tf.transpose(tf.concat(attended, axis=2), (0, 2, 1, 3))
        return tf.reshape(attended, (batch, time, embedding_dim)), (key, value)

    def _heads(self, x, place=None):
        """Queries, keys and values (batch, heads, time, d) of the places from 0 on, or of the one ``place``."""
        batch, time = (fixed or now for fixed, now in zip(x.shape[:2], tf.unstack(tf.shape(x)[:2]), strict=True))
        each = x.shape[-1] // self.heads
        places = tf.range(time) if place is None else place[None]
        rates = (10_000.0 ** (-np.arange(0, each, 2) / each)).astype("float32")
        angles = tf.cast(places, tf.float32)[:, None] * rates
        cos, sin = (tf.cast(turn(angles), x.dtype)[:, None] for turn in (tf.cos, tf.sin))

        def turned(vectors):
            one, two = tf.split(_unit(vectors), 2, axis=-1)
            return tf.concat([one * cos - two * sin, two * cos + one * sin], axis=-1)

        parts = tf.split(self.attend(_unit(x)), 3, axis=-1)
        query, key, value = (tf.reshape(part, (batch, time, self.heads, each)) for part in parts)
        return (tf.transpose(part, (0, 2, 1, 3)) for part in (turned(query) * each**-0.5, turned(key), value))

    def _finish(self, x, attended, training):
        x += self._dropped(self.project(attended), training)
        hidden = tf.square(tf.nn.relu(self.expand(_unit(x))))
        return x + self._dropped(self.reduce(hidden), training)

    def _dropped(self, x, training):
        """Dropout with four bytes of each random number: drawing them would take a quarter of a step."""
        if not (training and self.dropout):
            return x
        batch, time, embedding_dim = tf.unstack(tf.shape(x))
        seed = tf.cast(self.seed_generator.next(), tf.int32)
        numbers = tf.random.stateless_uniform((batch, time, embedding_dim // 4 + 1), seed, None, None, tf.uint32)
        bytes_ = tf.reshape(tf.bitcast(numbers, tf.uint8), (batch, time, -1))[..., :embedding_dim]
        dropped = round(256 * self.dropout)
        return tf.where(tf.cast(bytes_, tf.int32) >= dropped, x * (256 / (256 - dropped)), tf.zeros_like(x))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        own = {"heads": self.heads, "expansion": self.expansion, "dropout": self.dropout}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="dltoolkit")
class MemberRows(keras.layers.Layer):
    """What one of several networks that answer together sees: of a training batch only its own rows, else everything.

    Member 0 of 2 takes the rows 0, 2, 4, …, so that replicas with parts of a batch deal it out alike.

    Args:
        member: which one, from 0 on.
        members: how many there are; the rows of a training batch must divide by it.
    """

    def __init__(self, member: int, ensemble_size: int, **kwargs):
        super().__init__(**kwargs)
        self.member, self.ensemble_size = member, ensemble_size

    def call(self, x, training=False):
        return x[self.member :: self.ensemble_size] if training else x

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "member": self.member, "ensemble_size": self.ensemble_size}


@keras.saving.register_keras_serializable(package="dltoolkit")
class MemberMean(keras.layers.Layer):
    """The answer of several networks: a list of logits, one (batch, time, vocabulary) of each member -> the same once.

    It is the logarithm of the mean of their probabilities; in training, where each has seen rows of its own
    (:class:`MemberRows`), it is their logits in the order of the batch.
    """

    def call(self, logits, training=False):
        if not training:
            return mean_of_members(logits)
        rows = tf.stack(logits, axis=1)  # (batch / members, members, time, vocabulary)
        return tf.reshape(rows, tf.concat([[-1], tf.shape(rows)[2:]], 0))

    def compute_output_shape(self, input_shape):
        return input_shape[0]


def mean_of_members(logits):
    """The logarithm of the mean probabilities of several logits (…, vocabulary)."""
    return tf.reduce_logsumexp(tf.nn.log_softmax(tf.stack(logits)), axis=0) - np.log(len(logits)).astype("float32")


def _attend(query, key, value, seen):
    """Values weighted by how queries match keys, (batch, heads, to, d), where ``seen`` allows it."""
    scores = tf.matmul(query, key, transpose_b=True)
    return tf.matmul(tf.nn.softmax(tf.where(seen, scores, tf.constant(-1e9, scores.dtype))), value)


def _unit(x):
    """Vectors brought to a root mean square of one (Zhang & Sennrich 2019)."""
    return x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), axis=-1, keepdims=True) + 1e-6)
