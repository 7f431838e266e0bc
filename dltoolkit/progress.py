"""Progress messages on stderr: a live display on a terminal, one line per epoch otherwise."""

from __future__ import annotations

import functools
import io
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar
from rich.table import Column
from rich.text import Text

from dltoolkit import cluster, display, streams

LIVE_INTERVAL = 0.1  # minimum seconds between two updates of the live display, so that it costs almost no time
LINE_WIDTH = 80  # maximum columns of the line about an epoch
VALUES_WIDTH = 26  # columns of the metrics next to a progress bar
BAR_WIDTH = 16  # columns of a progress bar, which leaves room for its description and two metrics
LOSSES = ("loss", "validation_loss")
NOT_METRICS = ("epoch", "step", "seconds", "learning_rate")  # columns of history.csv
# Names of metrics that would make the line about an epoch too long, and their abbreviations
ABBREVIATIONS = {
    "accuracy": "acc",
    "balanced_accuracy": "bal. acc",
    "macro_f1": "F1",
    "discriminator_loss": "D loss",
    "kernel_distance": "kernel dist.",
}

_open: list[_Live] = []  # the live displays that are open, the innermost last; only the innermost is visible


def console() -> Console:
    """Return a console that writes to the current ``sys.stderr``. Only the chief's console prints."""
    return _console(sys.stderr, not cluster.is_chief())


@functools.lru_cache(maxsize=2)  # a live display makes room for messages only if they go through the same console
def _console(file: Any, quiet: bool) -> Console:
    if file is None:  # a Python program whose stderr is closed
        return Console(file=io.StringIO(), quiet=True)
    is_terminal = file.isatty()
    if is_terminal:  # a copy of the file descriptor shows progress also while TensorFlow is kept from writing
        file = streams.unfailing(os.dup(file.fileno()), encoding=file.encoding)
    return Console(file=file, highlight=False, soft_wrap=not is_terminal, quiet=quiet)


def note(message: str) -> None:
    """Print a message of one line on stderr."""
    console().print(display.sentence(message), markup=False)


def warn(message: str) -> None:
    """Print a warning on stderr, on every worker."""
    screen = _console(sys.stderr, False)
    screen.print(Text.assemble(("Warning:", "yellow"), f" {display.sentence(message)}"))


def block(lines: str) -> None:
    """Print lines on stderr whose control characters are visible already."""
    console().print(lines, markup=False)


def width() -> int:
    """Return the number of columns of the terminal on stderr; :data:`LINE_WIDTH` if stderr is none."""
    screen = console()
    return screen.width if screen.is_terminal else LINE_WIDTH


class _Live:
    """A live display on one line, which is hidden while another one is open inside it."""

    def __init__(self, *columns: Any):
        options = {"transient": True, "redirect_stdout": False, "redirect_stderr": False}
        self.bar = Bar(SpinnerColumn(), *columns, console=console(), **options)

    def open(self) -> Bar:
        if _open:
            _open[-1].bar.stop()
        _open.append(self)
        self.bar.start()
        return self.bar

    def close(self) -> None:
        self.bar.stop()
        _open.remove(self)
        if _open:
            _open[-1].bar.start()


@contextmanager
def _live(*columns: Any) -> Iterator[Bar]:
    display = _Live(*columns)
    try:
        yield display.open()
    finally:
        display.close()


def _text(template: str, max_width: int) -> TextColumn:
    """Return a column of text that is cut to a width, so that the columns next to it keep theirs."""
    column = Column(no_wrap=True, overflow="ellipsis", max_width=max_width)
    return TextColumn(template, markup=False, table_column=column)


@contextmanager
def phase(activity: str) -> Iterator[None]:
    """Show on a terminal what is being done, and for how long, until the block ends.

    Args:
        activity: What is being done, such as "Fitting the linear baseline".
    """
    if not console().is_terminal:
        yield
        return
    with _live(_text("{task.description}", 64), TimeElapsedColumn()) as bar:
        bar.add_task(display.visible(activity), total=None)
        yield


@contextmanager
def counting() -> Iterator[Any]:
    """Yield a function ``report(label, done, total)`` that shows the progress of a scan or a download on a terminal."""
    if not console().is_terminal:
        yield lambda label, done, total: None
        return
    columns = _text("{task.description}", 30), BarColumn(BAR_WIDTH), MofNCompleteColumn(), TimeRemainingColumn()
    with _live(*columns) as bar:
        tasks: dict[str, Any] = {}

        def report(label: str, done: int, total: int) -> None:
            if label not in tasks:
                for earlier in tasks.values():
                    bar.update(earlier, visible=False)
                tasks[label] = bar.add_task(display.visible(label), total=total)
            bar.update(tasks[label], completed=done, total=total)

        yield report


