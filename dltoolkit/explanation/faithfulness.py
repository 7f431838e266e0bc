"""Which method of explanation is how faithful to a run: measured figures, next to those of random values."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dltoolkit import files, progress, run_schema
from dltoolkit.errors import UserError
from dltoolkit.explanation import methods
from dltoolkit.formatting import counted

FILE = "explanations/faithfulness.json"  # in the directory of a run
EXAMPLES = 50  # examples on which the methods are measured
RESAMPLES = 2000  # samples of the bootstrap
MARGIN = 0.01  # difference of two scores, in probability, below which neither is better however certain it is
MAX_SECONDS = 20.0  # time of all examples above which a method is not measured, unless it is the default
Figures = Mapping[str, Any]
INTERVAL = {"mean": float, "low": float, "high": float}
SCHEMA = {  # of the file; docs/explain.md says what the fields mean
    "model_sha256": str,
    "examples": run_schema.COUNT,
    "methods": {
        str: {"seconds": run_schema.SECONDS, "better_than_random": bool, "figures": {str: INTERVAL}},
    },
    "random": {str: INTERVAL},
    "skipped": {str: str},
    "auto": str,
}


def load(explainer: Any) -> Figures | None:
    """Return the figures that were measured on the model of a run, or None."""
    path = explainer.figures_path
    if path is None or not os.path.lexists(path):
        return None
    try:
        figures = run_schema.read(path, SCHEMA, required=tuple(SCHEMA))
    except UserError as error:
        raise UserError(f"{str(error).rstrip('.')}. Without this file, the methods are measured again.") from None
    return figures if figures["model_sha256"] == explainer.model_sha256 else None


def save(explainer: Any, figures: Figures) -> None:
    """Write the figures of a run into its directory; a message says if that cannot be done."""
    try:
        explainer.run.write_json(FILE, figures)
    except files.WriteError as error:
        progress.warn(f"The faithfulness is measured again next time, because it cannot be saved ({error})")


def measure(explainer: Any, values: Sequence[Any]) -> dict[str, Any]:
    """Measure every method that a model can have, and random values, on the same examples.

    A method whose examples would take more than :data:`MAX_SECONDS` is left out, unless it is the default.

    Args:
        explainer: The explainer of the run.
        values: Examples as the predictor reads them.

    Returns:
        The contents of faithfulness.json, see docs/explain.md.
    """
    targets = explainer.logits(values).argmax(axis=1).tolist()
    names, default = explainer.available, methods.choose(methods.AUTO, explainer.kind, explainer.available).name
    scores, measured, skipped, random_figures = {}, {}, {}, None
    rng, done = np.random.default_rng(0), 0
    with progress.counting() as report:
        for name in sorted(names, key=lambda name: name != default):
            attributions, start = [], 0.0
            for value, target in zip(values, targets, strict=True):
                attributions.append(explainer.attribute(name, value, [target])[0][0])
                if len(attributions) == 1:  # which compiles
                    start = time.perf_counter()
                elif len(attributions) == 2 and name != default:
                    expected = (time.perf_counter() - start) * len(values)
                    if expected > MAX_SECONDS:
                        skipped[name] = f"{len(values)} examples take {progress.rough_duration(expected)}"
                        break
                report("Measuring the explanations", done := done + 1, len(values) * len(names))
            else:
                if random_figures is None:
                    random = [explainer.random_values(each, rng) for each in attributions]
                    random_figures = explainer.faithfulness(values, random, targets)
                seconds = (time.perf_counter() - start) / max(1, len(values) - 1)
                figures = explainer.faithfulness(values, attributions, targets)
                scores[name] = figures["score"]
                measured[name] = {
                    "seconds": round(seconds, 5),
                    "better_than_random": is_better(figures["score"], random_figures["score"]),
                    "figures": {key: interval(each) for key, each in figures.items()},
                }
    return {
        "model_sha256": explainer.model_sha256,
        "examples": len(values),
        "methods": measured,
        "random": {key: interval(each) for key, each in random_figures.items()},
        "skipped": skipped,
        "auto": best(scores, measured, default),
    }


def best(scores: Mapping[str, np.ndarray], measured: Mapping[str, Figures], default: str) -> str:
    """Return the fastest of the methods that are not measurably less faithful than the most faithful one.

    Only methods that are better than random are taken; if none is, the default.

    Args:
        scores: The score of each example, (n,), by method.
        measured: Seconds and ``better_than_random`` by method.
        default: The default method.
    """
    good = [name for name in measured if measured[name]["better_than_random"]]
    if not good:
        return default
    top = max(good, key=lambda name: scores[name].mean())
    equal = [name for name in good if not is_better(scores[top], scores[name])]
    return min(equal, key=lambda name: measured[name]["seconds"])


def is_better(scores: np.ndarray, others: np.ndarray) -> bool:
    """Return whether scores (n,) are measurably higher than others of the same examples, by a paired bootstrap."""
    return interval(scores - others)["low"] > MARGIN


def interval(values: np.ndarray) -> dict[str, float]:
    """Return the mean of values (n,), and the low and high end of its 95 % bootstrap interval."""
    rows = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(values[rows].mean(axis=1), (2.5, 97.5))
    return {name: round(float(x), 4) for name, x in (("mean", values.mean()), ("low", low), ("high", high))}


def of_method(figures: Figures | None, name: str) -> dict[str, Any] | None:
    """Return what an :class:`Explanation` says about its method, or None if that was not measured.

    Raises:
        UserError: If the figures are incomplete.
    """
    if figures is None or name not in figures["methods"]:
        return None
    measured = figures["methods"][name]
    return {
        "examples": figures["examples"],
        **{key: _interval_of(measured["figures"], key) for key in ("score", *measured["figures"])},
        "random": _interval_of(figures["random"], "score"),
        "better_than_random": measured["better_than_random"],
        "any_better_than_random": any(each["better_than_random"] for each in figures["methods"].values()),
    }


def _interval_of(figures: Figures, key: str) -> dict[str, float]:
    return {end: figures[key][end] for end in INTERVAL}


def choose(figures: Figures, available: Sequence[str], default: str) -> str:
    """Return what ``auto`` means: the measured choice, or the most faithful method that an export can have."""
    if figures["auto"] in available:
        return figures["auto"]
    good = [name for name in available if figures["methods"].get(name, {}).get("better_than_random")]
    return max(good, key=lambda name: figures["methods"][name]["figures"]["score"]["mean"], default=default)


def sample(values: Sequence[Any]) -> list[Any]:
    """Return at most :data:`EXAMPLES` examples, evenly spaced.

    Raises:
        UserError: If there are fewer than two.
    """
    if len(values) < 2:
        raise UserError(f"they have only {counted(len(values), 'example')} for this")
    rows = np.linspace(0, len(values) - 1, min(len(values), EXAMPLES)).round().astype(int)
    return [values[i] for i in rows]
