"""Tables with named columns of images or texts, from files of any supported type."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dltoolkit import data_object
from dltoolkit.data.readers import delimited, table_files
from dltoolkit.data.readers.source import table_suffix
from dltoolkit.errors import UserError, did_you_mean

# Usual names of columns, in order of preference
LABEL_COLUMNS = ("label", "class", "target", "category", "labels", "class_name")
TEXT_LABEL_COLUMNS = (*LABEL_COLUMNS, "sentiment", "polarity", "rating", "stars")
IMAGE_COLUMNS = ("image", "file", "filename", "file_name", "path", "image_path", "filepath", "img", "image_id", "id")
TEXT_COLUMNS = ("text", "sentence", "review", "content", "comment", "tweet", "message", "body", "document")
SPLIT_COLUMNS = ("split", "subset", "fold", "partition", "data_split", "data_set", "data set", "dataset", "set")
USUAL_NAMES = frozenset((*TEXT_LABEL_COLUMNS, *IMAGE_COLUMNS, *TEXT_COLUMNS, *SPLIT_COLUMNS))


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        path: The file, for messages and relative paths.
        columns: The cells of each column by its name, all columns of the same length.
        lines: The line of the file at which each row begins; empty for files that have no lines.
        damaged: Descriptions of the lines that were skipped because they are damaged.
    """

    path: Path
    columns: dict[str, list]
    lines: list[int] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def locate(self, row: int) -> str:
        """Return the place of a row, counted from 0, in words: "Line 3 of a.csv" or "Row 2 of a.parquet"."""
        return f"Line {self.lines[row]} of {self.path}" if self.lines else f"Row {row + 1} of {self.path}"

    @property
    def unnamed(self) -> bool:
        """Whether the columns are called "1", "2", … because the file has no header."""
        return list(self.columns) == delimited.numbered_names(len(self.columns))

    @property
    def is_object(self) -> bool:
        """Whether a Python program holds the table, instead of a file."""
        return str(self.path).startswith(data_object.SCHEME)

    def usual(self, usual_names: Sequence[str]) -> list[str]:
        """Return the columns that have one of these lowercase names in any case, in the order of ``usual_names``."""
        by_lowercase = {name.lower().strip(): name for name in reversed(self.columns)}
        return [by_lowercase[name] for name in usual_names if name in by_lowercase]

    def find(self, column: str | None, usual_names: Sequence[str], meaning: str) -> str:
        """Return the name of a column.

        Args:
            column: Its name, or its position counted from 1; None selects the first of the usual names that exists.
            usual_names: Lowercase names, in order of preference. They are compared without regard to case.
            meaning: "image", "text", "label" or "split", for messages.

        Raises:
            UserError: If there is no such column; the message lists the columns.
        """
        names = list(self.columns)
        if column is None:
            if usual := self.usual(usual_names):
                return usual[0]
        elif column in self.columns:
            return column
        elif str(column).isdigit() and 1 <= int(column) <= len(names):
            return names[int(column) - 1]
        listed = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
        if column is None:
            raise UserError(
                f"{self.path} has no column with a usual name of the {meaning} ({', '.join(usual_names)}). Its columns "
                f"are: {listed}. Select one with --{meaning}-column."
            )
        near = did_you_mean(column, names)
        raise UserError(f"{self.path} has no column '{column}'.{near} Its columns are: {listed}.")


def read_table(
    path: Path, *, header: bool | None = None, encoding: str | None = None, skip_invalid: bool = False
) -> Table:
    """Read one table. Cells of .csv, .tsv and fastText files are strings; those of other files keep their types.

    Args:
        path: A file whose type is one of ``source.TABLE_SUFFIXES``, or a fastText file.
        header: Whether the first line of a .csv or .tsv file, or the first row of an .xlsx file, names the columns;
            None detects it. Without names, the columns are called "1", "2", ….
        encoding: Character encoding of a text file; None stands for UTF-8 or the encoding of its byte order mark.
        skip_invalid: Whether to skip damaged lines of a .csv, .tsv, .jsonl or .json file.

    Raises:
        UserError: If the file is empty, not a table, or in another encoding.
    """
    suffix, damaged = table_suffix(path), [] if skip_invalid else None
    try:
        if suffix in (".csv", ".tsv"):
            table = Table(path, *delimited.read_file(path, header, encoding, USUAL_NAMES, damaged), damaged or [])
        elif suffix in (".jsonl", ".json"):
            table = Table(path, *table_files.read_json(path, encoding, damaged), damaged or [])
        elif suffix == ".xlsx":
            table = Table(path, table_files.read_excel(path, header, USUAL_NAMES))
        elif suffix in (".parquet", ".arrow"):
            table = Table(path, table_files.read_arrow(path))
        else:
            table = Table(path, *table_files.read_fasttext(path, encoding))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    if not len(table):
        raise UserError(f"{path} has no rows.")
    return table


def read_tables(paths: Sequence[Path], **options: Any) -> list[Table]:
    """Read several tables with the same columns (the splits, or the files of one split).

    Args:
        paths: The files.
        options: Options of :func:`read_table`.

    Raises:
        UserError: As in :func:`read_table`, or if a table lacks a column of the first one.
    """
    tables = [read_table(path, **options) for path in paths]
    require_same_columns(tables)
    return tables


def require_same_columns(tables: Sequence[Table]) -> None:
    """Raise a UserError if a table lacks a column of the first one."""
    for table in tables[1:]:
        if missing := [name for name in tables[0].columns if name not in table.columns]:
            raise UserError(f"{table.path} lacks the column '{missing[0]}' that {tables[0].path} has.")
