"""Metrics with intervals, baselines on the same split, plots and the report."""

from dltoolkit.lazy import submodules

__getattr__, __dir__ = submodules(
    __name__,
    plain=[
        *("baseline", "calibration", "classification", "language", "metrics", "plots", "prediction", "report"),
        "word_baseline",
    ],
)
