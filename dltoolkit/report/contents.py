"""The contents of a report: run.json, metrics.json, history.csv, and the examples that the recipe adds."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit.evaluation import significance
from dltoolkit.formatting import main_split
from dltoolkit.report import image_grids, plots

if TYPE_CHECKING:
    from dltoolkit.evaluation.classification import Mistake
    from dltoolkit.evaluation.ngram_baseline import NgramWeight

MAX_CONFUSION_CLASSES = 50  # classes up to which the confusion matrix shows all of them
MOST_CONFUSED = 30  # classes that it shows if there are more
# Columns of history.csv by which an epoch may have been selected, and the sign of a good value
MONITORS = {
    "validation_balanced_accuracy": 1,
    "validation_macro_f1": 1,
    "validation_accuracy": 1,
    "validation_kernel_distance": -1,
    "validation_loss": -1,
}
Samples = np.ndarray | tuple[np.ndarray, np.ndarray]  # images, or two sets of images that are shown in pairs


@dataclass(frozen=True)
class Contents:
    """The contents of a report; any part may be empty while a run is not finished.

    Attributes:
        path: Folder of the run.
        info: Contents of run.json.
        metrics: Contents of metrics.json.
        history: Rows of history.csv.
        mistakes: Worst mistakes, the most confident first.
        samples: Images uint8 (n, height, width, channels) that are shown in a grid, or two such arrays that are shown
            in pairs, by the name of their file in plots/.
        reliability: Result of ``metrics.reliability``.
        ranking: Result of ``ranking.curves``.
        top_features: N-grams with the largest weights of each class, in descending order.
        texts: Generated text after each epoch, by name, in order.
    """

    path: Path
    info: Mapping[str, Any]
    metrics: Mapping[str, Any]
    history: Sequence[Mapping[str, float]]
    mistakes: Sequence[Mistake] = ()
    samples: Mapping[str, Samples] = field(default_factory=dict)
    reliability: Mapping[str, Any] | None = None
    ranking: Mapping[str, Any] | None = None
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
        return main_split(self.metrics)

    @property
    def labels(self) -> list[str]:
        """The class names in the order of the confusion matrix."""
        return list(self.test.get("per_class") or self.info.get("data", {}).get("classes") or [])

    @property
    def metric(self) -> str:
        """The main score of a classifier: balanced accuracy if the test split is imbalanced, otherwise accuracy."""
        return significance.main_metric(self.test)

    @property
    def selected_probe(self) -> bool:
        """Whether a linear probe was selected, which belongs to no epoch."""
        return self.info.get("selected") == "linear_probe"

    @property
    def monitor(self) -> str | None:
        """The column of the history by which the best epoch was selected."""
        columns = [(self.info.get("plan") or {}).get("monitor"), *MONITORS]
        present = {column for row in self.history for column in row if _finite(row, column)}
        return next((column for column in columns if column in present), None)

    @property
    def best(self) -> Mapping[str, float]:
        """The history row of the best epoch on validation; empty before the first epoch."""
        column = self.monitor
        if column is None:
            return {}
        rows = [row for row in self.history if _finite(row, column)]
        return max(rows, key=lambda row: (MONITORS.get(column, 1) * row[column], -row.get("validation_loss", 0)))

    @functools.cached_property
    def confused(self) -> list[int]:
        """The numbers of the classes that the confusion matrix shows: all, or the most confused of many."""
        if len(self.labels) <= MAX_CONFUSION_CLASSES or not self.test.get("confusion"):
            return list(range(len(self.labels)))
        wrong = np.array(self.test["confusion"])
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")
        pairs = np.stack(np.unravel_index(order[: np.count_nonzero(wrong)], wrong.shape), axis=1)
        return sorted(list(dict.fromkeys(pairs.ravel().tolist()))[:MOST_CONFUSED])

    @functools.cached_property
    def plots(self) -> dict[str, bytes]:
        """The PNG files of the run by name; plots without data, or with a single point, are left out."""
        pngs = {}
        if plots.curve_names(self.history):
            best_epoch = None if self.selected_probe else self.best.get("epoch")
            pngs["curves"] = plots.curves(self.history, best_epoch)
        points = self.info.get("learning_curve") or []
        if len({point["labels"] for point in points}) > 1:
            pngs["learning_curve"] = plots.learning_curve(points)
        if self.test.get("confusion") and self.confused:
            for name, normalize in (("confusion", False), ("confusion_normalized", True)):
                matrix = self.test["confusion"]
                pngs[name] = plots.confusion(matrix, self.labels, normalize=normalize, shown=self.confused)
        if self.ranking is not None:
            pngs["ranking"] = plots.ranking(self.ranking)
        if self.reliability is not None and np.count_nonzero(self.reliability["count"]) > 1:
            pngs["reliability"] = plots.reliability(self.reliability)
        if any(mistake.image is not None for mistake in self.mistakes):
            pngs["mistakes"] = plots.mistakes(self.mistakes, self.labels)
        return pngs | {key: _grid(images) for key, images in self.samples.items() if len(images)}


def _grid(images: Samples) -> bytes:
    return image_grids.paired_grid(*images) if isinstance(images, tuple) else image_grids.image_grid(images)


def _finite(row: Mapping[str, float], column: str) -> bool:
    return math.isfinite(row.get(column, math.nan))
