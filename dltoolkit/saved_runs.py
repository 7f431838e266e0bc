"""Saved runs: open, list and resume them."""

from __future__ import annotations

import contextlib
import datetime
import inspect
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from dltoolkit import cluster, data_object, files
from dltoolkit import config as configuration
from dltoolkit import recipe as recipes
from dltoolkit.errors import UserError, did_you_mean
from dltoolkit.formatting import counted
from dltoolkit.models import model_size
from dltoolkit.run import Run

RESUME_OPTIONS = ("epochs", "max_time", "device")  # options that may change when a run is resumed


class RunNotFound(UserError):
    """There is no run of the requested name."""


def load(run: str | Path, out_dir: str | Path = "saved_models", *, recipe: ModuleType | None = None) -> Run:
    """Open a run by its path, ``RECIPE/NAME``, a unique NAME, or ``latest``.

    Args:
        run: The run.
        out_dir: Folder of the runs.
        recipe: The module of a recipe file of your own that the run was trained with. A run never says itself which
            code to execute, so that a run from somebody else is data.

    Raises:
        RunNotFound: If there is no such run; the message suggests the most similar name.
        UserError: If several runs have the name, run.json is damaged, or it has another format than this version reads.
    """
    if recipe is not None:
        recipes.check(recipe, getattr(recipe, "__file__", None) or str(recipe))
    for path in (files.user_path(run), files.user_path(out_dir) / str(run)):
        if os.path.lexists(path / "run.json"):
            return Run.open(path, recipe)
    if os.path.isdir(files.user_path(run)) and str(run) not in (".", ""):
        raise RunNotFound(f"{run} is not a run directory: it has no run.json.")
    return Run.open(_find(str(run), out_dir), recipe)


def _find(name: str, out_dir: str | Path) -> Path:
    """Return the directory of the run that a unique name or ``latest`` names; damaged runs do not matter."""
    available, unreadable = scan(out_dir)
    if name == files.LATEST:
        if unreadable:  # one of them may be the latest
            warn_of_unreadable(unreadable)
        if not available:
            raise RunNotFound(f"There are no runs in {out_dir} yet; 'dltoolkit train image-classifier' trains one.")
        return max(available, key=_age).path
    matches = [each.path for each in available if each.path.name == name]
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = ", ".join(f"{path.parent.name}/{path.name}" for path in matches)
        raise UserError(f"Several runs are called '{name}'; use one of {names}.")
    for path in unreadable:
        if path.name == name:
            return path  # opening it raises the reason why it cannot be read
    hint = did_you_mean(name, [each.path.name for each in available])
    raise RunNotFound(f"There is no run '{name}' in {out_dir}; 'dltoolkit list runs' lists the runs.{hint}")


def _age(run: Run) -> tuple[float, float]:
    """Return what orders runs by time; one whose date is in the future was created when run.json was written here.

    An archive gives a file any time of writing (``st_mtime``), but not the one at which it was unpacked (``st_ctime``).
    """
    status = (run.path / "run.json").stat()
    written = min(status.st_mtime, status.st_ctime)
    created = datetime.datetime.fromisoformat(run.info.get("created", "1970-01-01T00:00:00+00:00"))
    return min(created.timestamp(), written), written


