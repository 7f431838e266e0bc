"""Lists of numbers of different lengths in one array, as in ``tf.RaggedTensor``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

HEAD_FRACTION = 0.25  # part of a truncated row that is its beginning; the rest is its end (after Sun et al. 2019)


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths.

    Attributes:
        values: All rows, one after the other, int32.
        row_splits: Begin of each row in ``values`` and the end of the last row, int64 (rows + 1,).
        truncated: Number of rows whose middle was removed.
    """

    values: np.ndarray
    row_splits: np.ndarray
    truncated: int = 0

    @classmethod
    def from_row_lengths(cls, values: np.ndarray, lengths: np.ndarray, truncated: int = 0) -> Ragged:
        """Return rows of the given lengths."""
        return cls(values, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), truncated)

    def __len__(self) -> int:
        return len(self.row_splits) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Length of each row, int64 (rows,)."""
        return np.diff(self.row_splits)

    def take(self, rows: np.ndarray) -> Ragged:
        """Return some of the rows, in the order of their indices."""
        lengths = self.lengths[rows]
        row_splits = np.concatenate([[0], np.cumsum(lengths)])
        indices = np.arange(row_splits[-1]) + np.repeat(self.row_splits[:-1][rows] - row_splits[:-1], lengths)
        return Ragged(self.values[indices], row_splits)

    def sort_by_length(self, rows: np.ndarray) -> np.ndarray:
        """Return indices of rows, the shortest row first, so that batches of neighbors contain little padding."""
        return rows[np.argsort(self.lengths[rows], kind="stable")]

    def truncate_middle(self, max_length: int) -> Ragged:
        """Return the rows without the middle of those that are longer than ``max_length``."""
        lengths = self.lengths
        if lengths.max(initial=0) <= max_length:
            return self
        head = int(HEAD_FRACTION * max_length)
        position = np.arange(len(self.values)) - np.repeat(self.row_splits[:-1], lengths)
        remaining = np.repeat(lengths, lengths) - position
        is_short = np.repeat(lengths <= max_length, lengths)
        selected = (position < head) | (remaining <= max_length - head) | is_short
        truncated = int((lengths > max_length).sum())
        return Ragged.from_row_lengths(self.values[selected], np.minimum(lengths, max_length), truncated)

    def to_padded(self) -> np.ndarray:
        """Return an array int32 (rows, maximum length, at least 1) with zeros after the end of each row."""
        lengths = self.lengths
        padded = np.zeros((len(self), max(1, int(lengths.max(initial=0)))), np.int32)
        padded[np.arange(padded.shape[1]) < lengths[:, None]] = self.values
        return padded
