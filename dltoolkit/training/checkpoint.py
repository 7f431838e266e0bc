"""Checkpoints: everything a run needs to go on as if nothing had happened, in one file, replaced in one move."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import keras
import numpy as np

from dltoolkit import progress
from dltoolkit.errors import UserError
from dltoolkit.files import atomic_write
from dltoolkit.run import Run
from dltoolkit.training import optimizer

KEPT = 2
DIGEST = 32  # bytes at the end of a file, SHA-256 of all before them: a zip's own checksums do not cover everything


@dataclass
class State:
    """Where a training run stands, apart from the variables.

    Attributes:
        step: optimizer steps done.
        planned: of how many steps the plan in force is; None before it is made.
        finished: whether training came to the end of that plan, or ended by time or patience.
        seconds: training time so far.
        history: one row an epoch, as in history.csv.
        best: (score, -loss) of the best epoch so far; higher is better.
        stale_epochs: epochs since the best.
    """

    step: int = 0
    planned: int | None = None
    finished: bool = False
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    best: tuple[float, float] | None = None
    stale_epochs: int = 0


def save(run: Run, state: State, model: keras.Model, best_weights: list[np.ndarray] | None) -> Path:
    """Write ``checkpoint/step-NNNNNNNN.npz`` with its checksum at its end, and delete all but it and the one before.

    Those of later steps are deleted too: they were damaged, or training would have gone on from there.

    Raises:
        WriteError: if the disk is full or cannot be written.
    """
    arrays = {"state": np.frombuffer(json.dumps(asdict(state)).encode(), dtype=np.uint8)}
    for group, variables in _groups(model).items():
        arrays |= {f"{group}/{i:05d}": np.asarray(variable) for i, variable in enumerate(variables)}
    for i, weight in enumerate(best_weights or []):
        arrays[f"best/{i:05d}"] = weight
    folder = run.path / "checkpoint"
    path = folder / f"step-{state.step:08d}.npz"
    if not run.writes:  # but it has taken part in reading what all replicas have of the metrics
        return path
    with atomic_write(path) as beside, beside.open("w+b") as file:
        np.savez(file, **arrays)
        file.write(_digest(file, file.seek(0, io.SEEK_END)))
    others = list_checkpoints(run)
    for other in others[: others.index(path)] + others[others.index(path) + KEPT :]:
        with contextlib.suppress(OSError):
            other.unlink()
    return path


def list_checkpoints(run: Run) -> list[Path]:
    """The files of a run's checkpoints, the newest first."""
    return sorted((run.path / "checkpoint").glob("step-*.npz"), reverse=True)


def restore(run: Run, model: keras.Model) -> tuple[State, list[np.ndarray] | None, list[np.ndarray]] | None:
    """Put the newest readable checkpoint's values into the model and its optimizer.

    Returns:
        The state, the best epoch's weights (or None) and the interrupted epoch's metric accumulators;
        None if the run has no checkpoint that can be read.

    Raises:
        UserError: if the checkpoint is another network's, or may not be read.
    """
    files = list_checkpoints(run)
    for path in files:
        arrays = _read(path)
        if arrays is None:
            continue
        try:
            meta = json.loads(arrays["state"].tobytes())
            state = State(**{**meta, "best": tuple(meta["best"]) if meta["best"] else None})
            stored = {group: _ordered(arrays, group) for group in ("model", "optimizer", "metrics", "best")}
            for group, variables in _groups(model).items():
                if group != "metrics":
                    for variable, value in zip(variables, stored[group], strict=True):
                        variable.assign(value)
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"{path} does not fit the network: go on with the recipe, the versions and the kind of device that "
                "run.json names, or train a new run."
            ) from None
        return state, stored["best"] or None, stored["metrics"]
    if files:
        progress.warn("No checkpoint can be read; training begins anew.")
    return None


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of a checkpoint, or None if a byte of it is not as it was written."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END) - DIGEST
            if size > 0 and _digest(file, size) == file.read():
                file.seek(0)
                return dict(np.load(file, allow_pickle=False))
    except OSError as error:
        if isinstance(error, PermissionError):
            raise UserError(f"Cannot read {path}: {error.strerror}.") from None
    progress.warn(f"{path} is damaged; looking for the checkpoint before it.")
    return None


def _digest(file: BinaryIO, size: int) -> bytes:
    """Return what tells the first ``size`` bytes of a file from any others; the file is then read that far."""
    digest, left = hashlib.sha256(), size
    file.seek(0)
    while block := file.read(min(left, 1 << 20)):
        digest.update(block)
        left -= len(block)
    return digest.digest()


def _groups(model: keras.Model) -> dict[str, list[Any]]:
    """The variables to keep: ``model.variables`` has the seed generators' state that a weights file leaves out."""
    return {
        "model": model.variables,
        "optimizer": [variable for each in optimizer.all_optimizers(model) for variable in each.variables],
        "metrics": model.metrics_variables,
    }


def _ordered(arrays: dict[str, np.ndarray], group: str) -> list[np.ndarray]:
    return [arrays[name] for name in sorted(arrays) if name.startswith(f"{group}/")]