def resume(
    run: Run | str | Path, *, data: Any = None, model: Any = None, callbacks: Sequence[Any] = (), **changes: Any
) -> Run:
    """Continue a run from the point where it stopped, with the options in its run.json except ``changes``.

    A run that has finished stays as it is, unless ``epochs`` or ``max_time`` is given.

    Args:
        run: A run, or any value that :func:`load` takes.
        data: The data that the run began with, if a Python program held them. The ``Run`` that ``train`` has returned
            needs them only in another process.
        model: The model, or the function that builds it, if the run began with ``train(model=…)``.
        callbacks: Callbacks of Keras.
        changes: ``epochs`` (in all), ``max_time`` (from now on) or ``device``. If only one of ``epochs`` and
            ``max_time`` is given, it replaces both, and also the ``steps`` of a text generator.

    Raises:
        UserError: If another option is given, the run has trained ``epochs`` already, the data are missing or have
            changed, or another process is using the run.
    """
    cluster.current()  # refuses a malformed description of a cluster
    run = run if isinstance(run, Run) else load(run)
    if fixed := ", ".join(sorted(changes.keys() - set(RESUME_OPTIONS))):
        raise UserError(
            f"A run is resumed with the options that it began with, so {fixed} cannot be changed: only "
            f"{', '.join(RESUME_OPTIONS)} can. Train a new run to change other options."
        )
    own = run.info["config"].get("data")
    held = own if data is None else data_object.wrap(data)
    with run.exclusive_lock():
        run.reload()  # another process may have trained the run since it was opened
        if isinstance(own, data_object.DataObject):
            run.info["config"]["data"] = own  # run.json does not hold it
        module = run.recipe
        new_length = changes.keys() & {"epochs", "max_time"}
        if not new_length and _is_complete(run):
            from dltoolkit import progress  # imports Rich, which takes a noticeable part of the time of --help

            epochs = f"its {counted(len(run.history), 'epoch')}" if run.history else "its training"
            progress.note(f"{run.path} has finished {epochs}; continue with --epochs N or --max-time T.")
            return run
        if new_length:
            lengths = run.info["config"].keys() & {"epochs", "max_time", "steps"}
            changes = {**dict.fromkeys(lengths), **changes}
        _ = run.config  # what is wrong in run.json is not an error of the caller
        if data_object.is_lost(held):
            raise UserError(
                f"{run.path} was trained on data that a Python program held ({held}), and that are not stored: resume "
                "it from Python, as dltoolkit.resume(run, data=…)."
            )
        config = configuration.make(module.Config, {**run.info["config"], **changes}).resolve(data=held)
        if new_length:
            _refuse_trained_epochs(run, config.epochs)
            run.info.get("plan", {}).pop("steps", None)  # training plans the number of steps again
        run.info["config"] = config.to_dict()  # written when training begins
        with run.naming_its_data() if data is None else contextlib.nullcontext():
            return module.train(config, resume=run, **_supported(run, model=model, callbacks=callbacks))


def _is_complete(run: Run) -> bool:
    """Return whether a run has finished and its results are there, undamaged, so that nothing is left to do."""
    if run.info["state"] != "finished" or not (run.path / "report.html").exists():
        return False
    try:
        path = run.path / "model.keras"
        with zipfile.ZipFile(path) as archive:
            if model_size.is_compressed(archive, path.stat().st_size):
                return False  # which could take hours to check
            return archive.testzip() is None and bool(run.metrics) and isinstance(run.history, list)
    except (UserError, OSError, ValueError, zipfile.BadZipFile, zlib.error):
        return False


def _supported(run: Run, **given: Any) -> dict[str, Any]:
    """Return the given arguments that are not empty; a UserError says that the recipe of a run does not take one."""
    given = {name: value for name, value in given.items() if value is not None and value != ()}
    taken = inspect.signature(run.recipe.train).parameters
    if unknown := next((name for name in given if name not in taken), None):
        raise UserError(f"A run of {run.info['recipe']} takes no {unknown}: leave it out.")
    return given


def _refuse_trained_epochs(run: Run, epochs: int | None) -> None:
    """Raise a UserError if a run has trained this number of epochs already."""
    steps_per_epoch = run.info.get("plan", {}).get("steps_per_epoch")
    if not epochs or not steps_per_epoch:
        return
    try:
        history = run.history
    except UserError:  # a damaged file, which training writes again
        return
    if history and epochs * steps_per_epoch <= history[-1]["step"]:
        done = int(history[-1]["step"]) // steps_per_epoch
        raise UserError(
            f"{run.path} has already trained {counted(done, 'epoch')}: give a larger number of epochs, because they "
            "count from the beginning."
        )


def runs(out_dir: str | Path = "saved_models") -> list[Run]:
    """Return all readable runs under ``out_dir``, oldest first."""
    return scan(out_dir)[0]


def scan(out_dir: str | Path) -> tuple[list[Run], dict[Path, str]]:
    """Return the readable runs under ``out_dir``, oldest first, and the reasons why others cannot be read, by path."""
    readable, unreadable = [], {}
    folder = files.user_path(out_dir)
    for file in sorted(folder.glob("*/*/run.json")) if os.path.isdir(folder) else ():
        try:
            readable.append(Run.open(file.parent))
        except UserError as error:
            unreadable[file.parent] = str(error)
    return sorted(readable, key=_age), unreadable


def warn_of_unreadable(reasons: Mapping[Path, str]) -> None:
    """Print a warning for each run that cannot be read, with the reason, which names it."""
    from dltoolkit import progress  # imports Rich, which takes a noticeable part of the time of --help

    for reason in reasons.values():
        progress.warn(reason)
