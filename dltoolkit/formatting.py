"""Metrics and data as the command line and the report display them: one label and one format for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

METRIC_LABELS = {
    "ece": "calibration error",
    "frechet_distance": "Fréchet distance",
    "gan_test_accuracy": "GAN-test accuracy",
    "gan_train_accuracy": "GAN-train accuracy",
    "macro_f1": "macro F1",
    "roc_auc": "ROC AUC",
}
FRACTIONS = {  # metrics from 0 to 1 that are shown in percent, besides all accuracies
    *("macro_precision", "macro_recall", "macro_f1", "ece"),
    *("precision", "recall", "coverage", "memorization_rate"),
}


def counted(count: int, noun: str) -> str:
    """Return a number with a regular noun: "1 step", "1,200 steps"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def percent(fraction: float, digits: int = 1) -> str:
    """Format 0.5 as "50.0 %"."""
    return f"{100 * fraction:.{digits}f} %"


def is_fraction(name: str) -> bool:
    """Return whether a metric is shown in percent."""
    return name in FRACTIONS or name.endswith("accuracy")


def metric_label(name: str) -> str:
    """Return the name of a metric or baseline in words: "Fréchet distance" for "frechet_distance"."""
    return METRIC_LABELS.get(name, name.replace("_", " "))


def metric_value(name: str, value: float) -> str:
    """Format a metric: a fraction in percent, an integer with separators, another number with four digits."""
    if is_fraction(name):
        return percent(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def data_rows(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return labels and values of what was read and of what was done to it.

    Args:
        data: The entry ``data`` of run.json; it may be incomplete.
    """
    splits, columns, resize = (data.get(key) or {} for key in ("splits", "columns", "resize"))
    scale, truncated, shape = (data.get(key) or {} for key in ("scale", "truncated", "image_shape"))
    unit = "tokens" if "characters" in data else "images" if shape else "texts"
    counts = ", ".join(f"{_count(count)} {name}" for name, count in splits.items())
    origin = f"; {data['split_origin']}" if data.get("split_origin") else ""
    rows = [
        ("data", str(data.get("source") or "")),
        ("splits", f"{counts} {unit}{origin}" if counts else ""),
        ("classes", _count(len(data["classes"])) if len(data.get("classes") or []) > 1 else ""),  # one: no labels
        ("columns", ", ".join(f"{meaning} from '{name}'" for meaning, name in columns.items())),
    ]
    if shape:
        rows.append(("image size", " × ".join(map(str, shape))))
    if "mode" in resize and (resize["mode"], resize.get("pixels_used")) != ("crop", 1):  # nothing was cut off
        used = f", {percent(resize['pixels_used'])} of the pixels used" if "pixels_used" in resize else ""
        rows.append(("resizing", f"{resize['mode']}{used}"))
    if "minimum" in scale:
        values = f"{_count(scale['minimum'])} to {_count(scale['maximum'])}"
        black, white = _count(scale["low"]), _count(scale["high"])
        rows.append(("values", f"{values} in the data; {black} becomes black and {white} white"))
    if truncated.get("count"):
        share, limit = percent(truncated["fraction"]), f"{truncated['max_length']} {truncated.get('unit', 'tokens')}"
        rows.append(("truncated", f"{_count(truncated['count'])} texts ({share}) after {limit}"))
    return [(label, value) for label, value in rows if value]


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,g}" if isinstance(value, float) else str(value)


def main_split(metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the scores on the test split in metrics.json, or on validation if there is no test split."""
    return metrics.get("test") or metrics.get("validation") or {}
