"""Checkpoints: everything a run needs to go on as if nothing had happened, in one file, replaced in one move."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dltoolkit.run import Run, writing
from dltoolkit.training import progress

KEPT = 2


@dataclass
class State:
    """Where a training run stands, apart from the variables.

    Attributes:
        step: optimizer steps done.
        planned_at: the seconds of training at which the plan in force was made.
        finished: whether training came to its end, by plan, by time or by patience.
        seconds: training time so far.
        history: one row an epoch, as in history.csv.
        best: (score, -loss) of the best epoch so far; higher is better.
        stale_epochs: epochs since the best.
    """

    step: int = 0
    planned_at: float = 0.0
    finished: bool = False
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    best: tuple[float, float] | None = None
    stale_epochs: int = 0


def save(run: Run, state: State, model: keras.Model, best_weights: list[np.ndarray] | None) -> Path:
    """Write ``checkpoint/step-NNNNNNNN.npz`` and delete all but the newest two."""
    arrays = {"state": np.frombuffer(json.dumps(asdict(state)).encode(), dtype=np.uint8)}
    for group, variables in _groups(model).items():
        arrays |= {f"{group}/{i:05d}": np.asarray(variable) for i, variable in enumerate(variables)}
    for i, weight in enumerate(best_weights or []):
        arrays[f"best/{i:05d}"] = weight
    folder = run.path / "checkpoint"
    path = folder / f"step-{state.step:08d}.npz"
    with writing(path) as beside, beside.open("wb") as file:
        np.savez(file, **arrays)
    for old in sorted(folder.glob("step-*.npz"))[:-KEPT]:
        with contextlib.suppress(OSError):
            old.unlink()
    return path


def restore(run: Run, model: keras.Model) -> tuple[State, list[np.ndarray] | None, list[np.ndarray]] | None:
    """Put the newest readable checkpoint's values into the model and its optimizer.

    Returns:
        The state, the best epoch's weights (or None) and the interrupted epoch's metric accumulators;
        None if the run has no checkpoint that can be read.
    """
    for path in sorted((run.path / "checkpoint").glob("step-*.npz"), reverse=True):
        with contextlib.ExitStack() as stack:
            try:
                arrays = dict(stack.enter_context(np.load(path, allow_pickle=False)))
            except Exception as error:  # a damaged zip raises many kinds; the one before it may be good
                progress.warn(f"{path} is damaged ({type(error).__name__}); trying the checkpoint before it.")
                continue
        meta = json.loads(arrays["state"].tobytes())
        state = State(**{**meta, "best": tuple(meta["best"]) if meta["best"] else None})
        stored = {group: _ordered(arrays, group) for group in ("model", "optimizer", "metrics", "best")}
        for group, variables in _groups(model).items():
            if group != "metrics":
                for variable, value in zip(variables, stored[group], strict=True):
                    variable.assign(value)
        return state, stored["best"] or None, stored["metrics"]
    return None


def _groups(model: keras.Model) -> dict[str, list[Any]]:
    """The variables to keep: ``model.variables`` has the seed generators' state that a weights file leaves out."""
    optimizers = getattr(model, "optimizers", [model.optimizer])
    return {
        "model": model.variables,
        "optimizer": [variable for optimizer in optimizers for variable in optimizer.variables],
        "metrics": model.metrics_variables,
    }


def _ordered(arrays: dict[str, np.ndarray], group: str) -> list[np.ndarray]:
    return [arrays[name] for name in sorted(arrays) if name.startswith(f"{group}/")]
