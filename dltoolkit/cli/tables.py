"""Tables for people and JSON for programs, on stdout."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

import click

from dltoolkit import display, streams
from dltoolkit.formatting import metric_label, metric_value, percent

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


def print_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows in aligned columns without frames, so that cut and awk can read them; a cell never breaks a line."""
    lines = [[display.visible(cell) for cell in line] for line in ([header, *rows] if header else rows)]
    if not lines:
        return
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for number, line in enumerate(lines):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        if header and number == 0 and isinstance(sys.stdout, streams.Answers):
            sys.stdout.write_bold(text)
            text = ""
        click.echo(text)


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
