"""Numbers and JSON values as the report displays them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dltoolkit import formatting, progress


def percent(fraction: float, digits: int = 1) -> str:
    """Format 0.5 as "50.0 %", with a no-break space."""
    return formatting.percent(fraction, digits).replace(" ", "\N{NO-BREAK SPACE}")


def metric_value(name: str, value: float) -> str:
    """Format a metric, with a no-break space before the sign of percent."""
    return formatting.metric_value(name, value).replace(" ", "\N{NO-BREAK SPACE}")


def duration(seconds: float | None) -> str | None:
    """Format seconds as 41.3 s, 3 min 20 s or 2 h 5 min."""
    return None if seconds is None else progress.duration(seconds)


def json_value(value: Any) -> str:
    """Format a JSON value in one line: ``{"kind": "cpu", "replicas": 2}`` as "kind cpu · replicas 2"."""
    if isinstance(value, Mapping):
        parts = {key.replace("_", " "): json_value(part) for key, part in value.items()}
        return " · ".join(f"{key} {part}" for key, part in parts.items() if part)
    if isinstance(value, list | tuple):
        return " × ".join(map(json_value, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return "" if value is None else str(value)
