"""The contents of a report: run.json, metrics.json, history.csv, and the examples that the recipe adds."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit.report import plots

if TYPE_CHECKING:
    from dltoolkit.evaluation.classification import Mistake
    from dltoolkit.evaluation.ngram_baseline import NgramWeight


@dataclass(frozen=True)
class Contents:
    """The contents of a report; any part may be empty while a run is not finished.

    Attributes:
        path: Folder of the run.
        info: Contents of run.json.
        metrics: Contents of metrics.json.
        history: Rows of history.csv.
        mistakes: Worst mistakes, the most confident first.
        samples: Image grids, uint8 (n, height, width, channels), by the name of their file in plots/.
        reliability: Result of ``metrics.reliability``.
        top_features: N-grams with the largest weights of each class, in descending order.
        texts: Generated text after each epoch, by name, in order.
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
    def name(self) -> str:
        """The name of the run."""
        return str(self.info.get("name", self.path.name))

    @property
    def state(self) -> str:
        """The state of the run; a run with test scores counts as finished, although its last seconds still pass."""
        state = str(self.info.get("state", "unknown"))
        return "finished" if state == "running" and self.test else state

    @property
    def test(self) -> Mapping[str, Any]:
        """The scores on the test split, or on validation if there is no test split."""
        return self.metrics.get("test") or self.metrics.get("validation") or {}

    @property
    def classes(self) -> list[str]:
        """The class names in the order of the confusion matrix."""
        return list(self.test.get("per_class") or self.info.get("data", {}).get("classes") or [])

    @property
    def best(self) -> Mapping[str, float]:
        """The history row of the best epoch: by validation accuracy, kernel distance or loss."""
        for column, sign in (("validation_accuracy", 1), ("validation_kernel_distance", -1), ("validation_loss", -1)):
            rows = [row for row in self.history if math.isfinite(row.get(column, math.nan))]
            if rows:
                return max(rows, key=lambda row: (sign * row[column], -row.get("validation_loss", 0)))
        return {}

    @functools.cached_property
    def plots(self) -> dict[str, bytes]:
        """The PNG files of the run by name; plots without data are left out."""
        pngs = {}
        if any(column not in plots.NOT_CURVES for row in self.history for column in row):
            pngs["curves"] = plots.curves(self.history, self.best.get("epoch"))
        if points := self.info.get("learning_curve"):
            pngs["learning_curve"] = plots.learning_curve(points)
        if matrix := self.test.get("confusion"):
            pngs["confusion"] = plots.confusion(matrix, self.classes)
            pngs["confusion_normalized"] = plots.confusion(matrix, self.classes, normalize=True)
        if self.reliability is not None:
            pngs["reliability"] = plots.reliability(self.reliability)
        if any(mistake.image is not None for mistake in self.mistakes):
            pngs["mistakes"] = plots.mistakes(self.mistakes, self.classes)
        return pngs | {key: plots.image_grid(images) for key, images in self.samples.items() if len(images)}
