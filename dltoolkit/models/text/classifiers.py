"""Text classifiers as Keras functional models: numbers of words or n-grams in, logits out.

The numbers are those of a ``Vocabulary``: 0 is padding, at the end of a text, 1 an unknown word.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

from dltoolkit.errors import UserError, did_you_mean
from dltoolkit.models.text.layers import MeanAndMax, NaiveBayesBag, PositionEmbedding, Reverse, WordEmbedding

FAMILIES = ("ngram", "cnn", "lstm", "gru", "rnn", "transformer")
WINDOWS = (3, 4, 5)  # words that the filters of cnn see
HEADS = 4
EVIDENCE = 4.0  # entries whose full ratios a text's logits begin with


def build(
    family: str,
    vocabulary_size: int,
    classes: int,
    *,
    longest: int,
    embedding_dim: int | None = None,
    units: int | None = None,
    layers: int | None = None,
    dropout: float | None = None,
) -> keras.Model:
    """Return an untrained classifier.

    Args:
        family: one of :data:`FAMILIES`.
        vocabulary_size: how many numbers there are, padding and unknown included.
        classes: number of logits.
        longest: words of the longest text (for the positions of ``transformer``).
        embedding: length of a word's vector; of no effect in ``ngram``.
        units: filters of each window in cnn, units of each direction in rnn, lstm and gru, units of the hidden layer
            of a transformer's blocks; of no effect in ``ngram``.
        layers: recurrent layers or transformer blocks; of no effect in ``ngram`` and ``cnn``.
        dropout: share of the words (in ngram: entries) and of the features before the logits that training drops.

    Returns:
        A functional model named after the family: int32 (batch, words) -> float32 logits (batch, classes).

    Raises:
        UserError: for an unknown family.
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
    numbers = keras.Input((None,), dtype="int32", name="words")
    options = {"embedding_dim": embedding_dim, "units": units, "layers": layers, "dropout": dropout, "longest": longest}
    given = {name: value for name, value in options.items() if value is not None}
    return keras.Model(numbers, families[family](numbers, vocabulary_size, classes, **given), name=family)


def set_naive_bayes(model: keras.Model, ratios: np.ndarray, entries_per_text: float) -> None:
    """Make an ngram model a naive Bayes classifier, from which training goes on; call before training.

    Args:
        model: as :func:`build` made it.
        ratios: log-count ratios, float (vocabulary size, classes).
        entries_per_text: how many a text has on average. Entries that overlap say the same several times, so that
            naive Bayes is far too sure of long texts: the weights begin in inverse proportion.
    """
    layer = model.get_layer("logits")
    layer.ratio.assign(ratios)
    layer.weight.assign(keras.ops.full(layer.weight.shape, EVIDENCE / max(EVIDENCE, entries_per_text)))


def weights(model: keras.Model) -> np.ndarray:
    """Return what each entry adds to the logits of an ngram model, float (vocabulary size, classes)."""
    layer = model.get_layer("logits")
    return keras.ops.convert_to_numpy(layer.ratio * layer.weight)


def _logits(x, classes, dropout):
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    return keras.layers.Dense(classes, dtype="float32", name="logits")(x)


def _embedded(numbers, size, embedding_dim, dropout):
    """Vectors of the words (batch, time, embedding), some dropped in training, and the texts' lengths (batch,)."""
    lengths = keras.ops.sum(keras.ops.cast(keras.ops.not_equal(numbers, 0), "int32"), axis=1)
    initializer = keras.initializers.RandomNormal(stddev=0.1)
    x = WordEmbedding(size, embedding_dim, embeddings_initializer=initializer, name="embedding")(numbers)
    return keras.layers.Dropout(dropout, noise_shape=(None, None, 1), name="word_dropout")(x), lengths


def _ngram(numbers, size, classes, *, dropout=0.3, **_):
    """Linear in the n-grams that occur, from naive Bayes' weights on."""
    return NaiveBayesBag(size, classes, dropout, dtype="float32", name="logits")(numbers)


def _cnn(numbers, size, classes, *, embedding_dim=128, units=100, dropout=0.5, **_):
    """Kim (2014): filters over three, four and five words, each one's largest answer in the text."""
    x, _ = _embedded(numbers, size, embedding_dim, dropout / 2)
    # Every filter sees padding alone once, so that more padding changes nothing, and a text of one word is answered.
    x = keras.layers.ZeroPadding1D((0, max(WINDOWS)), name="room")(x)
    found = [
        keras.layers.GlobalMaxPooling1D(name=f"most_{window}")(
            keras.layers.Conv1D(units, window, activation="relu", name=f"window_{window}")(x)
        )
        for window in WINDOWS
    ]
    return _logits(keras.layers.Concatenate(name="found")(found), classes, dropout)


def _recurrent(kind: type[keras.layers.Layer]) -> Callable:
    def network(numbers, size, classes, *, embedding_dim=64, units=64, layers=1, dropout=0.5, **_):
        """One or more recurrent layers in both directions, and the mean and maximum of what they say."""
        x, lengths = _embedded(numbers, size, embedding_dim, dropout / 2)
        for i in range(layers):
            onward = kind(units, return_sequences=True, name=f"onward_{i + 1}")(x)
            backward = kind(units, return_sequences=True, name=f"backward_{i + 1}")(Reverse()([x, lengths]))
            x = keras.layers.Concatenate(name=f"both_{i + 1}")([onward, Reverse()([backward, lengths])])
        return _logits(MeanAndMax(name="pooled")([x, lengths]), classes, dropout)

    return network


def _transformer(numbers, size, classes, *, longest, embedding_dim=64, units=256, layers=1, dropout=0.5):
    """An encoder (Vaswani et al. 2017) with the normalisation before each part (Xiong et al. 2020)."""
    x, lengths = _embedded(numbers, size, embedding_dim, dropout / 2)
    x = PositionEmbedding(longest, name="position")(x)
    there = keras.ops.expand_dims(keras.ops.not_equal(numbers, 0), 1)  # (batch, 1, time)
    for i in range(1, layers + 1):
        y = keras.layers.LayerNormalization(name=f"attention_norm_{i}")(x)
        y = keras.layers.MultiHeadAttention(HEADS, max(1, embedding_dim // HEADS), name=f"attention_{i}")(
            y, y, attention_mask=there
        )
        x = keras.layers.Add(name=f"attended_{i}")([x, keras.layers.Dropout(dropout, name=f"attention_drop_{i}")(y)])
        y = keras.layers.LayerNormalization(name=f"mlp_norm_{i}")(x)
        y = keras.layers.Dense(units, activation="gelu", name=f"mlp_in_{i}")(y)
        y = keras.layers.Dense(embedding_dim, name=f"mlp_out_{i}")(y)
        x = keras.layers.Add(name=f"block_{i}")([x, keras.layers.Dropout(dropout, name=f"mlp_drop_{i}")(y)])
    x = keras.layers.LayerNormalization(name="norm")(x)
    return _logits(MeanAndMax(name="pooled")([x, lengths]), classes, dropout)
