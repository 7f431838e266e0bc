"""Tables with named columns, from CSV, TSV, JSON lines or Parquet files, for pictures and texts alike."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from dltoolkit.errors import UserError, did_you_mean

LONGEST_LINE = 100_000_000  # characters


@dataclass(frozen=True)
class Table:
    """Columns by name, all of one length; ``path`` is the (first) file, for messages and relative paths."""

    path: Path
    columns: dict[str, list]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    @property
    def unnamed(self) -> bool:
        """Whether the columns go by their numbers, for want of a header."""
        return list(self.columns) == _numbered(len(self.columns))

    def find(self, wanted: str | None, likely: Sequence[str], meaning: str) -> str:
        """Return the name of the column ``wanted`` (a name, or a position counted from 1).

        With ``wanted`` None it is the first of the ``likely`` names that exists, whatever its case.

        Raises:
            UserError: if there is no such column; the message lists those there are.
        """
        names = list(self.columns)
        if wanted is None:
            folded = {name.lower().strip(): name for name in reversed(names)}
            for name in likely:
                if name in folded:
                    return folded[name]
        elif wanted in self.columns:
            return wanted
        elif str(wanted).isdigit() and 1 <= int(wanted) <= len(names):
            return names[int(wanted) - 1]
        listed = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
        if wanted is None:
            raise UserError(
                f"{self.path} has no column that looks like the {meaning} ({', '.join(likely)}); its columns are: "
                f"{listed}. Name the right one with --{meaning}-column."
            )
        raise UserError(f"{self.path} has no column '{wanted}'.{did_you_mean(wanted, names)} Its columns are: {listed}.")


def read_table(path: Path, *, header: bool | None = None) -> Table:
    """Read one table. Cells of .csv and .tsv are strings; in .jsonl and .parquet they keep their type.

    Args:
        path: a .csv, .tsv, .jsonl or .parquet file.
        header: whether the first line of a .csv or .tsv names the columns; by default recognised. Without names,
            the columns are called "1", "2", ….

    Raises:
        UserError: if the file is empty, not a table, or not UTF-8 text.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            table = Table(path, _parquet(path))
        elif suffix == ".jsonl":
            table = Table(path, _json_lines(path))
        else:
            table = Table(path, _separated(path, header))
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text ({_bad_byte(path)}): save it as UTF-8.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    if not len(table):
        raise UserError(f"{path} has no rows.")
    return table


def read_tables(paths: Sequence[Path], *, header: bool | None = None) -> list[Table]:
    """Read several tables of the same columns (the splits, or the pieces of one split).

    Raises:
        UserError: as `read_table`, or if a later one lacks a column of the first.
    """
    tables = [read_table(path, header=header) for path in paths]
    for table in tables[1:]:
        if missing := [name for name in tables[0].columns if name not in table.columns]:
            raise UserError(f"{table.path} lacks the column '{missing[0]}' that {tables[0].path} has.")
    return tables


def looks_like_header(first: Sequence[str], rest: Sequence[Sequence[str]]) -> bool:
    """Return whether ``first`` names columns, rather than being the first row of data.

    It does not if a cell is empty, repeated, a number, a path or a long text, or turns up again further down in
    its column, as labels do.
    """
    cells = [cell.strip() for cell in first]
    if len(set(cells)) < len(cells) or not all(cells):
        return False
    if any(_number(cell) or len(cell) > 40 or "/" in cell or "\\" in cell or len(cell.split()) > 4 for cell in cells):
        return False
    if any(Path(cell).suffix.lower() in (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif") for cell in cells):
        return False
    return not any(cell in {row[i].strip() for row in rest if i < len(row)} for i, cell in enumerate(cells))


def _separated(path: Path, header: bool | None) -> dict[str, list]:
    csv.field_size_limit(2**31 - 1)  # a cell may hold a whole text
    with open(path, newline="", encoding="utf-8-sig") as file:
        lines = list(_lines(file, path))
    first = lines[0] if lines else ""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=lambda c: (first.count(c), c == ","))
    if delimiter == "\t" and len({line.count("\t") for line in lines if line.strip()}) == 1:
        # One row a line: then a quotation mark is a character like any other, unless it encloses the whole cell.
        rows = [[_unquoted(cell) for cell in line.rstrip("\r\n").split("\t")] for line in lines if line.strip()]
    else:
        try:
            rows = [row for row in csv.reader(lines, delimiter=delimiter, strict=True) if row]
        except csv.Error as error:
            raise UserError(f"{path} is not a well-formed table: {error}.") from None
    if not rows:
        return {}
    if header is None:
        header = looks_like_header(rows[0], rows[1:])
    names = [name.strip() for name in rows.pop(0)] if header else _numbered(len(rows[0]))
    if len(set(names)) < len(names):
        raise UserError(f"{path} has two columns called '{next(n for n in names if names.count(n) > 1)}': rename one.")
    for number, row in enumerate(rows, start=2 if header else 1):
        if len(row) != len(names):
            raise UserError(f"Row {number} of {path} has {len(row)} cells, but there are {len(names)} columns.")
    return {name: list(cells) for name, cells in zip(names, zip(*rows, strict=True), strict=True)} if rows else {}


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    """Yield the lines of a file, and refuse one that would fill the memory."""
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise UserError(
                f"Line {number} of {path} is longer than {LONGEST_LINE // 1_000_000} MB, so this is hardly a table: "
                "put each example on a line of its own."
            )
        yield line


def _numbered(count: int) -> list[str]:
    return [str(i + 1) for i in range(count)]


def _unquoted(cell: str) -> str:
    inside = cell[1:-1]
    quoted = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inside.replace('""', "")
    return inside.replace('""', '"') if quoted else cell


def _bad_byte(path: Path) -> str:
    """Return where the first byte is that is not UTF-8."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return f"byte 0x{line[error.start]:02x} in line {number}"
    return "it ends within a character"


def _json_lines(path: Path) -> dict[str, list]:
    rows: list[dict] = []
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(_lines(file, path), start=1):
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


def _parquet(path: Path) -> dict[str, list]:
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


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
