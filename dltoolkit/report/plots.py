"""The plots of a report, each returned as the bytes of a PNG file.

Figures are drawn without pyplot, so no global state changes and no window opens. The background is white; the dark
mode of the report inverts the charts, and their colors remain distinguishable.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from dltoolkit import display, progress
from dltoolkit.formatting import is_fraction, metric_label, percent
from dltoolkit.report import image_grids

if TYPE_CHECKING:
    from dltoolkit.evaluation.classification import Mistake

FONT = "DejaVu Sans"  # ships with matplotlib, so that plots are the same on every machine
TRAINING, VALIDATION, INK, FAINT = "#2563c9", "#e07b1a", "#2b3440", "#8a94a3"
DASHED = (0, (4, 3))
STYLE = {
    "font.family": FONT,
    "font.size": 10,
    "text.usetex": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "white",
    "figure.facecolor": "white",
    "figure.dpi": 150,
    "grid.color": "#e3e7ec",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}
METHODS = {
    "fine-tuned": "fine-tuned",
    "linear_probe": "linear probe",
    "from_scratch": "trained from scratch",
    "linear": "linear model",
}
MAX_ANNOTATED = 20  # classes up to which the cells of a confusion matrix show numbers


def _as_png(plot: Callable[..., Figure]) -> Callable[..., bytes]:
    """Render the figure that a function returns, in the style of this module; the user's settings are restored."""

    @functools.wraps(plot)
    def render(*args, **options) -> bytes:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(STYLE)
            png = io.BytesIO()
            FigureCanvasAgg(plot(*args, **options)).print_png(png)  # savefig would render twice
        return png.getvalue()

    return render


@_as_png
def curves(history: Sequence[Mapping[str, float]], best_epoch: float | None = None) -> Figure:
    """Plot every column of a history against the epoch, training and validation in one panel.

    Args:
        history: One mapping per epoch; values may be missing. ``X`` and ``validation_X`` share a panel.
        best_epoch: Epoch that a dashed line marks.
    """
    names = curve_names(history)
    columns = min(2, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(5.2 * columns, 3.1 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for name, axes in zip(names, panels[: len(names)], strict=True):
        for column, label, color in ((name, "training", TRAINING), (f"validation_{name}", "validation", VALIDATION)):
            points = [(row["epoch"], row[column]) for row in history if _finite(row.get(column))]
            if points:
                marker = "o" if len(points) < 40 else ""
                axes.plot(*np.transpose(points), color=color, linewidth=1.8, marker=marker, markersize=3.5, label=label)
        if best_epoch is not None:
            axes.axvline(best_epoch, color=FAINT, linewidth=1, linestyle=DASHED, label=f"best epoch ({best_epoch:g})")
        axes.set(title=metric_label(name), xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(history[0]["epoch"] - 0.5, history[-1]["epoch"] + 0.5)
        if is_fraction(name):
            axes.yaxis.set_major_formatter(_percent_formatter(None))
        axes.grid(True)
        axes.legend(fontsize=8.5)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    return figure


def curve_names(history: Sequence[Mapping[str, float]]) -> list[str]:
    """Return the metrics of a history that have values in two epochs, and thus a curve; the loss comes first."""
    metrics = dict.fromkeys(name.removeprefix("validation_") for row in history for name in row)

    def has_curve(name: str) -> bool:
        columns = ([row.get(column) for row in history] for column in (name, f"validation_{name}"))
        return name not in progress.NOT_METRICS and any(sum(map(_finite, values)) > 1 for values in columns)

    return sorted(filter(has_curve, metrics), key=lambda name: name != "loss")


@_as_png
def learning_curve(points: Sequence[Mapping[str, float]]) -> Figure:
    """Plot accuracy against labels per class: a dot for every run, and a line through the means of each method.

    Args:
        points: One mapping per run: ``labels``, and the accuracies of those methods of ``METHODS`` that it has.
    """
    figure = Figure(figsize=(7.2, 4.0), layout="constrained")
    axes = figure.subplots()
    labels = sorted({point["labels"] for point in points})
    for (method, name), color in zip(METHODS.items(), (TRAINING, VALIDATION, "#3d9a50", FAINT), strict=True):
        accuracies = {
            n: [point[method] for point in points if point["labels"] == n and method in point] for n in labels
        }
        accuracies = {n: values for n, values in accuracies.items() if values}
        if accuracies:
            axes.plot(accuracies.keys(), [np.mean(values) for values in accuracies.values()], color=color, label=name)
            dots = [(n, value) for n, values in accuracies.items() for value in values]
            axes.plot(*np.transpose(dots), "o", color=color, markersize=3.5, alpha=0.6)
    axes.set(xscale="log", xlabel="labels per class", title="test accuracy")
    axes.set_xticks(labels, [f"{n:.0f}" for n in labels])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(_percent_formatter())
    axes.grid(True)
    axes.legend(fontsize=8.5)
    return figure


@_as_png
def confusion(
    matrix: Sequence[Sequence[int]],
    classes: Sequence[str],
    *,
    normalize: bool = False,
    shown: Sequence[int] | None = None,
) -> Figure:
    """Plot a confusion matrix, whose rows are the true classes: counts, or percent of each row.

    The color scale is the square root of the value, so that rare confusions are visible next to a strong diagonal.

    Args:
        matrix: Counts (n, n).
        classes: Name of each class.
        normalize: Whether to plot percent of each row.
        shown: Numbers of the classes whose rows and columns are plotted; by default all. Percentages always refer to
            all examples of a class.
    """
    shown = np.arange(len(classes)) if shown is None else np.asarray(shown)
    counts = np.asarray(matrix, float)
    values = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) if normalize else counts
    counts, values = (cells[np.ix_(shown, shown)] for cells in (counts, values))
    size = len(shown)
    side = 5.0 + 0.08 * max(0, size - MAX_ANNOTATED) + 0.12 * min(max(0, size - 10), 10)
    figure = Figure(figsize=(side + 0.4, side), layout="constrained")
    axes = figure.subplots()
    top = 100.0 if normalize else max(values.max(), 1.0)
    image = axes.imshow(values, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=top), interpolation="nearest")
    names = [tick_label(classes[i], i, max_length=16) for i in shown]
    style = {"fontsize": 9 if size <= 12 else 7.5 if size <= 30 else 6.5}
    axes.set_xticks(range(size), names, rotation=90 if max(map(len, names)) > 3 or size > 40 else 0, **style)
    axes.set_yticks(range(size), names, **style)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="predicted", ylabel="truth", title="percent of each true class" if normalize else "counts")
    if size <= MAX_ANNOTATED:
        between = np.arange(1, size) - 0.5
        axes.hlines(between, -0.5, size - 0.5, color="white", linewidth=1.5)
        axes.vlines(between, -0.5, size - 0.5, color="white", linewidth=1.5)
        for row, column in np.argwhere(counts > 0):
            value = values[row, column]
            text = f"{value:.0f}" if not normalize or value >= 9.95 else f"{value:.1f}"
            color = "white" if value > 0.36 * top else INK
            font_size = min(9, 120 / size) - 0.7 * max(0, len(text) - 3)
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=font_size)
    else:
        bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=30, pad=0.02)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=8, length=2)
    return figure


