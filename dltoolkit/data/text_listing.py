"""Every source of labelled texts brought to one form: a listing of files, bytes or strings."""

from pathlib import Path
from typing import Any

import numpy as np

from dltoolkit.data import listing, published, tables
from dltoolkit.data.listing import LABEL_COLUMNS, Kind, Listing
from dltoolkit.data.source import Source
from dltoolkit.errors import UserError

TEXT_COLUMNS = ("text", "sentence", "review", "content", "comment", "tweet", "message", "body", "document")
TARGET_COLUMNS = (*LABEL_COLUMNS, "sentiment", "polarity", "rating", "stars")
TEXTS = Kind("text", (".txt",), (".pdf", ".doc", ".docx", ".odt", ".rtf", ".html", ".htm", ".epub"))
BUNDLED = Path(__file__).parent / "bundled"


def list_texts(
    source: Source,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    header: bool | None = None,
    skip_bad: bool = False,
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
            lambda table: columns(table, text_column, label_column),
            _text,
            header=header,
            skip_bad=skip_bad,
        )
    if source.kind == "tfds":
        return _from_tfds(source, published.tfds_set(source.reference, "text", progress))
    raise UserError(
        f"{source.said} holds no labelled texts: give --data a folder of class folders with .txt files, or a table "
        "with a column of texts and one of labels."
    )


def columns(table: tables.Table, text: str | None, label: str | None) -> tuple[str, str]:
    """Return the names of the two columns; in a table without names the texts are the longest cells."""
    names = list(table.columns)
    if names == [str(i + 1) for i in range(len(names))] and len(names) > 1:
        some = {name: cells[:1000] for name, cells in table.columns.items()}
        if text is None:
            text = max((name for name in names if name != label), key=lambda name: sum(len(str(c)) for c in some[name]))
        rest = [name for name in names if name != text]
        if label is None and len(rest) == 1:
            label = rest[0]
    return table.find(text, TEXT_COLUMNS, "text"), table.find(label, TARGET_COLUMNS, "label")


def _text(cell: Any, _: Path, name: str) -> tuple[str, Any]:
    missing = cell is None or cell != cell  # NaN differs from itself
    return name, "" if missing else cell if isinstance(cell, (str, bytes)) else str(cell)


def _from_tfds(source: Source, prepared: published.Prepared) -> Listing:
    splits, warnings = listing.tfds_splits(source, prepared.splits)
    texts: list[bytes] = []
    labels: list[np.ndarray] = []
    for split in splits.values():
        for some, numbers in prepared.batches(split, contents=True, decoded=True):
            texts += some.tolist()
            labels.append(numbers)
    sizes = dict(prepared.splits)
    found = Listing(
        names=[f"{source.name}/{split}[{i}]" for split in splits.values() for i in range(sizes[split])],
        labels=np.concatenate(labels).astype(np.int32),
        classes=prepared.classes,
        items=texts,
        parts=listing.part_numbers([part for part, split in splits.items() for _ in range(sizes[split])]),
        warnings=warnings,
        noun=TEXTS.noun,
    )
    known = np.flatnonzero(found.labels >= 0)
    if len(known) < len(found.names):
        warnings.append(f"{len(found.names) - len(known)} texts of {source.said} have no label and were left out.")
        found = found.take(known)
    return found
