"""Metrics with intervals, baselines on the same split, plots and the report."""

from dltoolkit.lazy import submodules

__getattr__, __dir__ = submodules(
    __name__,
    keras=["pictures", "texts"],
    plain=[
        "baseline",
        "calibration",
        "classification",
        "generative",
        "language",
        "metrics",
        "plots",
        "prediction",
        "probe",
        "report",
        "word_baseline",
    ],
)
