"""Facts about the machine that a run records: versions, processor, memory."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

PACKAGES = ("dltoolkit", "tensorflow", "keras", "numpy", "scikit-learn")  # packages whose versions affect results


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of :data:`PACKAGES`, with None for a package that is not installed."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def description() -> dict[str, int | str | None]:
    """Return the number of CPUs, the operating system and the processor's name."""
    return {"cpus": os.cpu_count(), "system": platform.platform(), "processor": _processor()}


def peak_memory_mb() -> float | None:
    """Return the peak memory of this process in megabytes, or None on Windows."""
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # macOS reports bytes, Linux kibibytes
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
