"""Room for what was decoded: in memory when it fits, otherwise in a file that the next run finds again."""

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

from dltoolkit.errors import UserError
from dltoolkit.files import atomic_write

GIGABYTE = 2**30
UNUSED_DAYS = 30  # after which arrays on disk are removed
ABANDONED_DAYS = 2  # after which another machine's unfinished ones are
ALIGNMENT = 64  # bytes; TensorFlow aborts the process on memory handed to it that begins elsewhere


def memory_limit() -> int:
    """Return how many bytes of pictures are kept in memory: a quarter of what is free, but 1 GiB at least."""
    return max(GIGABYTE, available_memory() // 4)


def available_memory() -> int:
    """Return the bytes of memory this process can still get: the machine's, or its container's if that is less."""
    free = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free.append(int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024)
    with contextlib.suppress(OSError, ValueError):  # control groups, version 2
        group = Path("/sys/fs/cgroup")
        free.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    if not free:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            free.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    return max(0, min(free, default=4 * GIGABYTE))


def room(shape: tuple[int, ...]) -> np.ndarray:
    """Return an unset uint8 array of ``shape`` that begins where TensorFlow can use it without a copy."""
    size = int(np.prod(shape, dtype=np.int64))
    space = np.empty(size + ALIGNMENT, np.uint8)
    start = -space.ctypes.data % ALIGNMENT
    return space[start : start + size].reshape(shape)


def aligned(array: np.ndarray) -> np.ndarray:
    """Return ``array``, or a copy where it is not contiguous, writeable and aligned as TensorFlow wants it."""
    flags = array.flags
    if flags.c_contiguous and flags.writeable and array.ctypes.data % ALIGNMENT == 0:
        return array
    copy = room((array.nbytes,)).view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def reserve(file: BinaryIO, size: int) -> None:
    """Take so many bytes of the disk now: one that fills up later would kill the process that writes to the memory."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.truncate(size)


def let_go(array: np.memmap) -> None:
    """Write an array to its file and give its memory back; it is read again where it is needed."""
    array.flush()
    if hasattr(mmap, "MADV_DONTNEED"):
        array._mmap.madvise(mmap.MADV_DONTNEED)


def default_folder() -> Path:
    """Return ``$XDG_CACHE_HOME/dltoolkit`` or ``~/.cache/dltoolkit``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dltoolkit"


class KeptArray:
    """Bytes on disk (decoded pictures, tokens), under a key that changes with what they come from.

    Written under another name and renamed when complete, so that what is found under the key is whole.
    """

    def __init__(self, folder: Path, name: str):
        self._folder = folder
        self._array = folder / f"{name}.array"
        self._facts = folder / f"{name}.json"
        self._unfinished = folder / f"{name}.unfinished-{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}"

    def find(self) -> tuple[np.memmap, dict] | None:
        """Return the array, uint8, and the facts kept with it, or None. Changes stay in memory."""
        try:
            facts = json.loads(self._facts.read_text())
            self._facts.touch()  # used today: see _remove_abandoned
            return np.memmap(self._array, np.uint8, "c", shape=tuple(facts["shape"])), facts
        except (OSError, ValueError, KeyError):
            return None

    def create(self, shape: tuple[int, ...], what: str) -> np.memmap:
        """Return room for an array of ``shape`` on disk; ``what`` it holds, in words, is for the message.

        Raises:
            UserError: if the disk is too full or the folder cannot be written.
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
            free = shutil.disk_usage(self._folder).free if self._folder.exists() else 0
            raise UserError(
                f"The {what} take {size / GIGABYTE:.1f} GiB, which fit neither in memory nor in "
                f"{self._folder} ({error.strerror}; {free / GIGABYTE:.1f} GiB free): "
                "set XDG_CACHE_HOME to a larger disk, or use less of the data (--limit)."
            ) from None

    def keep(self, array: np.memmap, facts: dict) -> np.memmap:
        """Put what ``create`` gave, now filled, in its place, with ``facts`` beside it, and return it anew."""
        array.flush()
        os.replace(self._unfinished, self._array)
        with atomic_write(self._facts) as beside:
            beside.write_text(json.dumps({**facts, "shape": list(array.shape)}))
        return np.memmap(self._array, np.uint8, "c", shape=array.shape)

    def discard(self) -> None:
        """Remove what ``create`` made, if anything."""
        with contextlib.suppress(OSError):
            self._unfinished.unlink()

    def _remove_abandoned(self) -> None:
        """Remove what killed processes left unfinished, and what no run has used for a month."""
        for array in self._folder.glob("*.array"):
            facts = array.with_suffix(".json")
            with contextlib.suppress(OSError):
                used = facts if facts.exists() else array
                if time.time() - used.stat().st_mtime > UNUSED_DAYS * 86_400:
                    array.unlink()
                    facts.unlink(missing_ok=True)
        for path in self._folder.glob("*.unfinished-*"):
            machine, _, process = path.name.partition(".unfinished-")[2].rpartition("-")[0].rpartition("-")
            with contextlib.suppress(OSError, ValueError):
                if machine != platform.node():  # the folder is shared; that machine cannot be asked
                    abandoned = time.time() - path.stat().st_mtime > ABANDONED_DAYS * 86_400
                else:
                    abandoned = not _alive(int(process))
                if abandoned:
                    path.unlink()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
