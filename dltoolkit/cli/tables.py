"""Tables for people and JSON for programs, on stdout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from dltoolkit.formatting import metric_label, metric_value, percent

METRICS = (
    *("accuracy", "balanced_accuracy", "macro_f1", "loss", "bits_per_character", "perplexity"),
    *("gan_train_accuracy", "frechet_distance", "coverage"),
)


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows in aligned columns without frames, so that cut and awk can read them."""
    lines = [list(header), *rows] if header else list(rows)
    if not lines:
        return
    widths = [max(len(str(line[i])) for line in lines) for i in range(len(lines[0]))]
    for number, line in enumerate(lines):
        cells = [str(cell).ljust(width) for cell, width in zip(line, widths, strict=True)]
        text = "  ".join(cells).rstrip()
        click.echo(click.style(text, bold=True) if header and number == 0 else text)


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