@_as_png
def reliability(bins: Mapping[str, Sequence[float]]) -> Figure:
    """Plot the result of ``metrics.reliability``: accuracy against confidence, and the share of examples per bin."""
    count, accuracy, confidence = (np.asarray(bins[name], float) for name in ("count", "accuracy", "confidence"))
    width = 1 / len(count)
    left = np.arange(len(count)) * width
    used = count > 0
    figure = Figure(figsize=(5.2, 4.8), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    style = {"width": width * 0.94, "align": "edge"}
    above.bar(left[used], accuracy[used], color=TRAINING, alpha=0.85, label="accuracy in the bin", **style)
    above.plot([0, 1], [0, 1], color=FAINT, linewidth=1.2, linestyle=DASHED, label="perfectly calibrated")
    above.plot(confidence[used], accuracy[used], "o", color=VALIDATION, markersize=4, label="at the mean confidence")
    above.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy", title="accuracy against confidence")
    figure.legend(fontsize=8.5, loc="outside lower center", ncols=3)
    below.bar(left, count / max(count.sum(), 1), color=FAINT, **style)
    below.set(xlabel="confidence", ylabel="share")
    for axes in (above, below):
        axes.yaxis.set_major_formatter(_percent_formatter())
        axes.xaxis.set_major_formatter(_percent_formatter())
        axes.grid(True, axis="y")
        axes.set_axisbelow(True)
    return figure


@_as_png
def ranking(curves: Mapping[str, Sequence[float]]) -> Figure:
    """Plot the ROC curve and the precision-recall curve of one class next to each other.

    Args:
        curves: Result of ``ranking.curves``.
    """
    share = float(curves["prevalence"])
    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    roc, precision_recall = figure.subplots(1, 2)
    roc.plot(curves["false_positive_rate"], curves["true_positive_rate"], color=TRAINING, linewidth=1.8)
    roc.plot([0, 1], [0, 1], color=FAINT, linewidth=1.2, linestyle=DASHED, label="chance")
    roc.set(xlabel="false positive rate", ylabel="true positive rate", title=f"ROC, AUC {curves['roc_auc']:.3f}")
    precision_recall.step(curves["recall"], curves["precision"], where="post", color=TRAINING, linewidth=1.8)
    precision_recall.axhline(share, color=FAINT, linewidth=1.2, linestyle=DASHED, label="chance")
    title = f"precision and recall, average precision {curves['average_precision']:.3f}"
    precision_recall.set(xlabel="recall", ylabel="precision", title=title)
    for axes in (roc, precision_recall):
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.xaxis.set_major_formatter(_percent_formatter())
        axes.yaxis.set_major_formatter(_percent_formatter())
        axes.grid(True)
        axes.legend(fontsize=8.5, loc="lower right" if axes is roc else "lower left")
    return figure


@_as_png
def mistakes(wrong: Sequence[Mistake], classes: Sequence[str]) -> Figure:
    """Plot mistakes that have an image, five in a row, with truth, prediction, probability and file name."""
    numbers = {name: number for number, name in enumerate(classes)}
    wrong = [mistake for mistake in wrong if mistake.image is not None]
    cell, gap, caption = 96, 44, 62  # pixels: side of an image, space between two, height of the three lines below
    columns = min(5, len(wrong))
    rows = math.ceil(len(wrong) / columns)
    canvas = np.full((rows * (cell + caption), columns * (cell + gap), 3), 255, np.uint8)
    figure = Figure(figsize=(canvas.shape[1] / 80, canvas.shape[0] / 80))
    axes = figure.add_axes((0, 0, 1, 1))
    for number, mistake in enumerate(wrong):
        top, left = number // columns * (cell + caption), number % columns * (cell + gap) + gap // 2
        fitted = np.asarray(image_grids.fit(mistake.image, cell).convert("RGB"))
        y, x = top + (cell - fitted.shape[0]) // 2, left + (cell - fitted.shape[1]) // 2
        canvas[y : y + fitted.shape[0], x : x + fitted.shape[1]] = fitted
        truth, predicted = (tick_label(name, numbers.get(name)) for name in (mistake.truth, mistake.predicted))
        lines = [
            (f"truth: {truth}", INK),
            (f"{predicted} ({percent(mistake.probability)})", "#b42318"),
            (tick_label(mistake.name.replace("\\", "/").rpartition("/")[2]), FAINT),
        ]
        for line, (text, color) in enumerate(lines):
            x, y = left + cell / 2, top + cell + 5 + 16 * line
            axes.text(x, y, text, ha="center", va="top", color=color, fontsize=7)
    axes.imshow(canvas, interpolation="nearest")
    axes.set_axis_off()
    return figure


def display_width(png: bytes) -> int:
    """Return the width in CSS pixels at which a plot is shown: 100 per inch."""
    pixels = int.from_bytes(png[16:20], "big")  # the width in the header of a PNG
    return round(100 * pixels / STYLE["figure.dpi"])


def tick_label(text: str, number: int | None = None, *, max_length: int = 22) -> str:
    """Return a class or file name on one short line, without characters that the font lacks.

    ``#number`` stands for removed characters.
    """
    text = display.visible(" ".join(text.split()))
    replacement = ("…" if number is None else f"#{number}") if has_missing_glyphs(text) else ""
    shown = "".join(character for character in text if ord(character) in _glyphs())
    if len(shown) > max_length:
        shown = shown[: max_length - 1] + "…"
    shown = f"{shown.strip()} {replacement}".strip()
    return shown.replace("$", r"\$")  # two dollar signs would enclose a formula


def has_missing_glyphs(text: str) -> bool:
    """Return whether a name contains characters that the font of the charts lacks."""
    return not _glyphs().issuperset(map(ord, " ".join(text.split())))


@functools.cache
def _glyphs() -> frozenset[int]:
    """Return the code points that the font contains."""
    return frozenset(font_manager.get_font(font_manager.findfont(FONT)).get_charmap())


def _percent_formatter(decimals: int | None = 0) -> PercentFormatter:
    return PercentFormatter(1.0, decimals=decimals, symbol=" %")


def _finite(value: float | None) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
