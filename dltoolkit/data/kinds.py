"""Whether data are pictures or texts, seen from the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from dltoolkit.data.image import decode
from dltoolkit.data.readers import source, tables
from dltoolkit.data.readers import tfds as published
from dltoolkit.data.text.listing import TEXTS

Kind = Literal["image", "text"]


def of(src: source.Source) -> Kind:
    """Return what a source holds, from its files' names, a table's first row, or a data set's features.

    Raises:
        UserError: if it cannot be read.
    """
    if src.kind == "folder":
        suffixes = [Path(file.path).suffix.lower() for file in source.files(src.path)]
        pictures = sum(suffix in decode.SUFFIXES for suffix in suffixes)
        return "image" if pictures >= sum(suffix in TEXTS.suffixes for suffix in suffixes) else "text"
    if src.kind == "table":
        table = tables.read_table(next(iter(src.parts.values()), [src.path])[0])
        return "image" if any(_is_picture(cells[0]) for cells in table.columns.values()) else "text"
    if src.kind == "tfds":
        return "text" if published.tfds_holds_texts(src.reference) else "image"
    return "text" if src.kind == "text" or src.reference in ("reviews", "python-docs") else "image"


def _is_picture(cell: Any) -> bool:
    return isinstance(cell, bytes | dict) or Path(str(cell)[:300].strip()).suffix.lower() in decode.SUFFIXES
