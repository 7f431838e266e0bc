"""Checkpoints: everything that an exact continuation of a run needs, in one file that is replaced atomically."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import keras
import numpy as np

from dltoolkit import memory, npz, progress, run_schema, strict_json
from dltoolkit.errors import UserError
from dltoolkit.files import atomic_write, open_regular
from dltoolkit.run import Run
from dltoolkit.training import optimizer

MAX_CHECKPOINTS = 2  # number of checkpoints to keep: the second is used if the first is damaged
STATE = {  # what the array "state" holds, as JSON
    "step": run_schema.COUNT,
    "planned_steps": (run_schema.COUNT, None),
    "finished": bool,
    "seconds": run_schema.SECONDS,
    "history": [{"epoch": run_schema.COUNT, "step": run_schema.COUNT, str: float}],
    "best_score": ([float, float], None),
    "stale_epochs": run_schema.COUNT,
}
DIGEST_SIZE = 32  # bytes of the SHA-256 digest at the end of a file; the checksums of a zip file do not cover all bytes


@dataclass
class TrainingState:
    """The state of a training run, apart from its variables.

    Attributes:
        step: Number of optimizer steps done.
        planned_steps: Number of steps in the current plan; None before there is a plan.
        finished: Whether training has ended, by the plan, the maximum time, patience or ``on_epoch_end``.
        seconds: Training time so far.
        history: The rows of history.csv, one per epoch.
        best_score: (score, -loss) of the best epoch so far; higher is better.
        stale_epochs: Number of epochs since the best one.
    """

    step: int = 0
    planned_steps: int | None = None
    finished: bool = False
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    best_score: tuple[float, float] | None = None
    stale_epochs: int = 0


def save(run: Run, state: TrainingState, model: keras.Model, best_weights: list[np.ndarray] | None) -> Path:
    """Write ``checkpoint/step-NNNNNNNN.npz`` with its digest at the end, and delete all but it and the one before it.

    Checkpoints of later steps are deleted, too. They are damaged, because otherwise training would have continued from
    one of them.

    Raises:
        WriteError: If the disk is full or not writable.
    """
    arrays = {"state": np.frombuffer(json.dumps(asdict(state)).encode(), dtype=np.uint8)}
    for group, variables in _groups(model).items():
        arrays |= {f"{group}/{key}": np.asarray(variable) for key, variable in by_key(variables).items()}
    if best_weights is not None:
        arrays |= {f"best/{key}": value for key, value in zip(by_key(model.weights), best_weights, strict=True)}
    path = run.path / "checkpoint" / f"step-{state.step:08d}.npz"
    if not run.writes:  # this worker was needed only to read the metrics of all replicas
        return path
    with atomic_write(path) as partial, partial.open("w+b") as file:
        np.savez(file, **arrays)
        file.write(_digest(file, file.seek(0, io.SEEK_END)))
    others = list_checkpoints(run)
    for other in others[: others.index(path)] + others[others.index(path) + MAX_CHECKPOINTS :]:
        with contextlib.suppress(OSError):
            other.unlink()
    return path


def list_checkpoints(run: Run) -> list[Path]:
    """Return the checkpoint files of a run, newest first."""
    return sorted((run.path / "checkpoint").glob("step-*.npz"), reverse=True)


def restore(
    run: Run, model: keras.Model
) -> tuple[TrainingState, list[np.ndarray] | None, dict[str, np.ndarray]] | None:
    """Assign the values of the newest readable checkpoint to a model and its optimizers.

    Returns:
        The state, the weights of the best epoch (or None) and the metric variables of an interrupted epoch by their
        keys; None if the run has no readable checkpoint.

    Raises:
        UserError: If the checkpoint belongs to another network, or may not be read.
    """
    paths = list_checkpoints(run)
    for path in paths:
        arrays = _read(path)
        if arrays is None:
            continue
        groups: dict[str, dict[str, np.ndarray]] = {"model": {}, "optimizer": {}, "metrics": {}, "best": {}}
        try:
            fields = strict_json.loads(arrays.pop("state").tobytes().decode(), nan=True)  # of a loss that is no number
            fields = run_schema.check(fields, STATE, path)
            best_score = fields["best_score"] and tuple(fields["best_score"])
            history = [dict(row) for row in fields["history"]]
            if any(row.keys() != history[0].keys() or not {"epoch", "step"} <= row.keys() for row in history):
                raise ValueError("the rows of history.csv differ")
            state = TrainingState(**{**fields, "best_score": best_score, "history": history})
            for name, value in arrays.items():
                group, _, key = name.partition("/")
                groups[group][key] = value
            for group, variables in _groups(model).items():
                if group != "metrics":  # these do not exist before the first step
                    assign(variables, groups[group])
            best_weights = None
            if groups["best"]:
                weights = by_key(model.weights)
                best_weights = [_fitting(groups["best"][key], weight) for key, weight in weights.items()]
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"{path} does not fit the network: resume with the recipe, the package versions and the kind of device "
                "that run.json records, or train a new run."
            ) from None
        return state, best_weights, groups["metrics"]
    if paths:
        progress.warn("No checkpoint can be read; training starts from the beginning.")
    return None


def assign(variables: Iterable[keras.Variable], values: Mapping[str, np.ndarray]) -> None:
    """Assign values to variables with the same keys.

    Raises:
        ValueError: If the keys or a shape differ.
    """
    keyed = by_key(variables)
    if keyed.keys() != values.keys():
        raise ValueError(f"The keys differ: {sorted(keyed.keys() ^ values.keys())}")
    fitting = {key: _fitting(values[key], variable) for key, variable in keyed.items()}  # before any is assigned
    for key, variable in keyed.items():
        variable.assign(fitting[key])


def _fitting(value: np.ndarray, variable: keras.Variable) -> np.ndarray:
    """Return a value, or raise a ValueError if its shape or its type is not that of the variable."""
    if value.shape != tuple(variable.shape) or value.dtype.name != variable.dtype:
        raise ValueError(f"{value.dtype}{value.shape} instead of {variable.dtype}{variable.shape}")
    return value


def by_key(variables: Iterable[keras.Variable]) -> dict[str, keras.Variable]:
    """Return variables by unique keys: their paths without numbers, and a count if paths are equal otherwise.

    Keras numbers layers and optimizers without a name in the order in which a process creates them, so the path of the
    same variable can be ``dense/kernel`` in one process and ``dense_3/kernel`` in another.
    """
    keyed: dict[str, keras.Variable] = {}
    counts: dict[str, int] = {}
    for variable in variables:
        key = re.sub(r"_\d+(?=[_/]|$)", "", variable.path)
        counts[key] = counts.get(key, 0) + 1
        keyed[key if counts[key] == 1 else f"{key}#{counts[key]}"] = variable
    return keyed


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """Return the arrays of a checkpoint, or None if any of its bytes has changed."""
    try:
        with open_regular(path, follow_links=False) as file:
            size = file.seek(0, io.SEEK_END) - DIGEST_SIZE
            if size > 0 and _digest(file, size) == file.read():
                file.seek(0)
                with npz.open_npz(file) as arrays:
                    memory.refuse(arrays.size(arrays.names), f"The arrays of {path}", "train on a larger machine")
                    return {name: arrays.read(name) for name in arrays.names}
    except npz.InvalidNpz as error:
        progress.warn(f"{path} is no checkpoint, because {error}; trying the checkpoint before it.")
        return None
    except OSError as error:
        if isinstance(error, PermissionError):
            raise UserError(f"Cannot read {path}: {error.strerror}.") from None
    progress.warn(f"{path} is damaged; trying the checkpoint before it.")
    return None


def _digest(file: BinaryIO, size: int) -> bytes:
    """Return the SHA-256 digest of the first ``size`` bytes of a file, and leave the file position after them."""
    digest, remaining = hashlib.sha256(), size
    file.seek(0)
    while block := file.read(min(remaining, 1 << 20)):
        digest.update(block)
        remaining -= len(block)
    return digest.digest()


def _groups(model: keras.Model) -> dict[str, list[Any]]:
    """Return the variables of a compiled model; ``model.variables`` includes the states of random seed generators."""
    return {
        "model": model.variables,
        "optimizer": [variable for each in optimizer.all_optimizers(model) for variable in each.variables],
        "metrics": model.metrics_variables,
    }
