""".npz files of any origin: sizes and types are checked before memory is taken for the arrays."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dltoolkit import memory
from dltoolkit.files import open_regular

MAX_HEADER_BYTES = 20_000  # bytes before the values of an array; NumPy accepts 10,000 characters
MAX_DIMENSIONS = 8
CHUNK_BYTES = 1 << 24


class InvalidNpz(ValueError):
    """A file is not an .npz file of plain arrays. The message is a short reason."""


class NpzFile:
    """The arrays of an open .npz file; see :func:`open_npz`.

    Attributes:
        names: Names of the arrays.
    """

    def __init__(self, archive: zipfile.ZipFile):
        self._archive = archive
        self._members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        self.names = list(self._members)

    def size(self, names: Sequence[str]) -> int:
        """Return the bytes that arrays take in memory."""
        return sum(math.prod(shape) * dtype.itemsize for shape, dtype, _ in map(self._header, names))

    def read(self, name: str) -> np.ndarray:
        """Return an array.

        Raises:
            InvalidNpz: If it holds Python objects, or is damaged.
        """
        with self._archive.open(self._members[name]) as member:
            shape, dtype, fortran_order = self._read_header(name, member)
            array = np.empty(math.prod(shape), dtype)
            target = memoryview(array.view(np.uint8))
            while len(target):
                if not (count := member.readinto(target[:CHUNK_BYTES])):
                    raise InvalidNpz(f"the array {name} is cut off")
                target = target[count:]
            member.read(1)  # the end, where the checksum is compared
        return array.reshape(shape, order="F" if fortran_order else "C")

    def _header(self, name: str) -> tuple[tuple[int, ...], np.dtype, bool]:
        with self._archive.open(self._members[name]) as member:
            return self._read_header(name, member)

    def _read_header(self, name: str, member: BinaryIO) -> tuple[tuple[int, ...], np.dtype, bool]:
        """Return shape, type and order of an array, and leave the position of the file at its values."""
        info = self._members[name]
        head = io.BytesIO(member.read(MAX_HEADER_BYTES))
        try:
            version = np.lib.format.read_magic(head)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran_order, dtype = read(head)
        except Exception:  # NumPy parses the header as Python code does, and raises errors of many types
            raise InvalidNpz(f"the header of the array {name} is damaged") from None
        if dtype.hasobject:
            raise InvalidNpz(f"the array {name} holds Python objects, which are not loaded")
        sizes_fit = len(shape) <= MAX_DIMENSIONS and all(type(size) is int and size >= 0 for size in shape)
        if not sizes_fit or not dtype.itemsize or head.tell() + math.prod(shape) * dtype.itemsize != info.file_size:
            held = memory.describe(info.file_size)
            raise InvalidNpz(f"the array {name} of shape {_shorten(shape)} does not fit the {held} that are stored")
        member.seek(head.tell())
        return shape, dtype, fortran_order


@contextmanager
def open_npz(file: Path | BinaryIO) -> Iterator[NpzFile]:
    """Open an .npz file.

    Raises:
        InvalidNpz: If the file, or an array that is read inside the block, is damaged.
    """
    try:
        opened = open_regular(file) if isinstance(file, Path) else nullcontext(file)
        with opened as content, zipfile.ZipFile(content) as archive:
            yield NpzFile(archive)
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:
        raise InvalidNpz(getattr(error, "strerror", None) or str(error) or "it is damaged") from None


def _shorten(shape: Sequence[int]) -> str:
    text = ", ".join(str(size) if abs(size) < 10**20 else "…" for size in shape[:MAX_DIMENSIONS])
    return f"({text}{', …' if len(shape) > MAX_DIMENSIONS else ''})"
