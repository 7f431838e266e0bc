"""Helpers for tests that train the toy recipe."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import dltoolkit
from dltoolkit import interrupt, recipe
from dltoolkit.run import Run
from dltoolkit.training import fit
from dltoolkit.training.time_budget import TimeBudget

FILE = Path(__file__).parent / "toy_recipe.py"


def command(*words: str, out_dir: Path) -> list[str]:
    """Return the command line of dltoolkit in a process of its own."""
    return [sys.executable, "-m", "dltoolkit", *words, "--out-dir", str(out_dir)]


def load_toy(run: str | Path, *out_dir: Path) -> Run:
    """Open a run of the toy recipe with its recipe file."""
    return dltoolkit.load(run, *out_dir, recipe=recipe.load(str(FILE)))


def reproducible_history(run: Run) -> list[dict]:
    """Return the rows of a run's history without the column that depends on the time."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in run.history]


def weights(run: Run) -> list[np.ndarray]:
    return run.model.get_weights()


def equal(run: Run, other: Run) -> bool:
    """Return whether two runs have the same history and the same weights, to the last bit."""
    pairs = zip(weights(run), weights(other), strict=True)
    return reproducible_history(run) == reproducible_history(other) and all((a == b).all() for a, b in pairs)


def stop_at(step: int, train: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Call ``train``, and let it receive a signal at its step of this number."""
    steps = []

    class CountedBudget(TimeBudget):
        def step_done(self, number):
            steps.append(number)
            return super().step_done(number)

    with monkeypatch.context() as patch:
        patch.setattr(interrupt, "pending", lambda: int(signal.SIGTERM) if len(steps) >= step else None)
        patch.setattr(fit, "TimeBudget", CountedBudget)
        with pytest.raises(KeyboardInterrupt):
            train()
    assert len(steps) == step
