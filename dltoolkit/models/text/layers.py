"""Layers for texts, registered with Keras as ``dltoolkit>…`` so that a saved model finds them again."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="dltoolkit")
class NaiveBayesBag(keras.layers.Layer):
    """Logits from which entries of a vocabulary occur in a text, weighted by naive Bayes (Wang & Manning 2012).

    Each entry has, for each class, a fixed log-count ratio and a trained weight; the logit is the sum of their
    products over the entries of the text, plus a bias. With all weights equal that is the naive Bayes classifier, and
    an entry that says little about a class cannot learn much.

    Entry numbers int (batch, entries), 0 for padding -> (batch, classes).

    Args:
        size: entries of the vocabulary, padding included.
        classes: number of logits.
        dropout: share of a text's entries left out in training.
    """

    def __init__(self, size: int, classes: int, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.size, self.classes, self.dropout = size, classes, dropout
        self.seed_generator = keras.random.SeedGenerator()

    def build(self, input_shape):
        shape = (self.size, self.classes)
        self.ratio = self.add_weight(name="ratio", shape=shape, initializer="zeros", trainable=False)
        self.weight = self.add_weight(name="weight", shape=shape, initializer="ones")
        self.bias = self.add_weight(name="bias", shape=(self.classes,), initializer="zeros")

    def call(self, numbers, training=False):
        evidence = keras.ops.take(self.ratio * self.weight, numbers, axis=0)  # (batch, entries, classes)
        if training and self.dropout:
            evidence = keras.random.dropout(
                evidence, self.dropout, noise_shape=(*keras.ops.shape(numbers), 1), seed=self.seed_generator
            )
        return keras.ops.sum(evidence, axis=1) + self.bias

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.classes)

    def get_config(self):
        own = {"size": self.size, "classes": self.classes, "dropout": self.dropout}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="dltoolkit")
class WordEmbedding(keras.layers.Embedding):
    """Vectors of words, zeros for padding: int (batch, time) -> (batch, time, units)."""

    def call(self, inputs):
        vectors = super().call(inputs)
        return vectors * keras.ops.cast(inputs != 0, vectors.dtype)[..., None]


@keras.saving.register_keras_serializable(package="dltoolkit")
class PositionEmbedding(keras.layers.Layer):
    """Add a learned vector for each place: (batch, time, units) -> the same, time at most ``longest``."""

    def __init__(self, longest: int, **kwargs):
        super().__init__(**kwargs)
        self.longest = longest

    def build(self, input_shape):
        self.position = self.add_weight(
            name="position",
            shape=(self.longest, input_shape[-1]),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
        )

    def call(self, inputs):
        return inputs + self.position[: keras.ops.shape(inputs)[1]]

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "longest": self.longest}


@keras.saving.register_keras_serializable(package="dltoolkit")
class Reverse(keras.layers.Layer):
    """Turn each text around within its own length; padding stays at the end.

    Called with (vectors (batch, time, units), lengths int (batch,)) -> (batch, time, units). A recurrent layer on the
    result reads backwards without ever reading padding before words, so it needs no mask.
    """

    def call(self, inputs):
        vectors, lengths = inputs
        return tf.reverse_sequence(vectors, lengths, seq_axis=1, batch_axis=0)

    def compute_output_shape(self, input_shape):
        return input_shape[0]


@keras.saving.register_keras_serializable(package="dltoolkit")
class MeanAndMax(keras.layers.Layer):
    """The mean and the maximum over the words of a text, padding left out, side by side.

    Called with (vectors (batch, time, units), lengths int (batch,)) -> (batch, 2 * units).
    """

    def call(self, inputs):
        vectors, lengths = inputs
        there = tf.sequence_mask(lengths, tf.shape(vectors)[1], dtype=vectors.dtype)[..., None]
        mean = tf.reduce_sum(vectors * there, axis=1) / tf.maximum(tf.reduce_sum(there, axis=1), 1)
        return tf.concat([mean, tf.reduce_max(vectors - (1 - there) * 1e4, axis=1)], axis=-1)

    def compute_output_shape(self, input_shape):
        batch, _, units = input_shape[0]
        return (batch, 2 * units)


@keras.saving.register_keras_serializable(package="dltoolkit")
class TokenDropout(keras.layers.Layer):
    """Hide tokens of a text in training, so that a few cannot be learned by heart: int (batch, time), the same shape.

    Args:
        rate: share of the tokens that is hidden.
        hidden: the number that stands in their place.
        spared: numbers that are never hidden, beside 0.
    """

    def __init__(self, rate: float, hidden: int, spared: Sequence[int] = (), **kwargs):
        super().__init__(**kwargs)
        self.rate, self.hidden, self.spared = rate, hidden, tuple(spared)
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, numbers, training=False):
        if not (training and self.rate):
            return numbers
        chosen = keras.random.uniform(keras.ops.shape(numbers), seed=self.seed_generator) < self.rate
        for number in (0, *self.spared):
            chosen &= numbers != number
        return keras.ops.where(chosen, self.hidden, numbers)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        own = {"rate": self.rate, "hidden": self.hidden, "spared": self.spared}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="dltoolkit")
class TokenIds(keras.layers.Layer):
    """What transformers read, from numbers in which 0 is padding and 1 + t stands for token t: int (batch, time).

    Returns ``token_ids``, ``padding_mask`` (1 for a token) and ``segment_ids`` (all 0), each int32 (batch, time).

    Args:
        padding: the token that stands for padding.
    """

    def __init__(self, padding: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.padding = padding

    def call(self, numbers):
        there = keras.ops.cast(numbers != 0, "int32")
        tokens = keras.ops.where(numbers != 0, numbers - 1, self.padding)
        return {"token_ids": tokens, "padding_mask": there, "segment_ids": keras.ops.zeros_like(there)}

    def compute_output_spec(self, numbers):
        names = ("token_ids", "padding_mask", "segment_ids")
        return {name: keras.KerasTensor(numbers.shape, "int32", name=name) for name in names}

    def get_config(self):
        return {**super().get_config(), "padding": self.padding}


@keras.saving.register_keras_serializable(package="dltoolkit")
class MaskedMean(keras.layers.Layer):
    """The mean over a text's tokens, padding left out.

    Called with (vectors (batch, time, units), mask int (batch, time), 1 for a token) -> (batch, units).
    """

    def call(self, inputs):
        vectors, mask = inputs
        there = keras.ops.cast(mask, vectors.dtype)[..., None]
        return keras.ops.sum(vectors * there, axis=1) / keras.ops.maximum(keras.ops.sum(there, axis=1), 1)

    def compute_output_shape(self, input_shape):
        batch, _, units = input_shape[0]
        return (batch, units)
