"""What a run happened on: versions, processor, memory."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import sys
from importlib import metadata
from pathlib import Path

PACKAGES = ("dltoolkit", "tensorflow", "keras", "numpy", "scikit-learn")


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that results depend on; None for one that is not installed."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def description() -> dict[str, int | str | None]:
    """Return the number of CPUs, the operating system and the processor's name."""
    return {"cpus": os.cpu_count(), "system": platform.platform(), "processor": _processor()}


def peak_memory_mb() -> float:
    """Return the most memory that this process has held so far, in megabytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
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
