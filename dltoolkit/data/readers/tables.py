"""Tables with named columns, from CSV, TSV, JSON Lines or Parquet files, of images and texts alike."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from dltoolkit.errors import UserError, did_you_mean

# Usual names of columns, in order of preference
LABEL_COLUMNS = ("label", "class", "target", "category", "labels", "class_name")
TEXT_LABEL_COLUMNS = (*LABEL_COLUMNS, "sentiment", "polarity", "rating", "stars")
IMAGE_COLUMNS = ("image", "file", "filename", "file_name", "path", "image_path", "filepath", "img")
TEXT_COLUMNS = ("text", "sentence", "review", "content", "comment", "tweet", "message", "body", "document")

MAX_LINE_LENGTH = 100_000_000  # characters; reading a longer line could exhaust the memory
MAX_COLUMN_NAME = 40, 4  # characters and words; longer cells of the first row are data, not names of columns
IMAGE_FILE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif")  # no column is named like these files


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        path: The file, for messages and relative paths.
        columns: The cells of each column by its name, all columns of the same length.
    """

    path: Path
    columns: dict[str, list]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    @property
    def unnamed(self) -> bool:
        """Whether the columns are called "1", "2", … because the file has no header."""
        return list(self.columns) == _numbered_names(len(self.columns))

    def find(self, column: str | None, usual_names: Sequence[str], meaning: str) -> str:
        """Return the name of a column.

        Args:
            column: Its name, or its position counted from 1; None selects the first of the usual names that exists.
            usual_names: Lowercase names, in order of preference. They are compared without regard to case.
            meaning: "image", "text" or "label", for messages.

        Raises:
            UserError: If there is no such column; the message lists the columns.
        """
        names = list(self.columns)
        if column is None:
            by_lowercase = {name.lower().strip(): name for name in reversed(names)}
            for name in usual_names:
                if name in by_lowercase:
                    return by_lowercase[name]
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


def read_table(path: Path, *, header: bool | None = None) -> Table:
    """Read one table. Cells of .csv and .tsv are strings; cells of .jsonl and .parquet keep their types.

    Args:
        path: A .csv, .tsv, .jsonl or .parquet file.
        header: Whether the first line of a .csv or .tsv names the columns; None detects it. Without names, the columns
            are called "1", "2", ….

    Raises:
        UserError: If the file is empty, not a table, or not UTF-8 text.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            table = Table(path, _read_parquet(path))
        elif suffix == ".jsonl":
            table = Table(path, _read_json_lines(path))
        else:
            table = Table(path, _read_separated(path, header))
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text ({_locate_bad_byte(path)}): save it as UTF-8.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    if not len(table):
        raise UserError(f"{path} has no rows.")
    return table


def read_tables(paths: Sequence[Path], *, header: bool | None = None) -> list[Table]:
    """Read several tables with the same columns (the splits, or the files of one split).

    Raises:
        UserError: As in :func:`read_table`, or if a table lacks a column of the first one.
    """
    tables = [read_table(path, header=header) for path in paths]
    for table in tables[1:]:
        if missing := [name for name in tables[0].columns if name not in table.columns]:
            raise UserError(f"{table.path} lacks the column '{missing[0]}' that {tables[0].path} has.")
    return tables


def looks_like_header(first: Sequence[str], rest: Sequence[Sequence[str]]) -> bool:
    """Return whether the first row names the columns instead of being data.

    It is data if a cell is empty, repeated, a number, a path or a long text, or occurs again in its column, as labels
    do.
    """
    cells = [cell.strip() for cell in first]
    if len(set(cells)) < len(cells) or not all(cells):
        return False
    max_characters, max_words = MAX_COLUMN_NAME
    for cell in cells:
        if _is_number(cell) or "/" in cell or "\\" in cell or Path(cell).suffix.lower() in IMAGE_FILE_SUFFIXES:
            return False
        if len(cell) > max_characters or len(cell.split()) > max_words:
            return False
    return not any(cell in {row[i].strip() for row in rest if i < len(row)} for i, cell in enumerate(cells))


def _read_separated(path: Path, header: bool | None) -> dict[str, list]:
    limit = csv.field_size_limit(2**31 - 1)  # a cell may contain a long text
    try:
        rows = _parse_rows(path)
    finally:
        csv.field_size_limit(limit)
    if not rows:
        return {}
    if header is None:
        header = looks_like_header(rows[0], rows[1:])
    names = [name.strip() for name in rows.pop(0)] if header else _numbered_names(len(rows[0]))
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path} has two columns called '{repeated}': rename one.")
    for number, row in enumerate(rows, start=2 if header else 1):
        if len(row) != len(names):
            raise UserError(f"Row {number} of {path} has {len(row)} cells, but the table has {len(names)} columns.")
    return {name: list(cells) for name, cells in zip(names, zip(*rows, strict=True), strict=True)} if rows else {}


def _parse_rows(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        lines = list(_read_lines(file, path))
    first = lines[0] if lines else ""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=lambda c: (first.count(c), c == ","))
    if delimiter == "\t" and len({line.count("\t") for line in lines if line.strip()}) == 1:
        # Each line is a row, so a quotation mark is an ordinary character unless it encloses the whole cell
        return [[_unquote(cell) for cell in line.rstrip("\r\n").split("\t")] for line in lines if line.strip()]
    try:
        return [row for row in csv.reader(lines, delimiter=delimiter, strict=True) if row]
    except csv.Error as error:
        raise UserError(f"{path} is not a well-formed table: {error}.") from None


def _read_lines(file: TextIO, path: Path) -> Iterator[str]:
    """Yield the lines of a file, and refuse a line that could exhaust the memory."""
    number = 0
    while line := file.readline(MAX_LINE_LENGTH + 1):
        number += 1
        if len(line) > MAX_LINE_LENGTH:
            raise UserError(
                f"Line {number} of {path} is longer than {MAX_LINE_LENGTH // 1_000_000} MB, which no table needs: put "
                "each example on a line of its own."
            )
        yield line


def _numbered_names(count: int) -> list[str]:
    return [str(i + 1) for i in range(count)]


def _unquote(cell: str) -> str:
    inside = cell[1:-1]
    quoted = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inside.replace('""', "")
    return inside.replace('""', '"') if quoted else cell


def _locate_bad_byte(path: Path) -> str:
    """Return the first byte that is not UTF-8, and its line."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return f"byte 0x{line[error.start]:02x} in line {number}"
    return "it ends within a character"


def _read_json_lines(path: Path) -> dict[str, list]:
    rows: list[dict] = []
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(_read_lines(file, path), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"Line {number} of {path} is not JSON: {error.msg}.") from None
            if not isinstance(row, dict):
                raise UserError(f"Line {number} of {path} is not a JSON object with named values.")
            rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _read_parquet(path: Path) -> dict[str, list]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"Reading {path} needs pyarrow: pip install pyarrow.") from None
    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise UserError(f"{path} is not a Parquet file: {str(error).splitlines()[0][:120]}.") from None
    return {name: table.column(name).to_pylist() for name in table.column_names}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
