"""Every source of labelled texts brought to one form: a listing of files, bytes or strings."""

from pathlib import Path
from typing import Any

import numpy as np

from dltoolkit.data.options import TextReadOptions
from dltoolkit.data.readers import listing, tables
from dltoolkit.data.readers import tfds as published
from dltoolkit.data.readers.listing import LABEL_COLUMNS, Kind, Listing
from dltoolkit.data.readers.source import Source
from dltoolkit.errors import UserError

TEXT_COLUMNS = ("text", "sentence", "review", "content", "comment", "tweet", "message", "body", "document")
TARGET_COLUMNS = (*LABEL_COLUMNS, "sentiment", "polarity", "rating", "stars")
TEXTS = Kind("text", (".txt",), (".pdf", ".doc", ".docx", ".odt", ".rtf", ".html", ".htm", ".epub"))
BUNDLED = Path(__file__).parents[1] / "bundled"


def list_texts(
    source: Source,
    read: TextReadOptions,
    *,
    progress: Any = None,
) -> Listing:
    """List the labelled texts of any source.

    Raises:
        UserError: if it holds none, or is not a source of labelled texts.
    """
    if source.kind == "folder":
        return listing.from_folder(source, TEXTS)
    if source.kind == "bundled" and source.reference == "reviews":
        source = Source(source.said, "table", source.name, BUNDLED / "reviews.tsv")
    if source.kind == "table":
        return listing.from_tables(
            source,
            TEXTS,
            read,
            lambda table: _columns(table, read.text_column, read.label_column),
            lambda cell, _, name: (name, cell_text(cell)),
        )
    if source.kind == "tfds":
        return _from_tfds(source, published.tfds_set(source.reference, "text", progress))
    raise UserError(
        f"{source.said} holds no labelled texts: give --data a folder of class folders with .txt files, or a table "
        "with a column of texts and one of labels."
    )


def _columns(table: tables.Table, text: str | None, label: str | None) -> tuple[str, str]:
    """Return the names of the two columns; in a table without names the texts are the longest cells."""
    names = list(table.columns)
    if table.unnamed and len(names) > 1:
        some = {name: cells[:1000] for name, cells in table.columns.items()}
        if text is None:
            text = max((name for name in names if name != label), key=lambda name: sum(len(str(c)) for c in some[name]))
        rest = [name for name in names if name != text]
        if label is None and len(rest) == 1:
            label = rest[0]
    return table.find(text, TEXT_COLUMNS, "text"), table.find(label, TARGET_COLUMNS, "label")


def cell_text(cell: Any) -> str | bytes:
    """Return the text of a table's cell; an empty one where there is nothing, or NaN, in it."""
    missing = cell is None or cell != cell  # NaN differs from itself
    return "" if missing else cell if isinstance(cell, (str, bytes)) else str(cell)


def _from_tfds(source: Source, prepared: published.Prepared) -> Listing:
    splits, warnings = listing.tfds_splits(source, prepared.splits)
    texts: list[bytes] = []
    labels: list[np.ndarray] = []
    for split in splits.values():
        for some, numbers in prepared.batches(split, contents=True, decoded=True):
            texts += some.tolist()
            labels.append(numbers)
    return listing.from_tfds(source, TEXTS, prepared, splits, np.concatenate(labels), texts, warnings=warnings)
