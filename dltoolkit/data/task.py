"""Detection of the task, image or text classification, from the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from PIL import Image

from dltoolkit.data.image import decode
from dltoolkit.data.options import ReadOptions
from dltoolkit.data.readers import objects, tables, tfds
from dltoolkit.data.readers.file_names import FileFinder
from dltoolkit.data.readers.folders import list_files
from dltoolkit.data.readers.source import Source
from dltoolkit.data.text.listing import TEXTS

Task = Literal["image", "text"]


def detect(source: Source, read: ReadOptions = ReadOptions()) -> Task:
    """Return the task of a source from the names of its files, the first row of its table or its TFDS features.

    Args:
        source: The source.
        read: Options for reading a table.

    Raises:
        UserError: If the source cannot be read.
    """
    if source.kind == "folder":
        suffixes = [Path(file.path).suffix.lower() for file in list_files(source.path)]
        images = sum(suffix in decode.SUFFIXES for suffix in suffixes)
        return "image" if images >= sum(suffix in TEXTS.suffixes for suffix in suffixes) else "text"
    if source.kind == "table":
        path = next(iter(source.splits.values()), [source.path])[0]
        table = tables.read_table(path, header=read.header, encoding=read.encoding, skip_invalid=read.skip_invalid)
        if any(_is_image(cells[0]) for cells in table.columns.values()):
            return "image"
        return "image" if _names_images(table) else "text"
    if source.kind == "object":
        return "image" if any(_is_image(cell) for cell in objects.first_example(source)) else "text"
    if source.kind == "tfds":
        return "text" if tfds.contains_texts(source.reference) else "image"
    return "text" if source.kind == "text" or source.reference in ("reviews", "python-docs") else "image"


def _names_images(table: tables.Table) -> bool:
    """Return whether the first row names an image file without its suffix, and the table has no column of texts."""
    columns = [] if table.usual(tables.TEXT_COLUMNS) else table.usual(tables.IMAGE_COLUMNS)
    names = [str(table.columns[column][0]).strip() for column in columns]
    finder = FileFinder(decode.SUFFIXES)
    return any(name and finder.find(name, table.path.parent).is_file() for name in names)


def _is_image(cell: Any) -> bool:
    if isinstance(cell, dict):  # Hugging Face stores images like this
        return "bytes" in cell or "path" in cell
    if isinstance(cell, bytes | Image.Image) or getattr(cell, "ndim", 0) > 1:
        return True
    return Path(str(cell)[:300].strip()).suffix.lower() in decode.SUFFIXES
