"""The machine: the devices that ``--device`` names, and what a run records: versions, processor, memory."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import sys
import time
from importlib import metadata
from pathlib import Path

from dltoolkit.errors import UserError
from dltoolkit.files import WriteError

MAX_LOGICAL_CPUS = 64  # logical CPUs that --device cpu:N may divide the processor into
MIN_ADDRESS_SPACE = 3 * 2**30  # bytes of addresses, most of them unused, that the smallest training takes
PACKAGES = ("dltoolkit", "tensorflow", "keras", "numpy", "scikit-learn")  # packages whose versions affect results


def parse_device(device: str) -> tuple[str, str | None]:
    """Return the kind (auto, cpu, gpu or tpu) and the selection of a value of ``--device``, such as ("gpu", "0,1").

    Raises:
        UserError: If the value has another form.
    """
    match = re.fullmatch(r"(auto|cpu|gpu|tpu)(?::(.+))?", device.strip(), re.IGNORECASE)
    kind, selection = (match[1].lower(), match[2]) if match else ("", None)
    if not match or (selection and kind == "auto"):
        raise UserError(f"'{device}' is not a device: use auto, cpu, cpu:2, gpu, gpu:0,1, tpu or tpu:NAME.")
    if kind == "cpu" and selection and not (selection.isdigit() and 1 <= int(selection) <= MAX_LOGICAL_CPUS):
        raise UserError(f"'{device}' is not a device: give the number of logical CPUs, such as cpu:2.")
    if kind == "gpu" and selection and not re.fullmatch(r"\d+(,\d+)*", selection):
        raise UserError(f"'{device}' is not a device: give the numbers of GPUs, such as gpu:0 or gpu:0,1.")
    return kind, selection


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of :data:`PACKAGES`, with None for a package that is not installed."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def description() -> dict[str, int | str | None]:
    """Return the number of CPUs, the operating system and the processor's name."""
    return {"cpus": os.cpu_count(), "system": platform.platform(), "processor": _processor()}


def check_address_space() -> None:
    """Raise a UserError if a limit of this process is too low for TensorFlow, whose C++ code would crash."""
    try:
        import resource  # not on Windows
    except ImportError:
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < MIN_ADDRESS_SPACE:
        raise UserError(
            f"The memory of this process is limited to {limit / 2**30:.1f} GiB (ulimit -v), but TensorFlow needs "
            f"{MIN_ADDRESS_SPACE / 2**30:.0f} GiB: raise the limit."
        )


def check_clock() -> None:
    """Raise a WriteError if the clock stands before 1980, which the zip files of Keras' models cannot hold."""
    if (year := time.localtime().tm_year) < 1980:
        raise WriteError(f"A model cannot be saved, because the clock of this machine stands at {year}: set the clock.")


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
