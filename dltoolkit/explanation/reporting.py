"""Explanations in the report of a run: its worst mistakes, one right example of each class, and maps of the classes."""

from __future__ import annotations

import csv
import dataclasses
import io
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit import lazy, progress, run_schema
from dltoolkit.errors import UserError, root_cause
from dltoolkit.explanation import class_maps, image_perturbation, methods, page
from dltoolkit.report import insertion

if TYPE_CHECKING:
    from dltoolkit.explanation.explainer import Explainer
    from dltoolkit.run import Run

PART = "explanations"  # of report.html
MISTAKES, RIGHT = 9, 12  # examples that are explained
TRAINING_FRACTION = 0.1  # of the time of the training that its explanations may take
MIN_SECONDS, MAX_SECONDS = 3.0, 60.0  # time below which they are left out after the training, and their longest time
MAP_POSITIONS = 6  # positions of the patch along a side in the maps of classes, which tell a corner from the rest


@lazy.quiet_tensorflow()
def add_after_training(run: Run, splits: Any) -> None:
    """Write the explanations into the report of a run that has been trained, if they take a tenth of its time at most.

    Args:
        run: The finished run.
        splits: Its data.
    """
    seconds = min(MAX_SECONDS, TRAINING_FRACTION * run.info.get("time", {}).get("train_seconds", 0.0))
    if run.writes and seconds >= MIN_SECONDS:
        try:
            with progress.phase("Explaining the worst mistakes"):
                write(run, run.explainer, splits, max_seconds=seconds, measures=False)
        except Exception as error:  # layers fail in ways of their own, and the training is finished all the same
            progress.warn(f"The report has no explanations ({root_cause(error).rstrip('.')}).")


def write(
    run: Run,
    explainer: Explainer,
    splits: Any,
    *,
    method: str = methods.AUTO,
    data: str | None = None,
    max_seconds: float = MAX_SECONDS,
    measures: bool = True,
) -> None:
    """Write the explanations into the report of a run.

    Args:
        run: The run.
        explainer: Its explainer.
        splits: Its data.
        method: Name of the method, or ``auto``.
        data: Other labeled data on which the methods are measured, as ``--data`` takes them.
        max_seconds: Time after which no further example is explained.
        measures: Whether ``auto`` measures the methods if they were not yet.

    Raises:
        UserError: If the run has no report of this version, or its predictions are missing or do not belong to its
            data.
    """
    if not insertion.has_place(run, PART):
        raise UserError(f"{run.path} has no report in which explanations have a place: name an INPUT.")
    name, figures = explainer.resolve(method, data, measures=measures)
    start, explained = time.monotonic(), []
    for row in _examples(run, explainer, splits):
        if explained and time.monotonic() > start + max_seconds / 2:  # the other half is for the maps of the classes
            break
        value = getattr(splits, f"{explainer.kind}s")[row]
        explanation = explainer.of_value(value, name)
        fields = {"input": splits.relative_names()[row], "truth": splits.classes[splits.labels[row]]}
        explained.append(dataclasses.replace(explanation, **fields, faithfulness=figures))
    maps = []
    if explainer.kind == "image":
        maps = class_maps.measure(
            splits.images,
            splits.labels,
            splits.test,
            splits.classes,
            lambda image, target: image_perturbation.occlusion(
                image, [target], explainer.logits, positions=MAP_POSITIONS
            )[0],
            max_seconds=start + max_seconds - time.monotonic(),
        )
    for each in maps:
        if each.region:
            progress.warn(page.warning_of(each))
    insertion.insert(run, PART, page.render_section(explained, maps))


def _examples(run: Run, explainer: Explainer, splits: Any) -> list[int]:
    """Return the rows of the worst mistakes on the test split, then of the surest right answer of each class."""
    predictions = list(_predictions(run))
    if len(predictions) != len(splits.test):
        raise UserError(f"{run.path / 'predictions.csv'} does not belong to the data of the run: train it again.")
    rows = np.sort(splits.test)  # the order of the file
    wrong = [i for i, (label, predicted, _) in enumerate(predictions) if label != predicted]
    right = [i for i, (label, predicted, _) in enumerate(predictions) if label == predicted]
    wrong.sort(key=lambda i: -predictions[i][2])
    right.sort(key=lambda i: -predictions[i][2])
    surest = {predictions[i][0]: i for i in reversed(right)}  # the first of each class
    rows_shown = [*wrong[:MISTAKES], *(surest[label] for label in explainer.labels if label in surest)]
    return [int(rows[i]) for i in rows_shown[: MISTAKES + RIGHT]]


def _predictions(run: Run) -> Iterator[tuple[str, str, float]]:
    """Yield the label, the predicted label and the probability of each row of predictions.csv."""
    path = run.path / "predictions.csv"
    try:
        for row in csv.DictReader(io.StringIO(run_schema.read_text(path), newline="")):
            yield row["label"], row["predicted_label"], float(row["probability"])
    except (OSError, KeyError, TypeError, ValueError, csv.Error):
        raise UserError(f"{path} is missing or damaged: train the run again.") from None
