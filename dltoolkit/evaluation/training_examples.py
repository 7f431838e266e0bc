"""Hashes of the training examples of a run, by which an evaluation on some of them is recognized."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from dltoolkit import files, run_schema

if TYPE_CHECKING:
    from dltoolkit.data.labeled import LabeledSplits
    from dltoolkit.run import Run

FILE = "train_hashes.bin"
SIZE = 8  # bytes of a hash


def save(run: Run, splits: LabeledSplits) -> None:
    """Write the hashes of the contents of the training examples, sorted, as little-endian 64-bit integers."""
    run.write(FILE, splits.train_hashes.astype("<u8").tobytes())


def load(run: Run) -> np.ndarray:
    """Return the hashes that :func:`save` wrote, uint64 (n,); none if the file is missing or damaged."""
    limit = min(SIZE * run.info["data"]["splits"]["train"], run_schema.MAX_BYTES)
    try:
        with files.open_regular(run.path / FILE, follow_links=False) as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(size) if size <= limit else b""
    except OSError:
        content = b""
    return np.frombuffer(content if len(content) % SIZE == 0 else b"", "<u8")
