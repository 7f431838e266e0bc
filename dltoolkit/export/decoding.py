"""Decoding with an exported language model, whose state is inputs and outputs of the file."""

from __future__ import annotations

from typing import Any

import numpy as np

from dltoolkit.export.sessions import Session


class ExportedDecoder:
    """A decoder like those of :mod:`dltoolkit.models.language.decoders`, which calls the file once for each text.

    So the numbers of a text do not depend on the other texts of a batch.

    Args:
        session: The loaded file.
        state: Names of the inputs that are outputs of the last call, by their output names; empty if the file reads
            the whole text in each call.
        empty_state: Shape of these inputs before the first token.
        vocab_size: Number of tokens.
    """

    def __init__(self, session: Session, state: dict[str, str], empty_state: dict[str, list[int]], vocab_size: int):
        self._session, self._state, self.vocab_size = session, state, vocab_size
        self._empty = {name: np.zeros(shape, np.float32) for name, shape in empty_state.items()}

    def new_state(self, rows: int, window: int) -> list[Any]:
        """Return the state of each text: its tokens, and the inputs of the next call."""
        return [([], self._empty) for _ in range(rows)]

    def prefill(self, state: list[Any], row: int, token_ids: np.ndarray) -> np.ndarray:
        """Read the prompt of a row, int (time,), and return the logits of the next token (vocab_size,)."""
        state[row] = ([], self._empty)
        return self._read(state, row, [int(token_id) for token_id in token_ids])

    def decode_step(self, state: list[Any], token_ids: np.ndarray) -> np.ndarray:
        """Read one more token of each row, int (rows,), and return the logits of the next token (rows, vocab_size)."""
        return np.stack([self._read(state, row, [int(token_id)]) for row, token_id in enumerate(token_ids)])

    def read(self, token_ids: np.ndarray) -> np.ndarray:
        """Return the logits of the next token after each token of a text, int (time,), as (time, vocab_size)."""
        return self._logits(self.new_state(1, len(token_ids)), 0, [int(token_id) for token_id in token_ids])

    def _read(self, state: list[Any], row: int, new: list[int]) -> np.ndarray:
        """Return the logits after the last of the new tokens of a text, (vocab_size,)."""
        return self._logits(state, row, new)[-1]

    def _logits(self, state: list[Any], row: int, new: list[int]) -> np.ndarray:
        """Return the logits after each token that the file reads, (time, vocab_size), and store the state."""
        earlier, values = state[row]
        inputs = {"token_ids": np.array([new if self._state else [*earlier, *new]], np.int32), **values}
        if self._state:
            inputs["previous_ids"] = np.array([earlier[-1] if earlier else 0], np.int32)
        outputs = self._session.run(inputs)
        state[row] = ([*earlier, *new], {name: outputs[output] for output, name in self._state.items()})
        return outputs["logits"][0]
