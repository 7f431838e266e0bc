"""Autoregressive decoding: language models that read a prompt once, then one token at a time.

A decoder has two methods. ``prefill`` reads the prompts, and ``decode_step`` reads one more token of every row; both
return the logits of the next token and a state. All rows of a batch end at the same position of a window: shorter
prompts are padded on the left, which changes neither rotary positions nor recurrent states that start later.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import keras
import tensorflow as tf

from dltoolkit.models.language.decoder_layers import DecoderBlock, average_logits
from dltoolkit.models.language.gpt import layer_suffix


def build(model: keras.Model) -> CachedDecoder | EnsembleDecoder | UncachedDecoder:
    """Return the fastest decoder for a language model."""
    names = {layer.name for layer in model.layers}
    if "bigram_embedding" not in names:
        return UncachedDecoder(model)
    return EnsembleDecoder(model) if "ensemble_average" in names else CachedDecoder(model)


class UncachedDecoder:
    """A decoder for any language model, which reads the whole window for each token.

    Args:
        model: Token IDs int32 (batch, time) -> logits (batch, time, vocab_size) that do not depend on later tokens.
    """

    def __init__(self, model: keras.Model):
        self._model = model

    def prefill(
        self, token_ids: tf.Tensor, prompt_start: tf.Tensor, length: tf.Tensor, window: int
    ) -> tuple[tf.Tensor, list]:
        """Read prompts as :meth:`CachedDecoder.prefill` does.

        The state holds the prompts moved to the left end of the window, where the positions of the model begin.
        """
        positions = tf.range(window)[None] + prompt_start[:, None]
        padded = tf.pad(token_ids, [[0, 0], [0, window - token_ids.shape[1]]])
        moved = tf.gather(padded, tf.minimum(positions, window - 1), batch_dims=1)
        moved = tf.where(positions < length, moved, 0)
        return self._logits_at(moved, length - 1 - prompt_start), [moved]

    def decode_step(
        self, token_id: tf.Tensor, state: list, position: tf.Tensor, prompt_start: tf.Tensor
    ) -> tuple[tf.Tensor, list]:
        """Read one more token as :meth:`CachedDecoder.decode_step` does."""
        (token_ids,) = state
        moved_position = position - prompt_start
        is_new = tf.range(token_ids.shape[1])[None] == moved_position[:, None]
        token_ids = tf.where(is_new, token_id[:, None], token_ids)
        return self._logits_at(token_ids, moved_position), [token_ids]

    def _logits_at(self, token_ids: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
        return tf.gather(tf.cast(self._model(token_ids, training=False), tf.float32), positions, batch_dims=1)


class EnsembleDecoder:
    """A decoder for an ensemble, which averages the probabilities of its models.

    Args:
        model: A model of ``gpt.build`` with an ``ensemble_size`` above 1.
    """

    def __init__(self, model: keras.Model):
        ensemble_size = model.get_layer("ensemble_split").ensemble_size
        self._decoders = [CachedDecoder(model, i) for i in range(ensemble_size)]

    def prefill(
        self, token_ids: tf.Tensor, prompt_start: tf.Tensor, length: tf.Tensor, window: int
    ) -> tuple[tf.Tensor, list]:
        """Read prompts as :meth:`CachedDecoder.prefill` does."""
        results = [decoder.prefill(token_ids, prompt_start, length, window) for decoder in self._decoders]
        logits, states = zip(*results, strict=True)
        return average_logits(logits), list(states)

    def decode_step(
        self, token_id: tf.Tensor, state: list, position: tf.Tensor, prompt_start: tf.Tensor
    ) -> tuple[tf.Tensor, list]:
        """Read one more token as :meth:`CachedDecoder.decode_step` does."""
        results = [
            decoder.decode_step(token_id, decoder_state, position, prompt_start)
            for decoder, decoder_state in zip(self._decoders, state, strict=True)
        ]
        logits, states = zip(*results, strict=True)
        return average_logits(logits), list(states)


class CachedDecoder:
    """A decoder that keeps the keys and values of a GPT, or the states of a recurrent model.

    Args:
        model: A model of ``gpt.build``.
        index: Index of the model in its ensemble.
    """

    def __init__(self, model: keras.Model, index: int = 0):
        suffix = layer_suffix(index)
        self._embedding = model.get_layer(f"embedding{suffix}")
        self._bigram_embedding = model.get_layer(f"bigram_embedding{suffix}")
        self._head = model.get_layer(f"logits{suffix}")
        layers = [layer for layer in model.layers if re.fullmatch(rf"(block|layer)_\d+{suffix}", layer.name)]
        self._blocks = [layer for layer in layers if isinstance(layer, DecoderBlock)]
        self._cells = [layer.cell for layer in layers if isinstance(layer, keras.layers.RNN)]
        self._norm: Callable = model.get_layer(f"norm{suffix}") if self._blocks else lambda x: x

    def prefill(
        self, token_ids: tf.Tensor, prompt_start: tf.Tensor, length: tf.Tensor, window: int
    ) -> tuple[tf.Tensor, list]:
        """Read prompts.

        Args:
            token_ids: Prompts, int32 (batch, time). They end before position ``length``; later tokens are ignored.
            prompt_start: Position at which each prompt starts, int32 (batch,).
            length: Number of tokens of the longest prompt, an int32 scalar.
            window: Number of positions, including those of the tokens to be generated.

        Returns:
            Logits of the next token (batch, vocab_size), and the state for :meth:`decode_step`.
        """
        if not self._blocks:
            return self._prefill_recurrent(token_ids, prompt_start, length)
        x = self._embedding(token_ids) + self._bigram_embedding(token_ids)
        state = [token_ids[:, length - 1, None]]
        padding = [[0, 0], [0, 0], [0, window - token_ids.shape[1]], [0, 0]]
        for block in self._blocks:
            x, kv_cache = block.prefill(x, prompt_start)
            state.append(tuple(tf.pad(part, padding) for part in kv_cache))
        return self._head(self._norm(x[:, length - 1])), state

    def _prefill_recurrent(
        self, token_ids: tf.Tensor, prompt_start: tf.Tensor, length: tf.Tensor
    ) -> tuple[tf.Tensor, list]:
        batch, dtype = token_ids.shape[0], self._embedding.compute_dtype
        sizes = [tf.nest.flatten(cell.state_size) for cell in self._cells]
        zeros = [tuple(tf.zeros((batch, size), dtype) for size in cell_sizes) for cell_sizes in sizes]
        state = [tf.zeros((batch, 1), tf.int32), *zeros]

        def read_token(position, logits, state):
            logits, new_state = self.decode_step(token_ids[:, position], state, position, prompt_start)
            started = (position >= prompt_start)[:, None]
            state = tf.nest.map_structure(lambda new, old: tf.where(started, new, old), new_state, state)
            return position + 1, logits, state

        loop_variables = (0, tf.zeros((batch, self._head.units)), state)
        _, logits, state = tf.while_loop(lambda position, *_: position < length, read_token, loop_variables)
        return logits, state

    def decode_step(
        self, token_id: tf.Tensor, state: list, position: tf.Tensor, prompt_start: tf.Tensor
    ) -> tuple[tf.Tensor, list]:
        """Read one more token.

        Args:
            token_id: Token of each row, int32 (batch,).
            state: State that :meth:`prefill` or :meth:`decode_step` returned: the previous token int32 (batch, 1), and
                the KV cache of each block or the state of each recurrent cell.
            position: Position of the token in the window, an int32 scalar.
            prompt_start: As in :meth:`prefill`.

        Returns:
            Logits of the next token (batch, vocab_size), and the new state.
        """
        previous_id, *layer_states = state
        x = self._embedding(token_id) + self._bigram_embedding.embed(previous_id[:, 0], token_id)
        new_state: list = [token_id[:, None]]
        for block, kv_cache in zip(self._blocks, layer_states, strict=False):
            x, kv_cache = block.decode_step(x, kv_cache, position, prompt_start)
            new_state.append(kv_cache)
        for cell, cell_state in zip(self._cells, layer_states, strict=False):
            x, cell_state = cell(x, list(cell_state))
            new_state.append(tuple(cell_state))
        return self._head(self._norm(x)), new_state