class EpochDisplay:
    """A progress bar for the current epoch on a terminal, and one line for each finished epoch."""

    def __init__(self) -> None:
        self._screen = console()
        self._live: _Live | None = None
        self._task: Any = None
        self._updated = 0.0

    def start(self, epoch: int, epochs: int | None, steps: int, *, estimated: bool = False) -> None:
        """Show the beginning of an epoch.

        Args:
            epoch: Number of the epoch, from 1.
            epochs: Planned number of epochs, or None if they are not planned yet.
            steps: Number of steps in the epoch.
            estimated: Whether the number of epochs is a first estimate, shown as ``~44``.
        """
        if not self._screen.is_terminal:
            return
        values = ""
        if self._live is None:
            columns = (
                BarColumn(BAR_WIDTH),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                _text("{task.fields[values]}", VALUES_WIDTH),
            )
            self._live = _Live(_text("{task.description}", 16), *columns)
            self._task = self._live.open().add_task("", total=steps, values="")
            values = "compiling the model"
        description = f"epoch {_format_epoch(epoch, epochs, estimated)}"
        self._live.bar.reset(self._task, description=description, total=steps, values=values)

    def step(self, done: int, logs: Mapping[str, float] | None) -> None:
        """Show how many steps of the epoch are done. Calling this at every step costs almost no time."""
        now = time.monotonic()
        if self._live is None or now - self._updated < LIVE_INTERVAL:
            return
        self._updated = now
        self._live.bar.update(self._task, completed=done, values=live_metrics(logs or {}))

    def validating(self, steps: int) -> None:
        """Show that the ``steps`` of the epoch are done and its validation has begun."""
        if self._live is not None:
            self._live.bar.update(self._task, completed=steps, values="validating")

    def end(self, epoch: int, epochs: int | None, row: Mapping[str, float], best: bool, **options: Any) -> None:
        """Print the line of a finished epoch; see :func:`epoch_line`."""
        self._screen.print(epoch_line(epoch, epochs, row, best, **options), markup=False)

    def close(self) -> None:
        """Remove the progress bar."""
        if self._live is not None:
            self._live.close()
            self._live = None


def live_metrics(logs: Mapping[str, float]) -> str:
    """Return the first metrics of a step, as many as fit next to a progress bar."""
    text = ""
    for metric in _format_metrics(logs).values():
        longer = f"{text}  {metric}" if text else metric
        if len(longer) > VALUES_WIDTH:
            break
        text = longer
    return text


def epoch_line(
    epoch: int,
    epochs: int | None,
    row: Mapping[str, float],
    best: bool,
    monitor: str = "",
    *,
    estimated: bool = False,
) -> str:
    """Return the line about a finished epoch, with as many metrics as fit: the monitored one and the loss come first.

    Args:
        epoch: Number of the epoch, from 1.
        epochs: Planned number of epochs, or None.
        row: The epoch's row of history.csv.
        best: Whether the epoch is the best one so far.
        monitor: Column of history.csv that selects the best epoch.
        estimated: Whether the number of epochs is a first estimate, shown as ``~44``.
    """
    begin = f"epoch {_format_epoch(epoch, epochs, estimated)}"
    end = f"{row['seconds']:.1f} s{'  best' if best else ''}"
    metrics = _format_metrics({name: value for name, value in row.items() if name not in NOT_METRICS})
    width, shown = len(f"{begin}  {end}") if best else len(f"{begin}  {end}  best"), set()
    rank = {name: (name != monitor, name not in LOSSES, not name.startswith("validation_")) for name in metrics}
    for name in sorted(metrics, key=rank.get):
        if width + 2 + len(metrics[name]) <= LINE_WIDTH:
            width += 2 + len(metrics[name])
            shown.add(name)
    shown = [name for name in metrics if name in shown]
    shown.sort(key=lambda name: (name.startswith("validation_"), name.removeprefix("validation_") != "loss"))
    return "  ".join([begin, *(metrics[name] for name in shown), end])


def duration(seconds: float) -> str:
    """Format seconds as ``8.4 s``, ``3 min 20 s`` or ``1 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def rough_duration(seconds: float) -> str:
    """Format estimated seconds with one or two digits: ``3 s``, ``40 s``, ``3 min`` or ``1 h 20 min``."""
    if seconds < 9.5:
        return f"{max(1, round(seconds))} s"
    if seconds < 57:
        return f"{round(seconds / 5) * 5} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60 // 10 * 10} min"


def _format_epoch(epoch: int, epochs: int | None, estimated: bool) -> str:
    return f"{epoch:{len(str(epochs))}d}/{'~' if estimated else ''}{epochs}" if epochs else f"{epoch}"


def _format_metrics(values: Mapping[str, float]) -> dict[str, str]:
    """Return metrics as text, by name. Next to the loss of a discriminator, the other loss is the generator's."""
    return {
        name: _format_metric("G loss" if name == "loss" and "discriminator_loss" in values else name, value)
        for name, value in values.items()
    }


def _format_metric(name: str, value: float) -> str:
    stem = name.removeprefix("validation_")
    label = ("val " if stem != name else "") + ABBREVIATIONS.get(stem, stem.replace("_", " "))
    return f"{label} {value:.3f}" if value == 0 or abs(value) >= 0.01 else f"{label} {value:.1e}"
