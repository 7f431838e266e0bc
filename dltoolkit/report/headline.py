"""The head of a report: the state of the run, one sentence about its result, and its main scores."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit.evaluation import metrics as evaluation_metrics
from dltoolkit.evaluation import significance
from dltoolkit.evaluation.significance import Verdict
from dltoolkit.formatting import main_split, metric_label
from dltoolkit.report import generation_scores
from dltoolkit.report.formatting import metric_value, percent

if TYPE_CHECKING:
    from dltoolkit.report.contents import Contents

STATES = {
    "starting": "This run is being prepared.",
    "running": "This run is still training, or was killed while it trained.",
    "interrupted": "This run was interrupted; resume it to continue where it stopped.",
    "failed": "This run failed.",
}
BASELINES = {
    "linear_probe": "Linear probe on frozen features",
    "from_scratch": "Small network trained from scratch",
    "linear": "Linear model",
    "majority": "Majority class",
}
METHOD_NAMES = {"linear_probe": "the linear probe", "fine-tuned": "the fine-tuned network"}


def note(run: Contents) -> str:
    """Return the meaning of the state of an unfinished run, and the best score so far."""
    notes = [STATES.get(run.state, "")]
    if run.state == "failed":
        notes.append(str(run.info.get("error") or ""))
    if not run.test:
        notes.append(_best_so_far(run))
    return " ".join(filter(None, notes))


def _best_so_far(run: Contents) -> str:
    if not run.best:
        return "There are no scores yet."
    name = run.monitor.removeprefix("validation_")
    value = f"{metric_label(name)} {metric_value(name, run.best[run.monitor])}"
    return f"There are no test scores yet; the best validation {value} was reached in epoch {run.best['epoch']:g}."


def verdict(metrics: Mapping[str, Any]) -> Verdict | None:
    """Return the sentence about the result of a finished run, from its metrics.json; None if there is none."""
    test, baselines = main_split(metrics), metrics.get("baseline") or {}
    if "accuracy" in test:
        return significance.verdict(metrics)
    if "frechet_distance" in test:
        return generation_scores.image_verdict(test, baselines)
    return generation_scores.text_verdict(test, baselines)


def lead(run: Contents) -> tuple[str, str] | None:
    """Return the verdict about a run for the page: its statement and its explanation."""
    sentence = verdict(run.metrics)
    return sentence and tuple(re.sub(r" (?=[%=<])|(?<=[=<]) ", "\N{NO-BREAK SPACE}", part) for part in sentence)


def score(run: Contents) -> dict[str, Any] | None:
    """Return the main score of a classifier next to those of its baselines."""
    test, baselines, metric = run.test, run.metrics.get("baseline") or {}, run.metric
    if metric not in test:
        return None
    scores = {"This network": test} | {name: baselines.get(key) or {} for key, name in BASELINES.items()}
    return {
        "name": metric_label(metric),
        "value": test[metric],
        "examples": int(np.sum(test["confusion"])) if test.get("confusion") else None,
        "interval": test.get(f"{metric}_ci95"),
        "is_balanced": metric == "balanced_accuracy",
        "accuracy": test.get("accuracy"),
        "accuracy_interval": test.get("accuracy_ci95"),
        "bars": [
            {"name": name, "score": values[metric], "interval": values.get(f"{metric}_ci95")}
            for name, values in scores.items()
            if metric in values
        ],
        "linear_note": (baselines.get("linear") or {}).get("note"),
        "selected": _selected(run),
        "guesses": evaluation_metrics.describe_guesses(test, "test texts"),
    }


def _selected(run: Contents) -> str | None:
    """Return which of the two networks of a fine-tuning was selected, and by which scores."""
    selected, probe = run.info.get("selected"), run.info.get("linear_probe") or {}
    if selected is None:
        return None
    if not run.history:
        return "The network is the linear probe, as --method linear-probe asks for."
    name = (run.monitor or "").removeprefix("validation_")
    text = f"On validation, {METHOD_NAMES.get(selected, selected)} was selected"
    if name not in probe or not run.best:
        return f"{text}."
    probed, tuned = (metric_value(name, value) for value in (probe[name], run.best[run.monitor]))
    epoch = f"{run.best['epoch']:g}"
    return f"{text}: {metric_label(name)} {tuned} in epoch {epoch} of fine-tuning, {probed} with the linear probe."


def tiles(run: Contents) -> dict[str, str]:
    """Return the single numbers among the test scores of a classifier or of an unknown recipe."""
    if "frechet_distance" in run.test or generation_scores.text_scores(run):
        return {}
    values = {
        metric_label(key): metric_value(key, value)
        for key, value in run.test.items()
        if isinstance(value, int | float) and key not in (run.metric, "accuracy")
    }
    validation = (run.metrics.get("validation") or {}).get(run.metric)
    if validation is not None:
        values[f"validation {metric_label(run.metric)}"] = percent(validation)
    return values
