"""Parsers of one value of an option, from a flag, a file or Python, by the type of the option."""

import math
import re
from pathlib import Path
from typing import Any, NewType

from dltoolkit.data_object import DataObject

Duration = NewType("Duration", float)  # seconds; written as 90, 90s, 10m or 1h30m


def parse_duration(value: Any) -> Duration:
    """Return seconds for a number, or for text such as ``90s``, ``10m``, ``1.5h`` or ``1h30m``."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Duration(_parse_float(value))
    text = str(value).strip().lower()
    if re.fullmatch(r"\d+(\.\d*)?", text):
        return Duration(_parse_float(text))
    if not re.fullmatch(r"(\d+(\.\d+)?[hms]\s*)+", text):
        raise ValueError(value)
    unit_seconds = {"h": 3600.0, "m": 60.0, "s": 1.0}
    parts = re.findall(r"(\d+(?:\.\d+)?)([hms])", text)
    return Duration(_parse_float(sum(float(n) * unit_seconds[unit] for n, unit in parts)))


def format_duration(seconds: float) -> str:
    """Return seconds as an option takes them: ``8s``, ``1m30s`` or ``1h30m``."""
    whole, rest = divmod(seconds, 1)
    hours, minutes = divmod(int(whole), 3600)
    minutes, rest = minutes // 60, minutes % 60 + rest
    parts = (f"{hours}h" if hours else "", f"{minutes}m" if minutes else "", f"{round(rest, 3):g}s" if rest else "")
    return "".join(parts) or "0s"


def _parse_float(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(number := float(value)):
        raise ValueError(value)
    return number


def _parse_int(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(value)
    return int(value)


def _parse_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(value)
    return value


def _parse_str(value: Any) -> str:
    if isinstance(value, DataObject):
        return value
    if not isinstance(value, (str, Path, int, float)) or isinstance(value, bool):
        raise ValueError(value)
    return str(value)


PARSERS = {bool: _parse_bool, int: _parse_int, float: _parse_float, str: _parse_str, Duration: parse_duration}
KIND_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Duration: "a time such as 90s, 10m or 1h30m",
}
