"""Layers of language models in NumPy, which keep their keys and values, or their states, between tokens.

They start within milliseconds, because nothing is compiled. Vectors have the shape (rows, time, units): a prompt is one
row, and a step is one token of each row. NumPy multiplies the rows of a step one by one, so that the numbers of a row
do not depend on the other rows, to the last bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

MASKED_SCORE = -1e9  # attention score of a masked position, whose weight after the softmax is 0
ROTARY_BASE = 10_000.0  # longest wavelength of the rotary embeddings, as in Su et al. (2021)
EPSILON = 1e-6  # added to the mean square, so that a zero vector is not divided by zero


def rms_norm(x: np.ndarray, epsilon: float = EPSILON) -> np.ndarray:
    """Divide vectors by their root mean square (Zhang & Sennrich 2019)."""
    return x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + np.float32(epsilon))


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return the softmax of scores along the last axis."""
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return the logistic function, from the hyperbolic tangent, which does not overflow."""
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def inverse_frequencies(head_dim: int) -> np.ndarray:
    """Return the angles per position of the rotary embeddings, float32 (head_dim / 2,)."""
    return (ROTARY_BASE ** (-np.arange(0, head_dim, 2) / head_dim)).astype("float32")


def hash_bigrams(previous_ids: Any, token_ids: Any, vocab_size: int, buckets: int) -> Any:
    """Return the indices of the vectors of bigrams, from int64 arrays or tensors of equal shapes."""
    bigrams = previous_ids * vocab_size + token_ids
    if vocab_size**2 > buckets:
        bigrams = bigrams * 2_654_435_761 % (1 << 32) % buckets  # Knuth's multiplicative hash
    return bigrams


class CachedBlock:
    """The NumPy counterpart of ``decoder_layers.DecoderBlock``; the state is its keys and values.

    Args:
        weights: Kernels of the queries, keys and values, of the projection, and of both layers of the MLP.
        heads: Number of attention heads.
    """

    def __init__(self, weights: list[np.ndarray], heads: int):
        self._qkv, self._proj, self._fc1, self._fc2 = weights
        self._heads, self._head_dim = heads, len(self._qkv) // heads

    def new_state(self, rows: int, window: int) -> list[np.ndarray]:
        """Return empty keys and values, float32 (rows, heads, window, head_dim) each."""
        return [np.zeros((rows, self._heads, window, self._head_dim), np.float32) for _ in range(2)]

    def prefill(self, x: np.ndarray, state: list[np.ndarray], row: int) -> np.ndarray:
        """Return the outputs for the prompt of a row, (1, time, embedding_dim), and store its keys and values."""
        time = x.shape[1]
        query, key, value = self._project_heads(x, np.arange(time)[None])
        state[0][row, :, :time], state[1][row, :, :time] = key[0], value[0]
        return self._add_branches(x, _attend(query, key, value, np.tri(time, dtype=bool)))

    def decode_step(self, x: np.ndarray, state: list[np.ndarray], lengths: np.ndarray) -> np.ndarray:
        """Return the outputs for one more token of each row, (rows, 1, embedding_dim), at the positions ``lengths``."""
        query, key, value = self._project_heads(x, lengths[:, None])
        keys, values = state
        rows = np.arange(len(x))
        keys[rows, :, lengths], values[rows, :, lengths] = key[:, :, 0], value[:, :, 0]
        attention_mask = np.arange(keys.shape[2]) <= lengths[:, None]  # (rows, window)
        return self._add_branches(x, _attend(query, keys, values, attention_mask[:, None, None]))

    def _project_heads(self, x: np.ndarray, positions: np.ndarray) -> list[np.ndarray]:
        """Return queries, keys and values, each (rows, heads, time, head_dim), for positions (rows or 1, time)."""
        qkv = (rms_norm(x) @ self._qkv).reshape(*x.shape[:2], 3, self._heads, self._head_dim)
        angles = positions.astype(np.float32)[..., None] * inverse_frequencies(self._head_dim)
        cos, sin = np.cos(angles)[:, :, None, None], np.sin(angles)[:, :, None, None]
        x1, x2 = np.split(rms_norm(qkv[:, :, :2]), 2, axis=-1)
        rotated = np.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin], axis=-1)
        query = rotated[:, :, 0] * np.float32(self._head_dim**-0.5)
        return [part.swapaxes(1, 2) for part in (query, rotated[:, :, 1], qkv[:, :, 2])]

    def _add_branches(self, x: np.ndarray, attended: np.ndarray) -> np.ndarray:
        x = x + attended @ self._proj
        return x + np.square(np.maximum(rms_norm(x) @ self._fc1, 0)) @ self._fc2


def _attend(query: np.ndarray, key: np.ndarray, value: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
    """Return the attended values (rows, time, embedding_dim) of the keys that the boolean mask allows."""
    scores = np.where(attention_mask, query @ key.swapaxes(2, 3), np.float32(MASKED_SCORE))
    attended = (softmax(scores) @ value).swapaxes(1, 2)  # (rows, time, heads, head_dim)
    return attended.reshape(*attended.shape[:2], -1)


class CachedRNN:
    """The NumPy counterpart of ``keras.layers.SimpleRNN`` with its default options.

    Args:
        weights: Kernel, recurrent kernel and bias.
    """

    state_arrays = 1

    def __init__(self, weights: list[np.ndarray]):
        self._kernel, self._recurrent_kernel, self._bias = weights

    def new_state(self, rows: int, window: int) -> list[np.ndarray]:
        """Return zeros, float32 (rows, 1, units), for each array of the state."""
        return [np.zeros((rows, 1, len(self._recurrent_kernel)), np.float32) for _ in range(self.state_arrays)]

    def prefill(self, x: np.ndarray, state: list[np.ndarray], row: int) -> np.ndarray:
        """Return the outputs (1, time, units) for the prompt of a row, (1, time, inputs), and store its last state."""
        row_state = self.new_state(1, x.shape[1])
        outputs = [self.decode_step(x[:, position, None], row_state) for position in range(x.shape[1])]
        for array, new in zip(state, row_state, strict=True):
            array[row] = new[0]
        return np.concatenate(outputs, axis=1)

    def decode_step(self, x: np.ndarray, state: list[np.ndarray], lengths: np.ndarray | None = None) -> np.ndarray:
        """Return the outputs (rows, 1, units) for one more token of each row, and update the state."""
        state[:] = self._step(x, *state)
        return state[0]

    def _step(self, x: np.ndarray, hidden: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the new arrays of the state, the first of which is the output."""
        return (np.tanh(x @ self._kernel + hidden @ self._recurrent_kernel + self._bias),)


class CachedLSTM(CachedRNN):
    """The NumPy counterpart of ``keras.layers.LSTM`` with its default options."""

    state_arrays = 2

    def _step(self, x: np.ndarray, hidden: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, ...]:
        gates = x @ self._kernel + hidden @ self._recurrent_kernel + self._bias
        input_gate, forget_gate, candidate, output_gate = np.split(gates, 4, axis=-1)
        cell = sigmoid(forget_gate) * cell + sigmoid(input_gate) * np.tanh(candidate)
        return sigmoid(output_gate) * np.tanh(cell), cell


class CachedGRU(CachedRNN):
    """The NumPy counterpart of ``keras.layers.GRU`` with its default options, which reset after the product."""

    def _step(self, x: np.ndarray, hidden: np.ndarray) -> tuple[np.ndarray, ...]:
        inputs = np.split(x @ self._kernel + self._bias[0], 3, axis=-1)
        recurrent = np.split(hidden @ self._recurrent_kernel + self._bias[1], 3, axis=-1)
        update, reset = sigmoid(inputs[0] + recurrent[0]), sigmoid(inputs[1] + recurrent[1])
        return (update * hidden + (1 - update) * np.tanh(inputs[2] + reset * recurrent[2]),)
