"""Arrays that are kept in memory if they fit, and otherwise in files that the next run finds again."""

import contextlib
import json
import mmap
import os
import platform
import secrets
import shutil
import time
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dltoolkit import memory
from dltoolkit.errors import UserError
from dltoolkit.files import atomic_write

MAX_UNUSED_DAYS = 30  # days after which an unused array is removed
MAX_UNFINISHED_DAYS = 2  # days after which an unfinished array of another machine counts as abandoned
ALIGNMENT = 64  # bytes; TensorFlow aborts the process if the memory it is given starts at another address


def aligned_empty(shape: tuple[int, ...]) -> np.ndarray:
    """Return an uninitialized uint8 array that TensorFlow can use without a copy."""
    size = int(np.prod(shape, dtype=np.int64))
    buffer = np.empty(size + ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    return buffer[start : start + size].reshape(shape)


def aligned(array: np.ndarray) -> np.ndarray:
    """Return the array if TensorFlow can use it without a copy (contiguous, writeable, aligned), otherwise a copy."""
    flags = array.flags
    if flags.c_contiguous and flags.writeable and array.ctypes.data % ALIGNMENT == 0:
        return array
    copy = aligned_empty((array.nbytes,)).view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def reserve(file: BinaryIO, size: int) -> None:
    """Allocate ``size`` bytes on the disk, because a full disk would kill a process that writes to mapped memory."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.truncate(size)


def release_pages(array: np.ndarray) -> None:
    """Write an array to its file, if it has one, and release its memory; later accesses read it from the file again."""
    if not isinstance(array, np.memmap):
        return
    array.flush()
    if hasattr(mmap, "MADV_DONTNEED"):
        array._mmap.madvise(mmap.MADV_DONTNEED)


def default_folder() -> Path:
    """Return ``$XDG_CACHE_HOME/dltoolkit``, or ``~/.cache/dltoolkit``.

    Raises:
        UserError: If the user has no home folder.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dltoolkit"
    except RuntimeError:
        raise UserError("There is no home folder for the cache: set HOME, or XDG_CACHE_HOME to a folder.") from None


class DiskCache:
    """A uint8 array on disk, such as decoded images or token IDs, and JSON metadata.

    The array is written under a temporary name and renamed when it is complete, so that ``find`` never returns half of
    one.

    Args:
        folder: Folder of the cache.
        name: Name of the array, which must change whenever its content does.
    """

    def __init__(self, folder: Path, name: str):
        self._folder = folder
        self._array = folder / f"{name}.array"
        self._metadata = folder / f"{name}.json"
        self._unfinished = folder / f"{name}.unfinished-{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}"

    def find(self) -> tuple[np.memmap, dict] | None:
        """Return the array and its metadata, or None if it is not cached. Changes to the array stay in memory."""
        try:
            metadata = json.loads(self._metadata.read_text())
            self._metadata.touch()  # records the use, see _remove_abandoned
            return np.memmap(self._array, np.uint8, "c", shape=tuple(metadata["shape"])), metadata
        except (OSError, ValueError, KeyError):
            return None

    def create(self, shape: tuple[int, ...], content: str) -> np.ndarray:
        """Return an uninitialized array on disk, or in memory if the folder cannot be written and the array fits there.

        Args:
            shape: Shape of the array.
            content: Plural noun for its content, for the error message.

        Raises:
            UserError: If the disk is too full, or the folder cannot be written, and the array does not fit in memory.
        """
        size = int(np.prod(shape, dtype=np.int64))
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._remove_abandoned()
            with open(self._unfinished, "wb") as file:
                reserve(file, size)
            return np.memmap(self._unfinished, np.uint8, "r+", shape=shape)
        except OSError as error:
            self.discard()
            if size <= memory.limit():
                return aligned_empty(shape)
            free = 0
            with contextlib.suppress(OSError):
                free = shutil.disk_usage(self._folder).free
            raise UserError(
                f"The {content} take {memory.describe(size)}, which fit neither in memory nor in "
                f"{self._folder} ({error.strerror}; {memory.describe(free)} free): "
                "set XDG_CACHE_HOME to a larger disk, or use less of the data (--limit)."
            ) from None

    def commit(self, array: np.ndarray, metadata: dict) -> np.ndarray:
        """Store a complete array of :meth:`create` under its name with its metadata, and return it mapped again.

        An array in memory is returned as it is.
        """
        if not isinstance(array, np.memmap):
            return array
        array.flush()
        os.replace(self._unfinished, self._array)
        with atomic_write(self._metadata) as path:
            path.write_text(json.dumps({**metadata, "shape": list(array.shape)}))
        return np.memmap(self._array, np.uint8, "c", shape=array.shape)

    def discard(self) -> None:
        """Remove an unfinished array, if there is one."""
        with contextlib.suppress(OSError):
            self._unfinished.unlink()

    def _remove_abandoned(self) -> None:
        """Remove unfinished arrays of killed processes, and arrays that no run has used for a month."""
        for array in self._folder.glob("*.array"):
            metadata = array.with_suffix(".json")
            with contextlib.suppress(OSError):
                last_use = (metadata if metadata.exists() else array).stat().st_mtime
                if time.time() - last_use > MAX_UNUSED_DAYS * 86_400:
                    array.unlink()
                    metadata.unlink(missing_ok=True)
        for path in self._folder.glob("*.unfinished-*"):
            machine, _, process = path.name.partition(".unfinished-")[2].rpartition("-")[0].rpartition("-")
            with contextlib.suppress(OSError, ValueError):
                if machine != platform.node():  # the folder is shared, and processes of other machines are not visible
                    abandoned = time.time() - path.stat().st_mtime > MAX_UNFINISHED_DAYS * 86_400
                else:
                    abandoned = not _is_running(int(process))
                if abandoned:
                    path.unlink()


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
