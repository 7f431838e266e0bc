"""Lines of a stream as they arrive: bounded in memory, one bad line never costs another."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

from dltoolkit.errors import BadInput

CHUNK = 1 << 16  # bytes asked for at a time; less comes where less is there
LONGEST = 10_000_000  # bytes of a line
SHOWN = 80  # characters of a bad line


class Line(str):
    """A line of a stream, or a cell of a table: a text that is not to be taken for a file's name."""


def arriving(descriptor: int) -> Iterator[Line | BadInput | None]:
    """Yield the lines of a file descriptor, without their ends, and None whenever no more are there for the moment.

    A line of more than ``LONGEST`` bytes, or one that is not UTF-8, is yielded as a `BadInput`.
    """
    number, rest, skipping = 0, b"", False
    while chunk := os.read(descriptor, CHUNK):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            number += 1
            yield _text(line, number) if not skipping else _too_long(line, number)
            skipping = False
        if len(rest) > LONGEST or skipping:
            skipping, rest = True, rest[:SHOWN]
        yield None
    if rest:
        yield _too_long(rest, number + 1) if skipping else _text(rest, number + 1)


def cells(
    stream: Iterable[Line | BadInput | None], form: str, column: Callable[[Sequence[str]], str]
) -> Iterator[Line | BadInput | None]:
    """Yield one cell of each line of a stream of JSON objects or CSV rows; the first line of CSV names the columns.

    A line that cannot be read is yielded as a `BadInput`, and so is a JSON object that lacks the column.

    Args:
        stream: what `arriving` yields.
        form: "jsonl" or "csv".
        column: from the names of the columns (of the first line that has any) to that of the one that is meant.
    """
    wanted, number = None, 0
    for line in stream:
        if not isinstance(line, Line):
            number += line is not None
            yield line
            continue
        number += 1
        try:
            row = _object(line) if form == "jsonl" else dict(enumerate(next(csv.reader([line], strict=True), [])))
        except (ValueError, csv.Error, RecursionError):
            yield BadInput(line[:SHOWN], f"line {number}: not {'a JSON object' if form == 'jsonl' else 'a row of CSV'}")
            continue
        if form == "csv" and wanted is None:
            names = list(row.values())
            wanted = names.index(column(names))
            continue
        if wanted is None and row:
            wanted = column(list(row))
        if row.get(wanted) is None:
            yield BadInput(line[:SHOWN], f"line {number}: nothing in the column")
        else:
            yield Line(row[wanted])


def _object(line: str) -> dict[str, object]:
    if not isinstance(row := json.loads(line), dict):
        raise ValueError
    return row


def _text(line: bytes, number: int) -> Line | BadInput:
    if len(line) > LONGEST:
        return _too_long(line, number)
    try:
        return Line(line.removesuffix(b"\r").decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        reason = f"line {number}: not UTF-8 (byte 0x{line[error.start]:02x} at place {error.start + 1})"
        return BadInput(line.decode(errors="replace")[:SHOWN], reason)


def _too_long(line: bytes, number: int) -> BadInput:
    return BadInput(
        line[:SHOWN].decode(errors="replace") + "…", f"line {number}: longer than {LONGEST // 1_000_000} MB"
    )
