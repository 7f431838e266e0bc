"""Lines of a stream as they arrive, in bounded memory; an unreadable line does not affect the others."""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable, Iterator

from dltoolkit.errors import InvalidInput, UserError

CHUNK_BYTES = 1 << 16  # maximum number of bytes to read at once; a read returns fewer if fewer have arrived
MAX_LINE_BYTES = 10_000_000  # a longer line is reported and skipped, so that a stream without line ends fits in memory
MAX_ENDLESS_BYTES = 1_000_000_000  # of a line that does not end, after which a stream such as /dev/zero is given up
MAX_IMAGE_BYTES = 500_000_000
IMAGE_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*")  # first bytes of images
EXCERPT_LENGTH = 80  # characters of an unreadable line that its error shows


class Line(str):
    """A line of a stream or a cell of a table: always a text, never the name of a file."""


class StdinBytes(bytes):
    """All bytes of stdin, which are one input."""


def read_image(descriptor: int) -> tuple[StdinBytes | None, bytes]:
    """Return the image that a file descriptor holds, and the bytes that were read.

    The image is None if the bytes do not begin like an image file; the rest of them is not read then.

    Raises:
        UserError: If the image is larger than ``MAX_IMAGE_BYTES``.
    """
    chunk = os.read(descriptor, CHUNK_BYTES)
    if not chunk.startswith(IMAGE_SIGNATURES):
        return None, chunk
    chunks, size = [chunk], len(chunk)
    while chunk := os.read(descriptor, CHUNK_BYTES):
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_IMAGE_BYTES:
            raise UserError(f"The image on stdin is larger than {MAX_IMAGE_BYTES // 1_000_000} MB.")
    return StdinBytes(b"".join(chunks)), b""


def read_lines(
    descriptor: int, *, raw: bool = False, begin: bytes = b"", encoding: str | None = None
) -> Iterator[Line | InvalidInput | None]:
    """Yield the lines of a file descriptor without their ends, and None when the next line has not arrived yet.

    A line of more than ``MAX_LINE_BYTES`` bytes, or one that cannot be decoded, becomes a `InvalidInput`.

    Args:
        descriptor: The file descriptor.
        raw: Whether lines keep their ends, and bytes that are not UTF-8 become surrogates.
        begin: Bytes that were read from the descriptor before.
        encoding: Character encoding; UTF-8 by default.

    Raises:
        UserError: If an encoding of several bytes per character does not fit, so that no lines can be told apart, or a
            line does not end within ``MAX_ENDLESS_BYTES`` bytes.
    """
    number, rest, skipping, skipped = 0, b"", False, 0
    to_utf8 = _recoder(encoding)
    chunk = begin or os.read(descriptor, CHUNK_BYTES)
    while chunk:
        *complete, rest = (rest + to_utf8(chunk, False)).split(b"\n")
        for line in complete:
            number += 1
            yield _too_long(line, number) if skipping else _decode(line, number, b"\n", raw, encoding)
            skipping, skipped = False, 0
        if len(rest) > MAX_LINE_BYTES or skipping:
            skipping, skipped, rest = True, skipped + len(chunk), rest[:EXCERPT_LENGTH]
        if skipped > MAX_ENDLESS_BYTES:
            raise UserError(f"Line {number + 1} of stdin has more than {MAX_ENDLESS_BYTES // 1_000_000} MB: end it.")
        yield None
        chunk = os.read(descriptor, CHUNK_BYTES)
    if rest := rest + to_utf8(b"", True):
        yield _too_long(rest, number + 1) if skipping else _decode(rest, number + 1, b"", raw, encoding)


def _recoder(encoding: str | None) -> Callable[[bytes, bool], bytes]:
    """Return a function that converts a stream to UTF-8; it takes the next bytes, and whether they are the last."""
    if encoding is None:
        return lambda raw, is_last: raw
    decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")  # an invalid byte stays what it is

    def to_utf8(raw: bytes, is_last: bool) -> bytes:
        try:
            return decoder.decode(raw, is_last).encode(errors="surrogateescape")
        except UnicodeError:
            raise UserError(f"stdin is not {_display(encoding)} text: give another --encoding.") from None

    return to_utf8


def _display(encoding: str | None) -> str:
    return "UTF-8" if encoding is None else encoding.upper() if encoding.lower().startswith("utf") else encoding


def _decode(line: bytes, number: int, end: bytes, raw: bool, encoding: str | None) -> Line | InvalidInput:
    if len(line) > MAX_LINE_BYTES:
        return _too_long(line, number)
    if raw and encoding is None:
        return Line((line + end).decode(errors="surrogateescape"))
    try:
        text = (line + end if raw else line.removesuffix(b"\r")).decode("utf-8-sig" if number == 1 else "utf-8")
        return Line(text)
    except UnicodeDecodeError as error:
        reason = (
            f"line {number}: not {_display(encoding)} (byte 0x{line[error.start]:02x} at position {error.start + 1})"
        )
        return InvalidInput(line.decode(errors="replace")[:EXCERPT_LENGTH], reason)


def _too_long(line: bytes, number: int) -> InvalidInput:
    excerpt = line[:EXCERPT_LENGTH].decode(errors="replace") + "…"
    return InvalidInput(excerpt, f"line {number}: longer than {MAX_LINE_BYTES // 1_000_000} MB")
