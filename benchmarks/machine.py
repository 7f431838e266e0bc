"""Describe the machine that a figure was measured on."""

import os
import platform
from pathlib import Path


def describe() -> str:
    """Return processor, number of cores and Python version in one line."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    name = names[0] if names else platform.processor()
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}"
