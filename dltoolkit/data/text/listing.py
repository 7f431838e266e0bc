"""Listings of labeled texts from every kind of source, as files, bytes or strings."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dltoolkit.data.options import TextReadOptions
from dltoolkit.data.readers import archives, columns, listing, objects, tables, tfds
from dltoolkit.data.readers.listing import ExampleType, Listing
from dltoolkit.data.readers.source import Source
from dltoolkit.errors import UserError
from dltoolkit.files import open_regular

TEXTS = ExampleType("text", (".txt",), unsupported=(".pdf", ".doc", ".docx", ".odt", ".rtf", ".html", ".htm", ".epub"))
BUNDLED = Path(__file__).parents[1] / "bundled"
LINE_BYTES = 1_000_000  # bytes of the first line of a text file that are searched for tabs
SAMPLED_ROWS = 1000  # rows in which the lengths of the cells are compared to find the column of the texts


@archives.names_archive
def list_texts(
    source: Source, read: TextReadOptions, *, progress: Callable[[str, int, int], None] | None = None
) -> Listing:
    """List the texts of any source with their labels.

    Args:
        source: The source.
        read: Options for reading.
        progress: Function that is called with the task, the number of processed texts and the total.

    Raises:
        UserError: If the source contains no labeled texts, or cannot be read.
    """
    if source.kind == "folder":
        return listing.from_folder(source, TEXTS, label_pattern=read.label_pattern)
    if source.kind == "bundled" and source.reference == "reviews":
        source = replace(source, kind="table", path=BUNDLED / "reviews.tsv")
    if source.kind in ("table", "object"):
        contents = objects.read(source, "text") if source.kind == "object" else ()
        return listing.from_tables(
            source,
            TEXTS,
            read,
            lambda table: _find_columns(table, read),
            lambda cell, _, name: (name, cell_text(cell)),
            contents,
        )
    if source.kind == "tfds":
        return _from_tfds(source, tfds.prepare(source.reference, "text", progress))
    if source.kind == "text" and _has_tab(source.path):
        raise UserError(f"{source.spec} looks like a table that is separated by tabs: rename it to .tsv.")
    raise UserError(
        f"{source.spec} contains no labeled texts: give --data a folder of class folders with .txt files, or a table "
        "with a column of texts and one of labels."
    )


def _has_tab(path: Path) -> bool:
    with open_regular(path) as file:
        return b"\t" in file.readline(LINE_BYTES)


def cell_text(cell: Any) -> str | bytes:
    """Return the text of a table's cell; an empty cell and NaN give an empty text."""
    missing = cell is None or cell != cell  # NaN differs from itself
    return "" if missing else cell if isinstance(cell, (str, bytes)) else str(cell)


def _find_columns(table: tables.Table, read: TextReadOptions) -> tuple[str, str]:
    """Return the columns of the texts and the labels; without a header, the longest cells are the texts."""
    text, label, names = read.text_column, read.label_column, list(table.columns)
    if table.unnamed and len(names) > 1:
        lengths = {name: sum(len(str(cell)) for cell in table.columns[name][:SAMPLED_ROWS]) for name in names}
        if text is None:
            text = max((name for name in names if name != label), key=lengths.__getitem__)
        others = [name for name in names if name != text]
        if label is None and len(others) == 1:
            label = others[0]
    columns.refuse_pairs(table, text)
    return table.find(text, tables.TEXT_COLUMNS, "text"), columns.find_label(table, label, tables.TEXT_LABEL_COLUMNS)


def _from_tfds(source: Source, dataset: tfds.PreparedDataset) -> Listing:
    splits, warnings = listing.select_tfds_splits(source, dataset.split_sizes)
    texts: list[bytes] = []
    labels: list[np.ndarray] = []
    for name in splits.values():
        for batch_texts, batch_labels in dataset.batches(name, contents=True, decoded=True):
            texts += batch_texts.tolist()
            labels.append(batch_labels)
    return listing.from_tfds(source, TEXTS, dataset, splits, np.concatenate(labels), texts, warnings=warnings)
