"""Text classifiers as Keras functional models: token IDs of words or n-grams in, logits out.

The token IDs are those of a ``Vocabulary``: 0 is padding at the end of a text, 1 is an unknown word.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

from dltoolkit.errors import UserError, did_you_mean
from dltoolkit.models.text.layers import (
    MeanMaxPooling,
    NaiveBayesBag,
    PositionEmbedding,
    ReverseSequence,
    WordEmbedding,
)

FAMILIES = ("ngram", "cnn", "lstm", "gru", "rnn", "transformer")
KERNEL_SIZES = (3, 4, 5)  # words that the filters of cnn read, as in Kim (2014)
HEADS = 4  # attention heads of transformer
NGRAM_WEIGHTS = "ngram_weights"  # name of the embedding of ngram after its conversion to Keras' own layers
INITIAL_ENTRIES = 4.0  # initial weight of ngram times the mean number of entries of a text; naive Bayes has all of them


def build(
    family: str,
    vocab_size: int,
    classes: int,
    *,
    max_length: int,
    embedding_dim: int | None = None,
    units: int | None = None,
    layers: int | None = None,
    dropout: float | None = None,
) -> keras.Model:
    """Return an untrained classifier.

    Args:
        family: One of :data:`FAMILIES`.
        vocab_size: Number of token IDs, including padding and unknown words.
        classes: Number of logits.
        max_length: Maximum number of words of a text, which ``transformer`` has position embeddings for.
        embedding_dim: Size of the word embeddings; ``ngram`` ignores it.
        units: Filters per kernel size of ``cnn``, units per direction of ``lstm``, ``gru`` and ``rnn``, or hidden units
            of the MLPs of ``transformer``; ``ngram`` ignores it.
        layers: Number of recurrent layers or transformer blocks; ``ngram`` and ``cnn`` ignore it.
        dropout: Dropout rate of the features before the logits; words are dropped at half this rate, and the entries of
            ``ngram`` at this rate. The default depends on the family.

    Returns:
        A functional model named after the family: int32 (batch, time) -> float32 logits (batch, classes).

    Raises:
        UserError: If the family is unknown, or there are fewer than two classes.
    """
    families: dict[str, Callable] = {
        "ngram": _ngram,
        "cnn": _cnn,
        "lstm": _recurrent(keras.layers.LSTM),
        "gru": _recurrent(keras.layers.GRU),
        "rnn": _recurrent(keras.layers.SimpleRNN),
        "transformer": _transformer,
    }
    if family not in families:
        near = did_you_mean(family, FAMILIES)
        raise UserError(f"There is no network family '{family}'; use one of {', '.join(FAMILIES)}.{near}")
    if classes < 2:
        raise UserError(f"A classifier needs at least two classes, not {classes}.")
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    options = {"embedding_dim": embedding_dim, "units": units, "layers": layers, "dropout": dropout}
    options = {name: value for name, value in options.items() if value is not None}
    logits = families[family](token_ids, vocab_size, classes, max_length=max_length, **options)
    return keras.Model(token_ids, logits, name=family)


def set_naive_bayes(model: keras.Model, ratios: np.ndarray, entries_per_text: float) -> None:
    """Initialize an ngram model as a naive Bayes classifier, from which training continues.

    Args:
        model: A model of :func:`build`.
        ratios: Log-count ratios, float (vocab_size, classes).
        entries_per_text: Mean number of entries of a text. Naive Bayes is overconfident for long texts, because
            overlapping n-grams repeat each other, so that the initial weight is inversely proportional to it.
    """
    layer = model.get_layer("logits")
    layer.ratio.assign(ratios)
    layer.weight.assign(keras.ops.full(layer.weight.shape, INITIAL_ENTRIES / max(INITIAL_ENTRIES, entries_per_text)))


def ngram_weights(model: keras.Model) -> np.ndarray:
    """Return the weight of each entry in the logits of a trained ngram model, float (vocab_size, classes).

    Args:
        model: An ngram model of Keras' own layers, as ``training.fit.fit`` returns it.
    """
    return model.get_layer("logits").get_layer(NGRAM_WEIGHTS).get_weights()[0]


def _logits(x, classes, dropout):
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    return keras.layers.Dense(classes, dtype="float32", name="logits")(x)


def _embed(token_ids, vocab_size, embedding_dim, dropout):
    """Return word embeddings (batch, time, embedding_dim) with word dropout, and the lengths of the texts (batch,)."""
    lengths = keras.ops.sum(keras.ops.cast(keras.ops.not_equal(token_ids, 0), "int32"), axis=1)
    initializer = keras.initializers.RandomNormal(stddev=0.1)
    x = WordEmbedding(vocab_size, embedding_dim, embeddings_initializer=initializer, name="embedding")(token_ids)
    return keras.layers.Dropout(dropout, noise_shape=(None, None, 1), name="word_dropout")(x), lengths


def _ngram(token_ids, vocab_size, classes, *, dropout=0.3, **_):
    """Return logits that are linear in the n-grams of a text."""
    return NaiveBayesBag(vocab_size, classes, dropout, dtype="float32", name="logits")(token_ids)


def _cnn(token_ids, vocab_size, classes, *, embedding_dim=128, units=100, dropout=0.5, **_):
    """Return logits from the maximum of each filter over the text (Kim 2014)."""
    x, _ = _embed(token_ids, vocab_size, embedding_dim, dropout / 2)
    # Every filter reads padding alone once, so that more padding changes nothing, and a text may have a single word
    x = keras.layers.ZeroPadding1D((0, max(KERNEL_SIZES)), name="padding")(x)
    pooled = [
        keras.layers.GlobalMaxPooling1D(name=f"max_{size}")(
            keras.layers.Conv1D(units, size, activation="relu", name=f"conv_{size}")(x)
        )
        for size in KERNEL_SIZES
    ]
    return _logits(keras.layers.Concatenate(name="pooled")(pooled), classes, dropout)


def _recurrent(layer: type[keras.layers.Layer]) -> Callable:
    def logits(token_ids, vocab_size, classes, *, embedding_dim=64, units=64, layers=1, dropout=0.5, **_):
        """Return logits from the mean and the maximum of the outputs of bidirectional recurrent layers."""
        x, lengths = _embed(token_ids, vocab_size, embedding_dim, dropout / 2)
        for i in range(1, layers + 1):
            forward = layer(units, return_sequences=True, name=f"forward_{i}")(x)
            backward = layer(units, return_sequences=True, name=f"backward_{i}")(ReverseSequence()([x, lengths]))
            backward = ReverseSequence()([backward, lengths])
            x = keras.layers.Concatenate(name=f"bidirectional_{i}")([forward, backward])
        return _logits(MeanMaxPooling(name="pooled")([x, lengths]), classes, dropout)

    return logits


def _transformer(token_ids, vocab_size, classes, *, max_length, embedding_dim=64, units=256, layers=1, dropout=0.5):
    """Return logits of a transformer encoder (Vaswani et al. 2017) with pre-normalization (Xiong et al. 2020)."""
    x, lengths = _embed(token_ids, vocab_size, embedding_dim, dropout / 2)
    x = PositionEmbedding(max_length, name="position")(x)
    attention_mask = keras.ops.expand_dims(keras.ops.not_equal(token_ids, 0), 1)  # (batch, 1, time)
    for i in range(1, layers + 1):
        y = keras.layers.LayerNormalization(name=f"attention_norm_{i}")(x)
        y = keras.layers.MultiHeadAttention(HEADS, max(1, embedding_dim // HEADS), name=f"attention_{i}")(
            y, y, attention_mask=attention_mask
        )
        y = keras.layers.Dropout(dropout, name=f"attention_dropout_{i}")(y)
        x = keras.layers.Add(name=f"attention_add_{i}")([x, y])
        y = keras.layers.LayerNormalization(name=f"mlp_norm_{i}")(x)
        y = keras.layers.Dense(units, activation="gelu", name=f"mlp_in_{i}")(y)
        y = keras.layers.Dense(embedding_dim, name=f"mlp_out_{i}")(y)
        y = keras.layers.Dropout(dropout, name=f"mlp_dropout_{i}")(y)
        x = keras.layers.Add(name=f"block_{i}")([x, y])
    x = keras.layers.LayerNormalization(name="norm")(x)
    return _logits(MeanMaxPooling(name="pooled")([x, lengths]), classes, dropout)
