"""Language models as Keras functional models: tokens in, logits of the next token out; and how text is drawn from them.

``gpt`` is a decoder-only transformer (Radford et al. 2018) with rotary positions (Su et al. 2021), root-mean-square
normalisation (Zhang & Sennrich 2019) of the residual stream and of queries and keys (Henry et al. 2020), squared ReLU
(So et al. 2021) and projections that begin at zero. ``lstm``, ``gru`` and ``rnn`` are stacks of recurrent layers. All
of them see each token's own vector plus one of the token and its predecessor together.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from dltoolkit.errors import UserError, did_you_mean
from dltoolkit.models.language.decoder_layers import (
    DecoderBlock,
    MemberMean,
    MemberRows,
    PairEmbedding,
    mean_of_members,
)
from dltoolkit.models.pretrained import keras_hub as hub

FAMILIES = ("gpt", "lstm", "gru", "rnn")
HUB_HEADS = ("num_heads", "num_query_heads", "num_attention_heads")  # what KerasHub's decoders call their heads
HUB_LONGEST = 1024  # tokens that a decoder of KerasHub reads where it sets no bound itself


def build(
    family: str,
    vocabulary_size: int,
    *,
    layers: int,
    embedding_dim: int,
    heads: int = 4,
    dropout: float = 0.0,
    ensemble_size: int = 1,
) -> keras.Model:
    """Return an untrained language model.

    Args:
        family: one of :data:`FAMILIES`.
        vocabulary_size: how many tokens there are.
        layers: decoder blocks or recurrent layers.
        width: length of a token's vector, and units of a recurrent layer.
        heads: of attention, each of ``width / heads`` numbers; of no effect in the recurrent families.
        dropout: of what each block or layer adds.
        members: so many networks learn side by side, each from its own rows of a batch, and answer with the mean of
            their probabilities (Hansen & Salamon 1990).

    Returns:
        A functional model named after the family: int32 (batch, time) -> float32 logits (batch, time, vocabulary).

    Raises:
        UserError: for an unknown family, or a width that the heads do not divide into even parts.
    """
    if family not in FAMILIES:
        near = did_you_mean(family, FAMILIES)
        raise UserError(f"There is no network family '{family}'; use one of {', '.join(FAMILIES)}.{near}")
    if family == "gpt" and embedding_dim % (2 * heads):
        raise UserError(
            f"A width of {embedding_dim} cannot be divided into {heads} heads of even size; try {2 * heads * 16}."
        )
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    size = {"layers": layers, "embedding_dim": embedding_dim, "heads": heads, "dropout": dropout}
    if ensemble_size == 1:
        return keras.Model(tokens, _logits(tokens, family, vocabulary_size, **size), name=family)
    logits = []
    for i in range(ensemble_size):
        rows = MemberRows(i, ensemble_size, name=f"rows{_suffix(i)}")(tokens)
        logits.append(_logits(rows, family, vocabulary_size, **size, suffix=_suffix(i)))
    return keras.Model(tokens, MemberMean(name="mean")(logits), name=family)


def _suffix(member: int) -> str:
    """What the names of a member's layers end in: nothing for the first, so that one network has plain names."""
    return f"_of_{member + 1}" if member else ""


def first_tokens(model: keras.Model) -> keras.KerasTensor:
    """Where the first network of a model that :func:`build` made begins, whose layers have plain names."""
    return model.get_layer("embedding").input


def _logits(
    tokens: keras.KerasTensor,
    family: str,
    vocabulary_size: int,
    *,
    layers: int,
    embedding_dim: int,
    heads: int,
    dropout: float,
    suffix: str = "",
) -> keras.KerasTensor:
    normal = keras.initializers.RandomNormal(stddev=1.0)
    x = keras.layers.Embedding(
        vocabulary_size, embedding_dim, embeddings_initializer=normal, name=f"embedding{suffix}"
    )(tokens)
    x += PairEmbedding(vocabulary_size, embedding_dim, name=f"pair_embedding{suffix}")(tokens)
    for i in range(1, layers + 1):
        if family == "gpt":
            x = DecoderBlock(heads, dropout=dropout, name=f"block_{i}{suffix}")(x)
            continue
        kind = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "rnn": keras.layers.SimpleRNN}[family]
        x = kind(embedding_dim, return_sequences=True, name=f"layer_{i}{suffix}")(x)
        x = keras.layers.Dropout(dropout, name=f"dropout_{i}{suffix}")(x) if dropout else x
    if family == "gpt":
        x = keras.layers.RMSNormalization(name=f"norm{suffix}")(x)
    return keras.layers.Dense(
        vocabulary_size, use_bias=False, kernel_initializer="zeros", dtype="float32", name=f"logits{suffix}"
    )(x)


