"""Memory: how much is free, and checks of sizes that a file declares before memory is taken for them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from dltoolkit.errors import UserError

GIGABYTE = 2**30
CGROUP = Path("/sys/fs/cgroup")  # the control group of a container, version 2


def available() -> int:
    """Return the free memory in bytes: that of the machine, of the container or of ``ulimit -v``, the least of them."""
    free = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free.append(int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024)
    with contextlib.suppress(OSError, ValueError):
        used = int((CGROUP / "memory.current").read_text())
        free.append(int((CGROUP / "memory.max").read_text()) - used + _reclaimable())
    with contextlib.suppress(OSError, ValueError, ImportError):
        import resource  # not on Windows

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            free.append(limit - pages * resource.getpagesize())
    if not free:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            free.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    return max(0, min(free, default=4 * GIGABYTE))


def limit() -> int:
    """Return how many bytes of data are kept in memory: a quarter of the free memory, but at least 1 GiB."""
    return max(GIGABYTE, available() // 4)


def refuse(size: int, subject: str, remedy: str) -> None:
    """Raise a UserError if data would take more than half of the free memory.

    Args:
        size: Bytes that the data take.
        subject: Beginning of the sentence, such as "The images of a.npz", which names the data in the plural.
        remedy: What to do, in the imperative.
    """
    free = available()
    if size > free // 2:
        raise UserError(
            f"{subject} take {describe(size)} of memory, more than half of the free {describe(free)}: {remedy}."
        )


def describe(size: int) -> str:
    """Return a number of bytes in words: "640 bytes", "640 MB", "2.5 GiB" or "90 TiB"."""
    if size < GIGABYTE:
        return f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{size:,} bytes"
    return f"{size / GIGABYTE:,.1f} GiB" if size < 1024 * GIGABYTE else f"{size / GIGABYTE / 1024:,.0f} TiB"


def release() -> None:
    """Return freed memory to the operating system, of which the C library keeps hundreds of megabytes per thread."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # other systems than Linux with glibc
        ctypes.CDLL(None).malloc_trim(0)


class Budget:
    """Bytes of memory that threads share: each waits until what it needs is free.

    Args:
        size: Bytes that all threads together may take. One that needs more waits until it is alone.
    """

    def __init__(self, size: int):
        self._size, self._used = size, 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def take(self, size: int) -> Iterator[None]:
        """Hold ``size`` bytes inside the block."""
        size = min(size, self._size)
        with self._changed:
            self._changed.wait_for(lambda: self._used + size <= self._size)
            self._used += size
        try:
            yield
        finally:
            with self._changed:
                self._used -= size
                self._changed.notify_all()


def _reclaimable() -> int:
    """Return the bytes of files in the page cache of the container, which it gives up when memory is needed."""
    for line in (CGROUP / "memory.stat").read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == "inactive_file":
            return int(value)
    return 0
