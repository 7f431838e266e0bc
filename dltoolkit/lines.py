"""Lines of a stream as they arrive, in bounded memory; an unreadable line does not affect the others."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

from dltoolkit.errors import InvalidInput

CHUNK_BYTES = 1 << 16  # maximum number of bytes to read at once; a read returns fewer if fewer have arrived
MAX_LINE_BYTES = 10_000_000  # a longer line is reported and skipped, so that a stream without line ends fits in memory
EXCERPT_LENGTH = 80  # characters of an unreadable line that its error shows


class Line(str):
    """A line of a stream or a cell of a table: always a text, never the name of a file."""


def read_lines(descriptor: int) -> Iterator[Line | InvalidInput | None]:
    """Yield the lines of a file descriptor without their ends, and None when the next line has not arrived yet.

    A line of more than ``MAX_LINE_BYTES`` bytes, or one that is not UTF-8, becomes a `InvalidInput`.
    """
    number, rest, skipping = 0, b"", False
    while chunk := os.read(descriptor, CHUNK_BYTES):
        *complete, rest = (rest + chunk).split(b"\n")
        for line in complete:
            number += 1
            yield _too_long(line, number) if skipping else _decode(line, number)
            skipping = False
        if len(rest) > MAX_LINE_BYTES or skipping:
            skipping, rest = True, rest[:EXCERPT_LENGTH]
        yield None
    if rest:
        yield _too_long(rest, number + 1) if skipping else _decode(rest, number + 1)


def read_column(
    stream: Iterable[Line | InvalidInput | None], form: str, find_column: Callable[[Sequence[str]], str]
) -> Iterator[Line | InvalidInput | None]:
    """Yield one cell of each line of a stream of JSON objects or CSV rows; the first line of CSV names the columns.

    A line that cannot be parsed becomes a `InvalidInput`, and so does a JSON object without the column.

    Args:
        stream: Lines from :func:`read_lines`.
        form: "jsonl" or "csv".
        find_column: Function from the names of the columns, in the first line that has any, to the name of the column
            to yield.
    """
    column, number = None, 0
    for line in stream:
        if not isinstance(line, Line):
            number += line is not None
            yield line
            continue
        number += 1
        try:
            row = _parse_object(line) if form == "jsonl" else dict(enumerate(next(csv.reader([line], strict=True), [])))
        except (ValueError, csv.Error, RecursionError):
            expected = "a JSON object" if form == "jsonl" else "a row of CSV"
            yield InvalidInput(line[:EXCERPT_LENGTH], f"line {number}: not {expected}")
            continue
        if form == "csv" and column is None:
            names = list(row.values())
            column = names.index(find_column(names))
            continue
        if column is None and row:
            column = find_column(list(row))
        if row.get(column) is None:
            yield InvalidInput(line[:EXCERPT_LENGTH], f"line {number}: no value in the column")
        else:
            yield Line(row[column])


def _parse_object(line: str) -> dict[str, object]:
    if not isinstance(row := json.loads(line), dict):
        raise ValueError
    return row


def _decode(line: bytes, number: int) -> Line | InvalidInput:
    if len(line) > MAX_LINE_BYTES:
        return _too_long(line, number)
    try:
        return Line(line.removesuffix(b"\r").decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        reason = f"line {number}: not UTF-8 (byte 0x{line[error.start]:02x} at position {error.start + 1})"
        return InvalidInput(line.decode(errors="replace")[:EXCERPT_LENGTH], reason)


def _too_long(line: bytes, number: int) -> InvalidInput:
    excerpt = line[:EXCERPT_LENGTH].decode(errors="replace") + "…"
    return InvalidInput(excerpt, f"line {number}: longer than {MAX_LINE_BYTES // 1_000_000} MB")
