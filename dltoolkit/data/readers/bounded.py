"""Compressed files of any origin, read up to the size that files of their kind have when they are unpacked."""

import bz2
import gzip
import io
import lzma
from pathlib import Path
from typing import IO

from dltoolkit.errors import UserError

MAX_RATIO = 200  # size of an unpacked file divided by that of the compressed one; texts rarely reach 20
MIN_LIMIT = 100_000_000  # bytes that may be unpacked from a file of any size
MAX_DICTIONARY = 1 << 28  # bytes of memory for reading .xz files, which declare how much they need
OPENERS = {".gz": gzip.open, ".tgz": gzip.open, ".bz2": bz2.open, ".tbz2": bz2.open}


def unpacked_limit(size: int) -> int:
    """Return how many bytes may be unpacked from a compressed file of ``size`` bytes."""
    return max(MIN_LIMIT, MAX_RATIO * size)


def decompressed(path: Path, file: IO[bytes]) -> IO[bytes]:
    """Return the content of an open file as its name says it is compressed; other files are returned as they are.

    Reading more than `unpacked_limit` raises a UserError.
    """
    suffix = path.suffix.lower()
    if suffix in (".xz", ".txz"):
        content: IO[bytes] = _XzReader(file)
    elif suffix in OPENERS:
        content = OPENERS[suffix](file)
    else:
        return file
    return io.BufferedReader(LimitedReader(content, unpacked_limit(path.stat().st_size), too_large(path)))


def too_large(path: Path) -> str:
    """Return the message about a file that is too large unpacked."""
    return (
        f"{path} is more than {MAX_RATIO} times as large unpacked, as harmful files are: unpack it yourself if you "
        "trust it."
    )


class LimitedReader(io.RawIOBase):
    """A file from which only a number of bytes can be read; one more raises a UserError.

    Args:
        file: The file.
        limit: Number of bytes.
        message: Message of the error.

    Attributes:
        remaining: Number of bytes that can still be read.
    """

    def __init__(self, file: IO[bytes], limit: int, message: str):
        self._file, self._message = file, message
        self._limit = self.remaining = limit

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._file.seekable()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.remaining = self._limit
        return self._file.seek(offset, whence)

    def readinto(self, buffer: memoryview) -> int:
        data = self._file.read(len(buffer))
        self.remaining -= len(data)
        if self.remaining < 0:
            raise UserError(self._message)
        buffer[: len(data)] = data
        return len(data)


class _XzReader(io.RawIOBase):
    """The content of an .xz file, whose declared need of memory is bounded."""

    def __init__(self, file: IO[bytes]):
        self._file, self._decompressor = file, lzma.LZMADecompressor(memlimit=MAX_DICTIONARY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        data = b""
        while not data and not self._decompressor.eof:
            raw = self._file.read(io.DEFAULT_BUFFER_SIZE) if self._decompressor.needs_input else b""
            if not raw and self._decompressor.needs_input:
                raise EOFError("the compressed data are cut off")
            data = self._decompressor.decompress(raw, len(buffer))
        buffer[: len(data)] = data
        return len(data)
