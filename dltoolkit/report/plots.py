"""The pictures of a report, each returned as the bytes of a PNG file.

Figures are drawn without pyplot, so nothing global is touched and no window is ever opened. The background is white;
the report's dark mode inverts the charts, which the chosen colours survive.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from PIL import Image

if TYPE_CHECKING:
    from dltoolkit.evaluation.classification import Mistake

FONT = "DejaVu Sans"  # comes with matplotlib, so every machine draws the same
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
LEARNERS = {
    "fine-tuned": "fine-tuned",
    "probe": "a head on frozen features",
    "scratch": "a small network from scratch",
    "linear": "a linear model",
}
NOT_CURVES = ("epoch", "step", "learning_rate", "seconds")
ANNOTATED = 20  # classes up to which the numbers stand in the cells of a confusion matrix
NAMED = 100  # names along an axis; of more classes, every second or third is named


def _styled(draw):
    """Draw in this module's style, whatever the user's own matplotlib settings are, and leave those as they were."""

    @functools.wraps(draw)
    def drawn(*args, **options) -> bytes:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(STYLE)
            png = io.BytesIO()
            FigureCanvasAgg(draw(*args, **options)).print_png(png)  # savefig would draw twice
        return png.getvalue()

    return drawn


@_styled
def curves(history: Sequence[Mapping[str, float]], best_epoch: float | None = None) -> Figure:
    """Draw every column of a history against the epoch, training and validation in one panel.

    Args:
        history: one mapping an epoch; a value may be missing. ``X`` and ``validation_X`` share a panel.
        best_epoch: where to draw the line that marks the epoch that was kept.
    """
    columns = dict.fromkeys(name.removeprefix("validation_") for row in history for name in row)
    names = sorted((name for name in columns if name not in NOT_CURVES), key=lambda name: name != "loss")
    across = min(2, len(names))
    down = math.ceil(len(names) / across)
    figure = Figure(figsize=(5.2 * across, 3.1 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for name, axes in zip(names, panels[: len(names)], strict=True):
        for column, label, colour in ((name, "training", TRAINING), (f"validation_{name}", "validation", VALIDATION)):
            points = [(row["epoch"], row[column]) for row in history if _finite(row.get(column))]
            if points:
                marker = "o" if len(points) < 40 else ""
                axes.plot(
                    *np.transpose(points), color=colour, linewidth=1.8, marker=marker, markersize=3.5, label=label
                )
        if best_epoch is not None:
            axes.axvline(best_epoch, color=FAINT, linewidth=1, linestyle=DASHED, label=f"best epoch ({best_epoch:g})")
        axes.set(title=name.replace("_", " "), xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(history[0]["epoch"] - 0.5, history[-1]["epoch"] + 0.5)
        if name == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(True)
        axes.legend(fontsize=8.5)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    return figure


@_styled
def learning_curve(points: Sequence[Mapping[str, float]]) -> Figure:
    """Draw accuracy against the labels of each class: every run a dot, a line through the means of each way.

    Args:
        points: one mapping a run, ``labels`` and the accuracies of the ways in ``LEARNERS`` that it has.
    """
    figure = Figure(figsize=(7.2, 4.0), layout="constrained")
    axes = figure.subplots()
    labels = sorted({point["labels"] for point in points})
    for (way, name), colour in zip(LEARNERS.items(), (TRAINING, VALIDATION, "#3d9a50", FAINT), strict=True):
        found = {n: [point[way] for point in points if point["labels"] == n and way in point] for n in labels}
        found = {n: values for n, values in found.items() if values}
        if found:
            axes.plot(found.keys(), [np.mean(values) for values in found.values()], color=colour, label=name)
            dots = [(n, value) for n, values in found.items() for value in values]
            axes.plot(*np.transpose(dots), "o", color=colour, markersize=3.5, alpha=0.6)
    axes.set(xscale="log", xlabel="labels of each class", title="test accuracy")
    axes.set_xticks(labels, [f"{n:.0f}" for n in labels])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(True)
    axes.legend(fontsize=8.5)
    return figure


@_styled
def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str], *, normalised: bool = False) -> Figure:
    """Draw a confusion matrix, rows the truth: counts, or per cent of each row.

    The colours follow the square root, so that a few confusions still show beside a strong diagonal.
    """
    counts = np.asarray(matrix, float)
    values = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) if normalised else counts
    size = len(classes)
    side = 5.0 + 0.08 * min(max(0, size - ANNOTATED), 90) + 0.12 * min(max(0, size - 10), 10)
    figure = Figure(figsize=(side + 0.4, side), layout="constrained")
    axes = figure.subplots()
    top = 100.0 if normalised else max(values.max(), 1.0)
    image = axes.imshow(values, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=top), interpolation="nearest")
    every = math.ceil(size / NAMED)
    ticks = range(0, size, every)
    names = [label(classes[i], i, longest=16) for i in ticks]
    small = {"fontsize": 9 if size <= 12 else 7.5 if size <= 30 else 5.5}
    axes.set_xticks(ticks, names, rotation=90 if max(map(len, names)) > 3 or size > 40 else 0, **small)
    axes.set_yticks(ticks, names, **small)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="predicted", ylabel="truth", title="per cent of each true class" if normalised else "counts")
    if size <= ANNOTATED:
        between = np.arange(1, size) - 0.5
        axes.hlines(between, -0.5, size - 0.5, color="white", linewidth=1.5)
        axes.vlines(between, -0.5, size - 0.5, color="white", linewidth=1.5)
        for row, column in np.argwhere(counts > 0):
            value = values[row, column]
            text = f"{value:.0f}" if not normalised or value >= 9.95 else f"{value:.1f}"
            colour = "white" if value > 0.36 * top else INK
            size_of_text = min(9, 120 / size) - 0.7 * max(0, len(text) - 3)
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size_of_text)
    else:
        bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=30, pad=0.02)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=8, length=2)
    return figure


@_styled
def reliability(bins: Mapping[str, Sequence[float]]) -> Figure:
    """Draw what ``metrics.reliability`` returns: accuracy against confidence, and how many answers are in each bin."""
    count, accuracy, confidence = (np.asarray(bins[name], float) for name in ("count", "accuracy", "confidence"))
    width = 1 / len(count)
    left = np.arange(len(count)) * width
    used = count > 0
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    style = {"width": width * 0.94, "align": "edge"}
    above.bar(left[used], accuracy[used], color=TRAINING, alpha=0.85, label="accuracy in the bin", **style)
    above.plot([0, 1], [0, 1], color=FAINT, linewidth=1.2, linestyle=DASHED, label="perfectly calibrated")
    above.plot(confidence[used], accuracy[used], "o", color=VALIDATION, markersize=4, label="at the mean confidence")
    above.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy", title="accuracy against confidence")
    above.legend(fontsize=8.5, loc="upper left")
    below.bar(left, count / max(count.sum(), 1), color=FAINT, **style)
    below.set(xlabel="confidence", ylabel="share of answers")
    for axes in (above, below):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.grid(True, axis="y")
        axes.set_axisbelow(True)
    return figure


@_styled
def mistakes(wrong: Sequence[Mistake], classes: Sequence[str]) -> Figure:
    """Draw mistakes that have a picture, in rows of five, with truth, answer, its probability and the file's name."""
    numbers = {name: number for number, name in enumerate(classes)}
    wrong = [mistake for mistake in wrong if mistake.image is not None]
    cell, gap, room = 96, 44, 62  # pixels: a picture, between two, and under each for its three lines
    across = min(5, len(wrong))
    down = math.ceil(len(wrong) / across)
    canvas = np.full((down * (cell + room), across * (cell + gap), 3), 255, np.uint8)
    figure = Figure(figsize=(canvas.shape[1] / 80, canvas.shape[0] / 80))
    axes = figure.add_axes((0, 0, 1, 1))
    for number, mistake in enumerate(wrong):
        top, left = number // across * (cell + room), number % across * (cell + gap) + gap // 2
        small = np.asarray(_fit(mistake.image, cell).convert("RGB"))
        y, x = top + (cell - small.shape[0]) // 2, left + (cell - small.shape[1]) // 2
        canvas[y : y + small.shape[0], x : x + small.shape[1]] = small
        truth, answer = (label(name, numbers.get(name)) for name in (mistake.truth, mistake.predicted))
        lines = [
            (f"truth: {truth}", INK),
            (f"{answer} ({100 * mistake.probability:.0f} %)", "#b42318"),
            (label(mistake.name.replace("\\", "/").rpartition("/")[2]), FAINT),
        ]
        for line, (text, colour) in enumerate(lines):
            place = left + cell / 2, top + cell + 5 + 16 * line
            axes.text(*place, text, ha="center", va="top", color=colour, fontsize=7)
    axes.imshow(canvas, interpolation="nearest")
    axes.set_axis_off()
    return figure


