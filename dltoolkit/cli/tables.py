"""Tables for people and JSON for programs, on stdout."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

import click

from dltoolkit import display, streams
from dltoolkit.formatting import metric_label, metric_value, percent

MIN_COLUMN = 10  # columns of a terminal below which a column of a table is not narrowed
MAX_CELL = 2000  # characters of a cell of a table
METRICS = (
    *("accuracy", "balanced_accuracy", "macro_f1", "loss", "bits_per_character", "perplexity"),
    *("gan_train_accuracy", "frechet_distance", "coverage"),
)


def dump_json(value: Any, *, indent: int | None = None) -> str:
    r"""Return a value as JSON whose control characters are the escapes of JSON, such as ``\u001b``.

    Terminals execute none of them, and readers that split the text into lines do not split a string.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return text if text.isprintable() else display.HIDDEN.sub(_escape, text)


def _escape(match: re.Match) -> str:
    return "\n" if match[0] == "\n" else json.dumps(match[0])[1:-1]


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    click.echo(dump_json(value, indent=2))


def print_table(
    header: Sequence[str], rows: Sequence[Sequence[Any]], *, unbroken: Sequence[str] = (), break_words: bool = False
) -> None:
    """Print rows in aligned columns without frames.

    On a terminal, cells are wrapped so that the table is as wide as the terminal, as far as possible. Elsewhere, each
    row is one line, so that cut and awk can read it.

    Args:
        header: Names of the columns; empty for none.
        rows: The cells.
        unbroken: First cells of the rows that stay on one line, so that they can be copied: paths, commands.
        break_words: Whether cells are wrapped within words, too.
    """
    from rich.cells import cell_len  # imports Rich, which takes a noticeable part of the time of --help

    table = [[_shortened(display.visible(cell)) for cell in line] for line in ([header, *rows] if header else rows)]
    if not table:
        return
    lines = [[[cell] for cell in line] for line in table]
    if sys.stdout.isatty():
        columns = shutil.get_terminal_size().columns
        widths = _fit([line for line in table if line[0] not in unbroken], columns, break_words)
        lines = [
            [[cell] if line[0] in unbroken else _wrap(cell, width) for cell, width in zip(line, widths, strict=True)]
            for line in table
        ]
    wrapped = [line for line, cells in zip(lines, table, strict=True) if cells[0] not in unbroken] or lines
    widths = [max(cell_len(part) for line in wrapped for part in line[i]) for i in range(len(table[0]))]
    widths[0] = max(cell_len(part) for line in lines for part in line[0])
    parts = [parts for line in lines for parts in itertools.zip_longest(*line, fillvalue="")]
    for number, line in enumerate(parts):
        padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True))
        text = "  ".join(padded).rstrip()
        if header and number == 0 and isinstance(sys.stdout, streams.Answers):
            sys.stdout.write_bold(text)
            text = ""
        click.echo(text)


def _fit(table: Sequence[Sequence[str]], columns: int, break_words: bool) -> list[int]:
    """Return the widths of the columns of a table: the widest ones shrink until it fits, but not below their words."""
    from rich.cells import cell_len

    columns_of_cells = list(zip(*table, strict=True))
    widths = [max(map(cell_len, cells)) for cells in columns_of_cells]
    longest = [max(_word_len(word) for cell in cells for word in cell.split() or [""]) for cells in columns_of_cells]
    least = [min(word, MIN_COLUMN) if break_words else word for word in longest]
    while sum(widths) + 2 * (len(widths) - 1) > columns:
        shrinkable = [i for i, width in enumerate(widths) if width > max(1, least[i])]
        if not shrinkable:
            break
        widths[max(shrinkable, key=lambda i: widths[i])] -= 1
    return widths


def _wrap(cell: str, width: int) -> list[str]:
    from rich.cells import cell_len, chop_cells

    if cell_len(cell) <= width:
        return [cell]
    if cell_len(cell) > len(cell):
        return chop_cells(cell, width)
    return textwrap.wrap(cell, width, break_on_hyphens=False)


def _word_len(word: str) -> int:
    """Return the least width of a word; lines may end between wide characters, such as Chinese ones."""
    from rich.cells import cell_len

    return len(word) if cell_len(word) <= len(word) else 2


def _shortened(cell: str) -> str:
    return cell if len(cell) <= MAX_CELL else f"{cell[: MAX_CELL - 1]}…"


def metric_cells(metrics: dict[str, Any]) -> dict[str, str]:
    """Return the main metrics of a split as text, by label, the most important first."""
    from dltoolkit.evaluation import significance  # imports NumPy, which --help does not need

    names = [name for name in METRICS if name in metrics]
    if significance.main_metric(metrics) == "balanced_accuracy":
        names.sort(key=lambda name: name != "balanced_accuracy")
    return {metric_label(name): metric_value(name, metrics[name]) for name in names}


def print_evaluation(metrics: dict[str, Any]) -> None:
    """Print the overall metrics of an evaluation, and a row for each class."""
    rows = []
    for name, value in metrics.items():
        if isinstance(value, int | float):
            interval = metrics.get(f"{name}_ci95")
            bounds = "  (95 % interval {} to {})".format(*map(percent, interval)) if interval else ""
            rows.append([metric_label(name), f"{metric_value(name, value)}{bounds}"])
    for baseline, scores in metrics.get("baseline", {}).items():
        rows += [
            [f"{metric_label(baseline)} {metric_label(name)}", metric_value(name, value)]
            for name, value in scores.items()
        ]
    print_table([], rows)
    if "per_class" in metrics:
        click.echo()
        columns = ["precision", "recall", "f1"]
        rows = [
            [label, *(percent(scores[column]) for column in columns), f"{scores['support']:,}"]
            for label, scores in metrics["per_class"].items()
        ]
        print_table(["class", *columns, "support"], rows)
