"""The classifier of texts of a run, with the reading of its texts as in training."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit import progress
from dltoolkit.data.readers import source
from dltoolkit.data.text import dataset as text
from dltoolkit.data.text import inputs
from dltoolkit.data.text.inputs import Meaning
from dltoolkit.data.text.words import TokenizedTexts
from dltoolkit.errors import UserError
from dltoolkit.evaluation import predictor
from dltoolkit.evaluation.predictor import Predictor

if TYPE_CHECKING:
    from dltoolkit.data.text.encoders import TextEncoder
    from dltoolkit.run import Run

PREDICTION_BATCH_SIZE = 1024  # texts that are classified together


def is_known(token_ids: np.ndarray, encoder: TextEncoder) -> np.ndarray:
    """Return whether each row of token IDs (n, time), padded with 0, holds a token that says something, bool (n,)."""
    return ~np.isin(token_ids, [0, *encoder.unknown_token_ids, *encoder.special_token_ids]).all(axis=1)


class TextPredictor(Predictor):
    """The classifier of texts of a run.

    A text is a ``str``, whatever it holds, or bytes in UTF-8; a file with one text is a ``pathlib.Path``.

    Args:
        run: Run of a text classifier.
        encoder: Converts texts into the token IDs that the model reads.
    """

    noun = "text"

    def __init__(self, run: Run, encoder: TextEncoder):
        super().__init__(run, PREDICTION_BATCH_SIZE)
        self.encoder = encoder
        self.encoding: str | None = None  # character encoding of files
        self._warned_of_truncation = False

    def read(self, item: Any) -> str:
        """Return the text of an input."""
        if hasattr(item, "__array__") and not isinstance(item, str | bytes):
            array = predictor.to_numpy(item)
            item = array.item() if array.ndim == 0 else item
        item = bytes(item) if isinstance(item, bytearray | memoryview) else item
        self.check_type(item, (str, bytes, os.PathLike))
        if isinstance(item, os.PathLike):
            path = Path(item)
            if path.is_dir():
                raise UserError("a folder, not a file with one text")
            if source.table_suffix(path):
                raise UserError("a table, not a file with one text: read it, and give its texts")
        return text.read_text(item, self.encoding if isinstance(item, os.PathLike) else None)

    def stack(self, values: list[str]) -> np.ndarray:
        """Return token IDs, int32 (n, time), padded with 0; a warning says once that texts are truncated."""
        if not values:
            return np.empty((0, 1), np.int32)
        token_ids = self.encoder(TokenizedTexts(values))
        if token_ids.truncated and not self._warned_of_truncation:
            self._warned_of_truncation = True
            limit = f"{self.encoder.max_length:,} {self.encoder.unit}"
            progress.warn(f"Some texts are longer than the {limit} that the model reads; their middle is left out.")
        return token_ids.to_padded()

    def is_known(self, batch: np.ndarray) -> np.ndarray:
        """Return whether each text has a word that the training texts, or the texts of pretraining, contain."""
        return is_known(batch, self.encoder)

    def split_array(self, array: np.ndarray) -> tuple[Iterable[Any], bool]:
        if array.ndim == 0:
            return [array.item()], True
        column = array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)
        return (array.ravel().tolist() if column else array), False

    def expand(self, words: Iterable[Any], text_column: str | None = None, meaning: Meaning = "auto") -> Iterator[Any]:
        return inputs.expand(words, text_column=text_column, meaning=meaning, encoding=self.encoding)
