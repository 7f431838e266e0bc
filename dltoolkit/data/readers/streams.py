"""The cells of one column of a stream of CSV records or JSON objects, as they arrive."""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from dltoolkit.data.readers import delimited, encoding
from dltoolkit.data.readers.delimited import Record, RecordParser
from dltoolkit.data.readers.source import table_suffix
from dltoolkit.data.readers.tables import TEXT_COLUMNS, USUAL_NAMES, Table, read_table
from dltoolkit.errors import InvalidInput
from dltoolkit.lines import Line

Lines = Iterable[str | InvalidInput | None]
Cells = Iterator[Line | bytes | InvalidInput | None]


class TrainedColumn(str):
    """Name of the column that a run was trained with, which is read from every table that has it."""


def read_texts(lines: Lines, form: str, text_column: str | None, name: str = "stdin") -> Cells:
    """Yield the text of each record of a stream, and None where the stream yields None.

    A record that cannot be parsed, or lacks the column, becomes an `InvalidInput` in its place. The first record of CSV
    names the columns unless it looks like data.

    Args:
        lines: Lines with their ends, in which bytes that are not UTF-8 are surrogates.
        form: "csv" or "jsonl".
        text_column: Name or position of the column of the texts; by default, it is found by its usual names, and a
            single column needs no name.
        name: Name of the stream, for messages.

    Raises:
        UserError: If there is no such column.
    """
    return (_read_csv if form == "csv" else _read_json)(lines, text_column, Path(name))


def read_table_texts(path: Path, text_column: str | None, encoding_name: str | None = None) -> Cells:
    """Yield the text of each row of a table file. Rows of CSV and JSON Lines that are invalid do not affect others.

    Raises:
        UserError: If the file is not a table, or has no such column.
    """
    suffix = table_suffix(path)
    if suffix in (".csv", ".tsv", ".jsonl"):
        with encoding.open_text(path, encoding_name, "surrogateescape") as file:
            lines = delimited.read_lines(file, path, refuse_nul=False)
            yield from read_texts(lines, "jsonl" if suffix == ".jsonl" else "csv", text_column, str(path))
        return
    table = read_table(path, encoding=encoding_name)
    for cell in table.columns[_find_column(list(table.columns), text_column, path)]:
        missing = cell is None or cell != cell  # NaN differs from itself
        yield cell if isinstance(cell, bytes) else Line("" if missing else cell)


def _read_csv(lines: Lines, text_column: str | None, path: Path) -> Cells:
    parser = RecordParser("\t" if table_suffix(path) == ".tsv" else None)
    position = None
    limit = csv.field_size_limit(2**31 - 1)
    try:
        for record in _records(lines, parser):
            if not isinstance(record, Record):
                yield record
                continue
            if position is None:
                names = delimited.column_names(record.cells)
                may_be_header = len(names) > 1 or names[0] == text_column or names[0].lower() in TEXT_COLUMNS
                has_header = may_be_header and delimited.looks_like_header(record.cells, [], USUAL_NAMES)
                names = names if has_header else delimited.numbered_names(len(names))
                position = names.index(_find_column(names, text_column, path))
                if has_header:
                    continue
            yield Line(record.cells[position])
    finally:
        csv.field_size_limit(limit)


def _records(lines: Lines, parser: RecordParser) -> Iterator[Record | InvalidInput | None]:
    number = 0
    for line in lines:
        number += line is not None
        if line is None:
            yield None
        else:
            yield from parser.feed(number, line)
    yield from parser.close()


def _read_json(lines: Lines, text_column: str | None, path: Path) -> Cells:
    column, number = None, 0
    for line in lines:
        number += line is not None
        if not isinstance(line, str):
            yield line
            continue
        line = line.removeprefix("\ufeff") if number == 1 else line
        if not line.strip():  # as in a file, an empty line is no record
            continue
        beginning = delimited.excerpt(line)
        try:
            line.encode()
            row = json.loads(line)
        except UnicodeEncodeError:
            yield InvalidInput(beginning, f"line {number}: not UTF-8")
            continue
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            yield InvalidInput(beginning, f"line {number}: not a JSON object")
            continue
        if column is None and row:
            column = _find_column(list(row), text_column, path)
        text = row.get(column)
        if text is None or isinstance(text, (list, dict)):
            reason = "no value in the column" if text is None else "not a text in the column"
            yield InvalidInput(beginning, f"line {number}: {reason}")
        else:
            yield Line(text)


def _find_column(names: list[str], text_column: str | None, path: Path) -> str:
    if isinstance(text_column, TrainedColumn) and text_column not in names:
        text_column = None
    if text_column is None and len(names) == 1:
        return names[0]
    delimited.refuse_repeated(names, path)
    return Table(path, {name: [] for name in names}).find(text_column, TEXT_COLUMNS, "text")