def of_hub(preset: str) -> tuple[keras.Model, Any, dict[str, int]]:
    """Return a decoder of KerasHub as a language model like those of :func:`build`, its tokenizer and its size.

    The size is ``layers``, ``width``, ``heads``, and ``longest``, how many tokens it can read together.

    Raises:
        UserError: if it cannot be had, or is no language model.
    """
    network, tokenizer = hub.fetch(preset, "Backbone", "Tokenizer")
    head = getattr(network, "token_embedding", None)
    read = {tensor.name for tensor in keras.tree.flatten(network.input)}
    if read != {"token_ids", "padding_mask"} or isinstance(network.output, dict) or not hasattr(head, "tie_weights"):
        raise UserError(f"{preset} is no language model that could go on writing; give a GPT.")
    hub.set_dropout(network, 0.0)
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    hidden = network.call({"token_ids": tokens, "padding_mask": keras.ops.ones_like(tokens)})
    heads = next(getattr(network, name) for name in HUB_HEADS if hasattr(network, name))
    longest = getattr(network, "max_sequence_length", HUB_LONGEST)
    size = {"layers": network.num_layers, "embedding_dim": network.hidden_dim, "heads": heads, "longest": longest}
    return keras.Model(tokens, head(hidden, reverse=True), name=network.name), tokenizer, size


def decoder(model: keras.Model) -> Decoder | MembersDecoder | WindowDecoder:
    """Return what asks a model for one token after the other."""
    names = {layer.name for layer in model.layers}
    if "pair_embedding" not in names:
        return WindowDecoder(model)
    return MembersDecoder(model) if "mean" in names else Decoder(model)


