"""Detection of the task, image or text classification, from the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from PIL import Image

from dltoolkit.data.image import decode
from dltoolkit.data.readers import objects, tables, tfds
from dltoolkit.data.readers.source import Source, list_files
from dltoolkit.data.text.listing import TEXTS

Task = Literal["image", "text"]


def detect(source: Source) -> Task:
    """Return the task of a source from the names of its files, the first row of its table or its TFDS features.

    Raises:
        UserError: If the source cannot be read.
    """
    if source.kind == "folder":
        suffixes = [Path(file.path).suffix.lower() for file in list_files(source.path)]
        images = sum(suffix in decode.SUFFIXES for suffix in suffixes)
        return "image" if images >= sum(suffix in TEXTS.suffixes for suffix in suffixes) else "text"
    if source.kind == "table":
        table = tables.read_table(next(iter(source.splits.values()), [source.path])[0])
        return "image" if any(_is_image(cells[0]) for cells in table.columns.values()) else "text"
    if source.kind == "object":
        return "image" if any(_is_image(cell) for cell in objects.first_example(source)) else "text"
    if source.kind == "tfds":
        return "text" if tfds.contains_texts(source.reference) else "image"
    return "text" if source.kind == "text" or source.reference in ("reviews", "python-docs") else "image"


def _is_image(cell: Any) -> bool:
    if isinstance(cell, bytes | dict | Image.Image) or getattr(cell, "ndim", 0) > 1:
        return True
    return Path(str(cell)[:300].strip()).suffix.lower() in decode.SUFFIXES
