"""Lines of a stream as they arrive: bounded in memory, one bad line never costs another."""

from __future__ import annotations

import os
from collections.abc import Iterator

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
