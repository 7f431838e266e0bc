"""Layers of text classifiers, registered with Keras as ``dltoolkit>…``."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

MASKED_VALUE = 1e4  # subtracted from padding before a maximum; larger values overflow in float16


@keras.saving.register_keras_serializable(package="dltoolkit")
class NaiveBayesBag(keras.layers.Layer):
    """Logits of a bag of n-grams, weighted by naive Bayes (Wang & Manning 2012).

    Maps token IDs int (batch, entries), with 0 for padding, to logits (batch, classes). Each entry has a fixed
    log-count ratio and a trained weight per class. A logit is the sum of their products over the entries of a text plus
    a bias. With equal weights, this is a naive Bayes classifier. The weight of an entry with a small ratio gets a small
    gradient.

    Args:
        size: Number of token IDs.
        classes: Number of logits.
        dropout: Fraction of the entries of a text that training drops.
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

    def call(self, token_ids, training=False):
        terms = keras.ops.take(self.ratio * self.weight, token_ids, axis=0)  # (batch, entries, classes)
        if training and self.dropout:
            noise_shape = (*keras.ops.shape(token_ids), 1)
            terms = keras.random.dropout(terms, self.dropout, noise_shape=noise_shape, seed=self.seed_generator)
        return keras.ops.sum(terms, axis=1) + self.bias

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.classes)

    def get_config(self):
        config = {"size": self.size, "classes": self.classes, "dropout": self.dropout}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="dltoolkit")
class WordEmbedding(keras.layers.Embedding):
    """Word embedding with zero vectors for padding: int (batch, time) -> (batch, time, units)."""

    def call(self, inputs):
        vectors = super().call(inputs)
        return vectors * keras.ops.cast(inputs != 0, vectors.dtype)[..., None]


@keras.saving.register_keras_serializable(package="dltoolkit")
class PositionEmbedding(keras.layers.Layer):
    """Learned vectors added to the positions: (batch, time, units) -> the same shape, for time up to ``max_length``."""

    def __init__(self, max_length: int, **kwargs):
        super().__init__(**kwargs)
        self.max_length = max_length

    def build(self, input_shape):
        self.position = self.add_weight(
            name="position",
            shape=(self.max_length, input_shape[-1]),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
        )

    def call(self, inputs):
        return inputs + self.position[: keras.ops.shape(inputs)[1]]

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "max_length": self.max_length}


@keras.saving.register_keras_serializable(package="dltoolkit")
class ReverseSequence(keras.layers.Layer):
    """A layer that reverses each sequence within its length; the padding stays at the end.

    Maps [vectors (batch, time, units), lengths int (batch,)] to (batch, time, units). A recurrent layer reads the
    result from the last word to the first without reading padding before a word, so that it needs no mask.
    """

    def call(self, inputs):
        vectors, lengths = inputs
        return tf.reverse_sequence(vectors, lengths, seq_axis=1, batch_axis=0)

    def compute_output_shape(self, input_shape):
        return input_shape[0]


@keras.saving.register_keras_serializable(package="dltoolkit")
class MeanMaxPooling(keras.layers.Layer):
    """Mean and maximum over the words of a text, without padding, concatenated.

    Maps [vectors (batch, time, units), lengths int (batch,)] to (batch, 2 * units).
    """

    def call(self, inputs):
        vectors, lengths = inputs
        mask = tf.sequence_mask(lengths, tf.shape(vectors)[1], dtype=vectors.dtype)[..., None]
        mean = tf.reduce_sum(vectors * mask, axis=1) / tf.maximum(tf.reduce_sum(mask, axis=1), 1)
        return tf.concat([mean, tf.reduce_max(vectors - (1 - mask) * MASKED_VALUE, axis=1)], axis=-1)

    def compute_output_shape(self, input_shape):
        batch, _, units = input_shape[0]
        return (batch, 2 * units)


@keras.saving.register_keras_serializable(package="dltoolkit")
class TokenDropout(keras.layers.Layer):
    """A layer that masks random tokens in training, so that a network does not memorize a few.

    Maps token IDs int (batch, time) to the same shape.

    Args:
        rate: Fraction of the tokens to mask.
        mask_token_id: Token ID that replaces masked tokens.
        special_token_ids: Token IDs that are never masked, besides 0.
    """

    def __init__(self, rate: float, mask_token_id: int, special_token_ids: Sequence[int] = (), **kwargs):
        super().__init__(**kwargs)
        self.rate, self.mask_token_id, self.special_token_ids = rate, mask_token_id, tuple(special_token_ids)
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, token_ids, training=False):
        if not (training and self.rate):
            return token_ids
        masked = keras.random.uniform(keras.ops.shape(token_ids), seed=self.seed_generator) < self.rate
        for special_id in (0, *self.special_token_ids):
            masked &= token_ids != special_id
        return keras.ops.where(masked, self.mask_token_id, token_ids)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        config = {
            "rate": self.rate,
            "mask_token_id": self.mask_token_id,
            "special_token_ids": self.special_token_ids,
        }
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="dltoolkit")
class TransformerInputs(keras.layers.Layer):
    """The inputs of a pretrained transformer, from token IDs in which 0 is padding and 1 + t stands for token t.

    Maps int (batch, time) to a dictionary of ``token_ids``, ``padding_mask`` (1 for a token) and ``segment_ids`` (all
    0), each int32 (batch, time).

    Args:
        padding_id: Token of the transformer for padding.
    """

    def __init__(self, padding_id: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.padding_id = padding_id

    def call(self, token_ids):
        mask = keras.ops.cast(token_ids != 0, "int32")
        tokens = keras.ops.where(token_ids != 0, token_ids - 1, self.padding_id)
        return {"token_ids": tokens, "padding_mask": mask, "segment_ids": keras.ops.zeros_like(mask)}

    def compute_output_spec(self, token_ids):
        names = ("token_ids", "padding_mask", "segment_ids")
        return {name: keras.KerasTensor(token_ids.shape, "int32", name=name) for name in names}

    def get_config(self):
        return {**super().get_config(), "padding_id": self.padding_id}


@keras.saving.register_keras_serializable(package="dltoolkit")
class MaskedMeanPooling(keras.layers.Layer):
    """Mean over the tokens of a text, without padding.

    Maps [vectors (batch, time, units), mask int (batch, time), which is 1 for a token] to (batch, units).
    """

    def call(self, inputs):
        vectors, mask = inputs
        mask = keras.ops.expand_dims(keras.ops.cast(mask, vectors.dtype), -1)
        return keras.ops.sum(vectors * mask, axis=1) / keras.ops.maximum(keras.ops.sum(mask, axis=1), 1)

    def compute_output_shape(self, input_shape):
        batch, _, units = input_shape[0]
        return (batch, units)
