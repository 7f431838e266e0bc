"""What a report is made from: all that is known of a run, and the pieces of HTML that its sections share."""

from __future__ import annotations

import base64
import functools
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit import progress
from dltoolkit.report import plots

if TYPE_CHECKING:
    from dltoolkit.evaluation.classification import Mistake
    from dltoolkit.evaluation.ngram_baseline import NgramWeight


@dataclass(frozen=True)
class Page:
    """Everything the sections draw on; any part may be empty in a run that is not finished.

    Attributes:
        path, info, metrics, history: the run's directory, run.json, metrics.json and rows of history.csv.
        mistakes: the worst ones, worst first.
        samples: pages of pictures, uint8 (n, height, width, channels), by the name of their file in plots/.
        reliability: what ``metrics.reliability`` returned.
        top_features: for each class the words that speak for it most, the most telling first.
        texts: what a text generator wrote after each epoch, by name, in order.
    """

    path: Path
    info: Mapping[str, Any]
    metrics: Mapping[str, Any]
    history: Sequence[Mapping[str, float]]
    mistakes: Sequence[Mistake] = ()
    samples: Mapping[str, np.ndarray] = field(default_factory=dict)
    reliability: Mapping[str, Any] | None = None
    top_features: Mapping[str, Sequence[NgramWeight]] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """The run's state; one that has its test scores is finished, though its last seconds still run."""
        state = str(self.info.get("state", "unknown"))
        return "finished" if state == "running" and self.test else state

    @property
    def test(self) -> Mapping[str, Any]:
        """The scores on the test split, or on validation where there is no test."""
        return self.metrics.get("test") or self.metrics.get("validation") or {}

    @property
    def classes(self) -> list[str]:
        """The class names in the order of the confusion matrix."""
        return list(self.test.get("per_class") or self.info.get("data", {}).get("classes") or [])

    @property
    def best(self) -> Mapping[str, float]:
        """The history's row of the epoch that was kept: best validation accuracy, kernel distance or loss."""
        for column, sign in (("validation_accuracy", 1), ("validation_kernel_distance", -1), ("validation_loss", -1)):
            rows = [row for row in self.history if math.isfinite(row.get(column, math.nan))]
            if rows:
                return max(rows, key=lambda row: (sign * row[column], -row.get("validation_loss", 0)))
        return {}

    @functools.cached_property
    def plots(self) -> dict[str, bytes]:
        """The PNG files that this run has something to show in, by name."""
        drawn = {}
        if any(column not in plots.NOT_CURVES for row in self.history for column in row):
            drawn["curves"] = plots.curves(self.history, self.best.get("epoch"))
        if points := self.info.get("learning_curve"):
            drawn["learning_curve"] = plots.learning_curve(points)
        if matrix := self.test.get("confusion"):
            drawn["confusion"] = plots.confusion(matrix, self.classes)
            drawn["confusion_normalised"] = plots.confusion(matrix, self.classes, normalised=True)
        if self.reliability is not None:
            drawn["reliability"] = plots.reliability(self.reliability)
        if any(mistake.image is not None for mistake in self.mistakes):
            drawn["mistakes"] = plots.mistakes(self.mistakes, self.classes)
        return drawn | {key: plots.page(images) for key, images in self.samples.items() if len(images)}


def escaped(value: Any) -> str:
    """Escape for HTML; a file name's undecodable bytes become question marks."""
    return html.escape(str(value).encode("utf-8", "replace").decode())


def named(value: Any) -> str:
    """A user's word, kept from turning the words around it when it is written right to left."""
    return f"<bdi>{escaped(value)}</bdi>"


def section(title: str, content: str, kind: str = "") -> str:
    """One card of the page; ``title`` is escaped, ``content`` is HTML."""
    return f'<section class="{kind}"><h2>{escaped(title)}</h2>{content}</section>'


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, most: int = 1000) -> str:
    """A table of HTML cells; what goes beyond ``most`` rows is folded away."""
    head = "".join(f"<th>{column}</th>" for column in columns)
    lines = ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows]
    whole = (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines[:most])}</tbody></table></div>'
    )
    if len(lines) > most:
        whole += f"<details><summary>{len(lines) - most} more</summary>{table(columns, rows[most:])}</details>"
    return whole


def pairs(rows: Mapping[str, Any]) -> str:
    """A list of names and values, both escaped; what has no value is left out."""
    lines = (
        f"<dt>{escaped(name)}</dt><dd>{escaped(value)}</dd>" for name, value in rows.items() if value not in (None, "")
    )
    return f"<dl>{''.join(lines)}</dl>"


def caption(text: str) -> str:
    """A quiet paragraph; ``text`` is HTML."""
    return f'<p class="caption">{text}</p>' if text else ""


def figure(png: bytes, alt: str, kind: str) -> str:
    """A PNG inside the page. Of kind "chart" (and then some) it is inverted in the dark and drawn to scale."""
    inches = int.from_bytes(png[16:20], "big") / plots.STYLE["figure.dpi"]  # a PNG's width stands there
    width = f' width="{100 * inches:.0f}"' if kind.startswith("chart") else ""
    source = base64.b64encode(png).decode()
    return f'<img class="{kind}" alt="{escaped(alt)}"{width} src="data:image/png;base64,{source}">'


def percent(share: float, digits: int = 1) -> str:
    """A share of 0.5 is "50.0 %", with a space at which no line is broken."""
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def duration(seconds: float | None) -> str | None:
    """Seconds in the words of people: 41.3 s, 3 min 20 s, 2 h 5 min."""
    return None if seconds is None else progress.duration(seconds)


def words(value: Any) -> str:
    """A JSON value in a line of words: ``{"kind": "cpu", "replicas": 2}`` is "kind cpu · replicas 2"."""
    if isinstance(value, Mapping):
        said = {key.replace("_", " "): words(part) for key, part in value.items()}
        return " · ".join(f"{key} {part}" for key, part in said.items() if part)
    if isinstance(value, list | tuple):
        return " × ".join(map(words, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return "" if value is None else str(value)
