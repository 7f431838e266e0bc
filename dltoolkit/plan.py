"""The plan: a block of rows that says, before training, what was understood and what will be done."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dltoolkit import display, progress

WIDTH = 80  # columns of the block
Row = tuple[str, str]  # a label and its value


def render(rows: Iterable[Row], *, width: int = WIDTH, unbroken: Sequence[str] = ()) -> str:
    """Return rows as text of at most ``width`` columns: the labels in one column, the values next to them.

    Control characters, which a file name may hold, are shown as ``\\x1b``. Rows without a value are left out.

    Args:
        rows: Labels and values.
        width: Maximum number of columns.
        unbroken: Labels of rows whose value stays on one line, however long, so that it can be copied: paths, commands.
    """
    rows = [(label, display.sentence(value)) for label, value in rows if value]
    indent = 2 + max((len(label) for label, _ in rows), default=0)
    options = {"width": max(width, indent + 1), "subsequent_indent": " " * indent, "break_on_hyphens": False}
    return "\n".join(
        f"{label:{indent}}{value}"
        if label in unbroken
        else textwrap.fill(value, initial_indent=label.ljust(indent), **options)
        for label, value in rows
    )


def show(rows: Sequence[Row]) -> None:
    """Print rows on stderr."""
    progress.block(render(rows, width=min(WIDTH, progress.width())))


def announce(run: Any, rows: Sequence[Row]) -> None:
    """Store rows in run.json, and print them on stderr.

    Args:
        run: The run that begins.
        rows: Labels and values.
    """
    rows = [row for row in rows if row[1]]
    run.update(plan={"summary": [list(row) for row in rows]})
    if run.writes:
        show(rows)


@dataclass(frozen=True)
class Evaluation:
    """What follows training.

    Attributes:
        what: Its parts, such as "270 test images, report".
        seconds: Function of the trained model that estimates its duration, or None.
    """

    what: str
    seconds: Callable[[Any], float] | None = None

    def row(self, model: Any, max_time: float | None) -> Row:
        """Return the row about the evaluation; it says so if the evaluation takes longer than training.

        Args:
            model: The model that will be evaluated, with any weights.
            max_time: The time limit of training in seconds, if there is one.
        """
        if self.seconds is None:
            return "Evaluation", self.what
        seconds = self.seconds(model)
        longer = ", longer than training" if max_time is not None and seconds > max_time else ""
        return "Evaluation", f"about {progress.rough_duration(seconds)}{longer}: {self.what}"


def settings(values: Mapping[str, Any]) -> str:
    """Return the settings that are on in words, such as "flip, shift 2"; "none" if all are off."""
    parts = [
        name.replace("_", " ") + ("" if value is True else f" {value:g}" if isinstance(value, float) else f" {value}")
        for name, value in values.items()
        if value
    ]
    return ", ".join(parts) or "none"