def page(images: np.ndarray, *, most: int = 48) -> bytes:
    """Lay pictures, uint8 (n, height, width, channels), side by side on a transparent page; the first ``most``."""
    images = images[:most]
    height, width = images.shape[1:3]
    factor = max(1, 72 // max(height, width))
    scale = factor if factor > 1 else min(1.0, 112 / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    smoothly = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BOX
    across = min(len(images), max(1, 1000 // (size[0] + 4)), math.ceil(math.sqrt(3 * len(images))))
    down = math.ceil(len(images) / across)
    across = math.ceil(len(images) / down)  # so that the last row is not nearly empty
    sheet = Image.new("RGBA", (across * (size[0] + 4) - 4, down * (size[1] + 4) - 4), (0, 0, 0, 0))
    for number, image in enumerate(images):
        place = number % across * (size[0] + 4), number // across * (size[1] + 4)
        sheet.paste(_picture(image).resize(size, smoothly), place)
    return _encoded(sheet)


def animation(pngs: Sequence[bytes], *, most: int = 60, seconds: float = 8.0) -> bytes:
    """Return a GIF of pictures given as PNGs, evenly chosen where there are more than ``most``."""
    chosen = [pngs[i] for i in np.unique(np.linspace(0, len(pngs) - 1, min(most, len(pngs))).round().astype(int))]
    frames = []
    for png in chosen:
        with Image.open(io.BytesIO(png)) as picture:
            picture = picture.convert("RGBA")
            frames.append(Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB"))
    gif = io.BytesIO()
    durations = [max(40, round(1000 * seconds / len(frames)))] * (len(frames) - 1) + [2000]
    frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return gif.getvalue()


def thumbnail(image: np.ndarray, *, side: int = 160) -> bytes:
    """Return one picture, uint8 (height, width, channels), as a PNG of at most ``side`` pixels."""
    picture = _picture(image)
    if max(picture.size) > side:
        picture.thumbnail((side, side), Image.Resampling.BOX)
    return _encoded(picture)


def png(image: np.ndarray) -> bytes:
    """Return one picture, uint8 (height, width, channels), as a PNG."""
    return _encoded(_picture(image))


def label(text: str, number: int | None = None, *, longest: int = 22) -> str:
    """Return a class or file name as the charts can draw it: on one line, not long, without letters the font lacks.

    Where letters had to go, ``#number`` stands in for them.
    """
    text = " ".join(text.split())
    stand_in = ("…" if number is None else f"#{number}") if unspeakable(text) else ""
    shown = "".join(letter for letter in text if ord(letter) in _letters())
    if len(shown) > longest:
        shown = shown[: longest - 1] + "…"
    shown = f"{shown.strip()} {stand_in}".strip()
    return shown.replace("$", r"\$")  # else two dollar signs would begin a formula


def unspeakable(text: str) -> bool:
    """Say whether a name holds letters that the charts' font lacks."""
    return not _letters().issuperset(map(ord, " ".join(text.split())))


@functools.cache
def _letters() -> frozenset[int]:
    """The code points that the font can draw."""
    return frozenset(font_manager.get_font(font_manager.findfont(FONT)).get_charmap())


def _picture(image: np.ndarray) -> Image.Image:
    """A Pillow image of uint8 (h, w), (h, w, 1), (h, w, 3) or (h, w, 4); of other depths the first channel."""
    image = np.asarray(image, np.uint8)
    if image.ndim == 3 and image.shape[2] not in (3, 4):
        image = image[..., 0]
    return Image.fromarray(np.ascontiguousarray(image))


def _encoded(picture: Image.Image) -> bytes:
    png = io.BytesIO()
    picture.save(png, "PNG")
    return png.getvalue()


def _fit(image: np.ndarray, side: int) -> Image.Image:
    """The picture at the largest size that fits a square of ``side`` pixels."""
    picture = _picture(image)
    scale = side / max(picture.size)
    size = tuple(max(1, round(edge * scale)) for edge in picture.size)
    return picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX)


def _finite(value: float | None) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
