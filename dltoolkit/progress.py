"""Progress messages on stderr: a live display on a terminal, one line per epoch otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from dltoolkit import cluster

LIVE_INTERVAL = 0.1  # minimum seconds between two updates of the live display, so that it costs almost no time


def console() -> Console:
    """Return a console that writes to the current ``sys.stderr``. Only the chief's console prints."""
    return Console(file=sys.stderr, highlight=False, soft_wrap=True, quiet=not cluster.is_chief())


def note(message: str) -> None:
    """Print a message on stderr."""
    console().print(message, markup=False)


def warn(message: str) -> None:
    """Print a warning on stderr, on every worker."""
    screen = Console(file=sys.stderr, highlight=False, soft_wrap=True)
    screen.print("[yellow]Warning:[/yellow] " if screen.is_terminal else "Warning: ", end="")
    screen.print(message, markup=False)


@contextmanager
def counting() -> Iterator[Any]:
    """Yield a function ``report(label, done, total)`` that shows the progress of a scan or a download on a terminal."""
    screen = console()
    if not screen.is_terminal:
        yield lambda label, done, total: None
        return
    with Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=screen,
        transient=True,
    ) as bar:
        tasks: dict[str, Any] = {}

        def report(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bar.add_task(label, total=total)
            bar.update(tasks[label], completed=done, total=total)

        yield report


class EpochDisplay:
    """A progress bar for the current epoch on a terminal, and one line for each finished epoch."""

    def __init__(self) -> None:
        self._screen = console()
        self._bar: Bar | None = None
        self._task: Any = None
        self._updated = 0.0

    def start(self, epoch: int, epochs: int | None, steps: int) -> None:
        """Show the beginning of an epoch.

        Args:
            epoch: Number of the epoch, from 1.
            epochs: Planned number of epochs, or None if they are not planned yet.
            steps: Number of steps in the epoch.
        """
        if not self._screen.is_terminal:
            return
        if self._bar is None:
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[values]}"),
                TimeRemainingColumn(),
                console=self._screen,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=steps, values="")
        self._bar.reset(self._task, description=f"epoch {_format_epoch(epoch, epochs)}", total=steps, values="")

    def step(self, done: int, logs: Mapping[str, float] | None) -> None:
        """Show how many steps of the epoch are done. Calling this at every step costs almost no time."""
        now = time.monotonic()
        if self._bar is None or now - self._updated < LIVE_INTERVAL:
            return
        self._updated = now
        values = "  ".join(_format_metric(name, value) for name, value in (logs or {}).items())
        self._bar.update(self._task, completed=done, values=values)

    def end(self, epoch: int, epochs: int | None, row: Mapping[str, float], best: bool) -> None:
        """Print the line of a finished epoch. ``row`` is its row of history.csv."""
        values = {k: v for k, v in row.items() if k not in ("epoch", "step", "seconds", "learning_rate")}
        metrics = "  ".join(_format_metric(name, value) for name, value in values.items())
        line = f"epoch {_format_epoch(epoch, epochs)}  {metrics}  {row['seconds']:.1f} s{'  best' if best else ''}"
        self._screen.print(line, markup=False)

    def close(self) -> None:
        """Remove the progress bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def duration(seconds: float) -> str:
    """Format seconds as ``8.4 s``, ``3 min 20 s`` or ``1 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _format_epoch(epoch: int, epochs: int | None) -> str:
    return f"{epoch:{len(str(epochs))}d}/{epochs}" if epochs else f"{epoch}"


def _format_metric(name: str, value: float) -> str:
    label = name.replace("validation_", "val ").replace("_", " ")
    return f"{label} {value * 100:.1f} %" if name.endswith("accuracy") else f"{label} {value:.4f}"