class WindowDecoder:
    """Any language model asked for one token after the other; each time it reads the whole window again.

    Args:
        model: tokens int32 (batch, time) -> logits (batch, time, vocabulary), later tokens of no effect.
    """

    def __init__(self, model: keras.Model):
        self._model = model

    def read(self, tokens: tf.Tensor, first: tf.Tensor, length: tf.Tensor, window: int) -> tuple[tf.Tensor, list]:
        """As :meth:`Decoder.read`; all texts are moved to the window's beginning, where their positions begin."""
        places = tf.range(window)[None] + first[:, None]
        padded = tf.pad(tokens, [[0, 0], [0, window - tokens.shape[1]]])
        moved = tf.gather(padded, tf.minimum(places, window - 1), batch_dims=1)
        moved = tf.where(places < length, moved, 0)
        return self._logits(moved, length - 1 - first), [moved]

    def advance(self, token: tf.Tensor, state: list, place: tf.Tensor, first: tf.Tensor) -> tuple[tf.Tensor, list]:
        """As :meth:`Decoder.advance`."""
        (tokens,) = state
        here = place - first
        tokens = tf.where(tf.range(tokens.shape[1])[None] == here[:, None], token[:, None], tokens)
        return self._logits(tokens, here), [tokens]

    def _logits(self, tokens: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
        return tf.gather(tf.cast(self._model(tokens, training=False), tf.float32), places, batch_dims=1)


class MembersDecoder:
    """Several networks that answer together (see :func:`build`), asked for one token after the other.

    Args:
        model: as :func:`build` made it.
    """

    def __init__(self, model: keras.Model):
        self._members = [Decoder(model, i) for i in range(model.get_layer("rows").ensemble_size)]

    def read(self, tokens: tf.Tensor, first: tf.Tensor, length: tf.Tensor, window: int) -> tuple[tf.Tensor, list]:
        """As :meth:`Decoder.read`."""
        logits, states = zip(*(member.read(tokens, first, length, window) for member in self._members), strict=True)
        return mean_of_members(logits), list(states)

    def advance(self, token: tf.Tensor, state: list, place: tf.Tensor, first: tf.Tensor) -> tuple[tf.Tensor, list]:
        """As :meth:`Decoder.advance`."""
        both = zip(self._members, state, strict=True)
        logits, states = zip(*(member.advance(token, kept, place, first) for member, kept in both), strict=True)
        return mean_of_members(logits), list(states)


class Decoder:
    """A model taken apart, to be asked for one token after the other without repeating what is done already.

    All rows of a batch stand at the same place: shorter prompts are padded on the left, which rotary positions and
    recurrent states that begin late do not notice.

    Args:
        model: as :func:`build` made it.
        member: which of its networks.
    """

    def __init__(self, model: keras.Model, member: int = 0):
        end = _suffix(member)
        self._embedding, self._head = model.get_layer(f"embedding{end}"), model.get_layer(f"logits{end}")
        self._pairs = model.get_layer(f"pair_embedding{end}")
        own = [layer for layer in model.layers if re.fullmatch(rf"(block|layer)_\d+{end}", layer.name)]
        self._blocks = [layer for layer in own if isinstance(layer, DecoderBlock)]
        self._cells = [layer.cell for layer in own if isinstance(layer, keras.layers.RNN)]
        self._norm: Callable = model.get_layer(f"norm{end}") if self._blocks else lambda x: x

    def read(self, tokens: tf.Tensor, first: tf.Tensor, length: tf.Tensor, window: int) -> tuple[tf.Tensor, list]:
        """Read prompts.

        Args:
            tokens: int32 (batch, time); all prompts end before place ``length``, and what stands behind is ignored.
            first: int32 (batch,), where each prompt begins.
            length: int32 scalar.
            window: how many places there are, those to be written included.

        Returns:
            Logits of the next token (batch, vocabulary), and the state that :meth:`advance` goes on from.
        """
        if self._blocks:
            x, state = self._embedding(tokens) + self._pairs(tokens), [tokens[:, length - 1, None]]
            for block in self._blocks:
                x, kept = block.read(x, first)
                room = [[0, 0], [0, 0], [0, window - tokens.shape[1]], [0, 0]]
                state.append(tuple(tf.pad(part, room) for part in kept))
            return self._head(self._norm(x[:, length - 1])), state
        batch, vocabulary = tokens.shape[0], self._head.units
        sizes = [tf.nest.flatten(cell.state_size) for cell in self._cells]
        kind = self._embedding.compute_dtype
        empty = [tuple(tf.zeros((batch, size), kind) for size in some) for some in sizes]
        state = [tf.zeros((batch, 1), tf.int32), *empty]

        def read_one(place, logits, state):
            now, after = self.advance(tokens[:, place], state, place, first)
            begun = (place >= first)[:, None]
            merged = tf.nest.map_structure(lambda new, old: tf.where(begun, new, old), after, state)
            return place + 1, now, merged

        _, logits, state = tf.while_loop(
            lambda place, *_: place < length, read_one, (0, tf.zeros((batch, vocabulary)), state)
        )
        return logits, state

    def advance(self, token: tf.Tensor, state: list, place: tf.Tensor, first: tf.Tensor) -> tuple[tf.Tensor, list]:
        """Read one more token.

        Args:
            token: int32 (batch,).
            state: what :meth:`read` or :meth:`advance` returned.
            place: int32 scalar, where in the window the token stands.
            first: as in :meth:`read`.

        Returns:
            Logits of the next token (batch, vocabulary), and the new state.
        """
        before, *state = state
        x, after = self._embedding(token) + self._pairs.look_up(before[:, 0], token), [token[:, None]]
        for block, kept in zip(self._blocks, state, strict=False):
            x, kept = block.advance(x, kept, place, first)
            after.append(kept)
        for cell, kept in zip(self._cells, state, strict=False):
            x, kept = cell(x, list(kept))
            after.append(tuple(kept))
        return self._head(self._norm(x)), after
