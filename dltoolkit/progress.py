"""What a person sees while a run works: live on a terminal, one line an epoch in a pipe; always on stderr."""

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

LIVE_INTERVAL = 0.1  # seconds between two updates of the live line


def console() -> Console:
    """A console on stderr, made when needed, so that a redirected stderr is respected; only the chief's speaks."""
    return Console(file=sys.stderr, highlight=False, soft_wrap=True, quiet=not cluster.is_chief())


def note(message: str) -> None:
    """Tell the user something, on stderr."""
    console().print(message, markup=False)


def warn(message: str) -> None:
    """Tell the user of something that may be wrong with the input, on stderr."""
    screen = Console(file=sys.stderr, highlight=False, soft_wrap=True)
    screen.print("[yellow]Warning:[/yellow] " if screen.is_terminal else "Warning: ", end="")
    screen.print(message, markup=False)


@contextmanager
def counting() -> Iterator[Any]:
    """Yield a function ``report(label, done, total)`` that shows how far a scan or a download has come."""
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
    """Shows epochs as they go: a live bar on a terminal, and a line when an epoch is done."""

    def __init__(self) -> None:
        self._screen = console()
        self._bar: Bar | None = None
        self._task: Any = None
        self._shown = 0.0

    def start(self, epoch: int, epochs: int | None, steps: int) -> None:
        """Begin an epoch (counted from 1) of ``steps`` steps; ``epochs`` is None while it is not yet planned."""
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
        self._bar.reset(self._task, description=f"epoch {_of(epoch, epochs)}", total=steps, values="")

    def step(self, done: int, logs: Mapping[str, float] | None) -> None:
        """Move the live line on; cheap enough to be called at every step."""
        now = time.monotonic()
        if self._bar is None or now - self._shown < LIVE_INTERVAL:
            return
        self._shown = now
        values = "  ".join(_value(name, value) for name, value in (logs or {}).items())
        self._bar.update(self._task, completed=done, values=values)

    def end(self, epoch: int, epochs: int | None, row: Mapping[str, float], best: bool) -> None:
        """Write the line of a finished epoch; ``row`` is its row of history.csv."""
        shown = {k: v for k, v in row.items() if k not in ("epoch", "step", "seconds", "learning_rate")}
        values = "  ".join(_value(name, value) for name, value in shown.items())
        line = f"epoch {_of(epoch, epochs)}  {values}  {row['seconds']:.1f} s{'  best' if best else ''}"
        self._screen.print(line, markup=False)

    def close(self) -> None:
        """Take the live line away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def duration(seconds: float) -> str:
    """Write seconds for people: ``8.4 s``, ``3 min 20 s``, ``1 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _of(epoch: int, epochs: int | None) -> str:
    return f"{epoch:{len(str(epochs))}d}/{epochs}" if epochs else f"{epoch}"


def _value(name: str, value: float) -> str:
    written = name.replace("validation_", "val ").replace("_", " ")
    return f"{written} {value * 100:.1f} %" if name.endswith("accuracy") else f"{written} {value:.4f}"
