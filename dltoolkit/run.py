"""A run: one self-describing directory, readable at any moment, and the Python object over it."""

from __future__ import annotations

import contextlib
import csv
import datetime
import io
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dltoolkit import cluster, files, interrupt, machine, recipe
from dltoolkit import config as configuration
from dltoolkit.errors import NonChiefDone, UserError, WorkerLost, did_you_mean
from dltoolkit.files import atomic_write
from dltoolkit.models import model_file

if TYPE_CHECKING:
    import keras

FORMAT = 1  # raised when run.json changes in a way that older code cannot read
CHANGEABLE = ("epochs", "max_time", "device")  # options of a run that is resumed
LAUNCHED_VARIABLE = "DLTOOLKIT_LAUNCHED"  # how the command began that started this process as one of several workers
RUN_FILE_VARIABLE = "DLTOOLKIT_RUN_FILE"  # a file in which the chief of such workers says which run it works on


class Run:
    """A run directory. Make one with :meth:`create`, open one with :func:`load`.

    Attributes:
        path: the directory.
        info: what run.json holds (see docs/runs.md).
        writes: whether this process may change the directory; of several workers that train together, only the chief.
    """

    def __init__(self, path: Path, info: dict[str, Any]):
        self.path = path
        self.info = info
        self.writes = cluster.is_chief()
        self._is_new = self._is_held = False
        self._model: keras.Model | None = None

    # Making and changing a run

    @classmethod
    def create(cls, module_file: str, settings: configuration.RunConfig, data_name: str) -> Run:
        """Make a new run directory, ``<out_dir>/<recipe>/<name>``, with run.json as its first file.

        Args:
            module_file: the recipe's ``__file__``.
            settings: every option as used.
            data_name: what the data call themselves; the run is named after it unless ``settings.name`` says otherwise.

        Raises:
            UserError: if the name exists or is no good, or the directory cannot be written.
        """
        file = Path(module_file).resolve()
        shipped = {path.resolve(): name for name, path in recipe.names().items()}
        recipe_name = shipped.get(file) or file.stem.replace("_", "-")
        info = {
            "format": FORMAT,
            "recipe": recipe_name,
            **({} if file in shipped else {"recipe_file": str(file)}),
            "name": None,
            "state": "starting",
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "command": _command(recipe_name),
            "config": settings.to_dict(),
            "versions": machine.versions(),
            "machine": machine.description(),
        }
        parent = Path(settings.out_dir).expanduser() / recipe_name
        if not cluster.is_chief():
            run = cls(parent / (settings.name or data_name), info)  # the chief knows better; nothing is written there
            run._is_new = True
            return run
        with files.new_folder(parent, settings.name, data_name) as path:
            run = cls(path, {**info, "name": path.name})
            run._is_new = True
            try:
                run.update()
            except BaseException:
                shutil.rmtree(path, ignore_errors=True)
                raise
        return run

    def update(self, **fields: Any) -> None:
        """Change run.json; a dictionary is merged into the one that is there."""
        for name, value in fields.items():
            old = self.info.get(name)
            self.info[name] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
        self.write_json("run.json", self.info)

    def write(self, name: str, content: bytes | str) -> Path:
        """Write a file of the run: beside its place first, then renamed into it, so that a reader never sees half."""
        path = self.path / name
        if not self.writes:
            return path
        with atomic_write(path) as beside:
            beside.write_bytes(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)
        return path

    def write_json(self, name: str, content: Any) -> Path:
        """Write a JSON file of the run, indented for people."""
        return self.write(name, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def write_rows(self, name: str, rows: Sequence[dict[str, Any]]) -> Path:
        """Write a CSV file of the run from dictionaries that all have the same keys."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return self.write(name, text.getvalue())

    def save_model(self, model: keras.Model) -> Path:
        """Save the model for inference (no optimizer) as model.keras."""
        import keras

        path = self.path / "model.keras"
        if not self.writes:
            return path
        bare = keras.Model(model.inputs, model.outputs, name=model.name)
        with atomic_write(path, suffix=".keras") as beside:
            bare.save(beside)
        self._model = None
        return path

    def describe_data(self, description: dict[str, Any], findings: Sequence[tuple[str, str]] = ()) -> None:
        """Put the data's description into run.json, and print its warnings.

        Args:
            description: source, fingerprint, splits, classes, warnings and what else there is to say.
            findings: (name, what is the matter) of every bad or repeated example, for findings.csv.

        Raises:
            UserError: if this is a resumed run and the data are not those that it began with.
        """
        from dltoolkit import progress

        if "data" in self.info:
            self.check_data(description)
            return
        if "classes" in description:
            self.write_json("labels.json", description["classes"])
        if findings:
            self.write_rows("findings.csv", [{"input": name, "finding": what} for name, what in findings])
        self.update(data=description)  # the last, for a run that is killed in between writes all of them again
        for warning in description.get("warnings", []) if self.writes else []:
            progress.warn(warning)

    def check_data(self, description: dict[str, Any]) -> None:
        """Make sure that data read again are the data that the run was trained on."""
        if description["fingerprint"] != self.info["data"]["fingerprint"]:
            raise UserError(
                f"The data in {description['source']} have changed since {self.path} was trained, so its splits "
                "no longer hold; train a new run, or name data with --data."
            )

    def warn_of_training_data(self, other: str) -> None:
        """Warn where ``other``, a value of ``--data`` to be measured on, is what the run was trained on."""
        from dltoolkit import progress
        from dltoolkit.data.readers import source

        if source.same(other, self.config.data):
            progress.warn("The run was trained on these data: the result will look better than it is.")

    @contextlib.contextmanager
    def exclusive_lock(self) -> Iterator[None]:
        """Keep other processes from changing the run as long as the block lasts.

        Raises:
            UserError: if another process is at work on it.
        """
        if self._is_held or not self.writes:
            yield
            return
        with files.exclusive_lock(self.path):
            files.remove_unfinished(self.path)
            self._is_held = True
            try:
                yield
            finally:
                self._is_held = False

    @contextlib.contextmanager
    def session(self) -> Iterator[Run]:
        """Hold the run's state in step with the work inside: running, then finished, interrupted or failed.

        A new run that fails before its training has begun leaves nothing behind; SIGINT and SIGTERM become
        :class:`dltoolkit.interrupt.Interrupted`. A worker that is not the chief leaves the block when training is done.

        Raises:
            UserError: if another process is at work on the run.
        """
        with self.exclusive_lock(), self._recorded():
            yield self

    @contextlib.contextmanager
    def _recorded(self) -> Iterator[None]:
        began = time.monotonic()
        if self.info["state"] == "running":  # it was killed, or it would have said how it ended
            self.info["state"] = "interrupted"
        if self.writes and (file := os.environ.get(RUN_FILE_VARIABLE)):
            Path(file).write_text(str(self.path))
        found = self.info["state"]
        resumed, self._is_new = not self._is_new, False

        def leave(state: str, **fields: Any) -> None:
            before = self.info.get("time", {}).get("total_seconds", 0.0) if resumed else 0.0
            total = {"total_seconds": round(before + time.monotonic() - began, 2)}
            self.update(state=state, time=total, peak_memory_mb=machine.peak_memory_mb(), **fields)

        try:
            with interrupt.signals_raise():
                yield
                self.info.pop("error", None)
                leave("finished")
        except NonChiefDone:
            pass
        except (KeyboardInterrupt, Exception) as error:
            interrupted = isinstance(error, (KeyboardInterrupt, WorkerLost))
            if not self.writes:
                pass
            elif self.info["state"] == "starting" and not resumed:
                shutil.rmtree(self.path, ignore_errors=True)
            elif not (resumed and self.info["state"] == found):  # a run that did not go on is still what it was
                if isinstance(error, KeyboardInterrupt):
                    error.resume_command = self.resume_command
                elif isinstance(error, files.NotWritten):
                    error.args = (f"{error} When that can be written, go on with: {self.resume_command}",)
                with contextlib.suppress(OSError, UserError):  # a full disk must not hide the first error
                    leave("interrupted" if interrupted else "failed", error=None if interrupted else str(error))
            raise

    def chief_only(self) -> None:
        """Leave the :meth:`session` here on all workers but the chief: what follows is its work alone."""
        if not self.writes:
            raise NonChiefDone

    # Reading a run

    @property
    def resume_command(self) -> str:
        """The command that goes on with the run as it was started."""
        return f"{os.environ.get(LAUNCHED_VARIABLE, 'dltoolkit')} resume {shlex.quote(str(self.path))}"

    @property
    def classes(self) -> list[str]:
        """The class names, in the order of the model's outputs."""
        return self.info["data"]["classes"]

    @property
    def config(self) -> Any:
        """The recipe's ``Config`` with every option as this run used it."""
        return configuration.make(self.recipe.Config, self.info["config"])

    @property
    def recipe(self) -> Any:
        """The recipe's module."""
        file = self.info.get("recipe_file")
        if file is None:
            return recipe.load(self.info["recipe"])
        if self.path.resolve() in Path(file).resolve().parents:
            raise UserError(
                f"{self.path} names a recipe file inside itself; code that travels with a run is not executed."
            )
        return recipe.load(file)

    @property
    def metrics(self) -> dict[str, Any]:
        """What metrics.json holds; empty before the run was evaluated."""
        return self._read_json("metrics.json") if (self.path / "metrics.json").exists() else {}

    @property
    def history(self) -> list[dict[str, float]]:
        """The rows of history.csv as numbers, one an epoch."""
        path = self.path / "history.csv"
        if not path.exists():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        try:
            return [{name: float(value) for name, value in row.items() if value != ""} for row in rows]
        except (TypeError, ValueError):
            raise UserError(f"{path} is damaged; the run's other files may still be good.") from None

    @property
    def model(self) -> keras.Model:
        """The trained Keras model, loaded once; of a run that has not finished, the best epoch so far, with a warning.

        Raises:
            UserError: if there is none yet, it is damaged, or it carries code (Keras' safe mode refuses that).
        """
        if self._model is None:
            path, state = self.path / "model.keras", self.info["state"]
            if not path.exists():
                raise UserError(f"{self.path} has no model yet; its state is '{state}'.")
            self._model = model_file.load_model(path)
            if state != "finished":
                from dltoolkit import progress

                progress.warn(f"{self.path} has not finished (its state is '{state}'); this is its best epoch so far.")
        return self._model

    def predict(self, inputs: Any, **options: Any) -> Any:
        """Answer inputs with the recipe's ``predict``."""
        return self.verb("predict")(self, inputs, **options)

    def verb(self, name: str) -> Any:
        """Return the recipe's function of this name.

        Raises:
            UserError: if runs of this recipe cannot do that.
        """
        if not hasattr(self.recipe, name):
            other = "generate" if name == "predict" else "predict"
            raise UserError(f"A run of {self.info['recipe']} cannot do that: use 'dltoolkit {other}'.")
        return getattr(self.recipe, name)

    def generate(self, *inputs: Any, **options: Any) -> Any:
        """Make something new with the recipe's ``generate``: the continuation of a prompt, or pictures.

        Raises:
            UserError: if runs of this recipe generate nothing.
        """
        return self.verb("generate")(self, *inputs, **options)

    def stream_text(self, prompts: Sequence[str] = ("",), **options: Any) -> Iterator[list[str]]:
        """Continue prompts like :meth:`generate`, and yield what is new for each of them as it is drawn."""
        return self.verb("stream_text")(self, prompts, **options)

    def evaluate(self, data: str | None = None, **reading: Any) -> dict[str, Any]:
        """Measure on the run's own test split, or on other labelled data; shaped like ``metrics["test"]``.

        Args:
            data: what ``--data`` takes.
            reading: options of the recipe that say how to read them, where they differ from the run's own.
        """
        return self.recipe.evaluate(self, data, **reading)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, state={self.info['state']!r})"

    def _read_json(self, name: str) -> dict[str, Any]:
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (ValueError, OSError):
            lost = ": without it the run cannot go on or answer" if name == "run.json" else ""
            raise UserError(f"{self.path / name} is damaged or cannot be read{lost}.") from None


def load(run: str | Path, out_dir: str | Path = "saved_models") -> Run:
    """Open a run: a path, ``RECIPE/NAME``, a NAME that is unique, or ``latest``.

    Raises:
        UserError: if there is no such run (with the nearest name), or its run.json is damaged.
    """
    for path in (Path(run).expanduser(), Path(out_dir).expanduser() / str(run)):
        if (path / "run.json").is_file():
            return _open(path)
    if Path(run).expanduser().is_dir() and str(run) not in (".", ""):
        raise UserError(f"{run} is no run: it has no run.json.")
    known = runs(out_dir)
    if str(run) == "latest":
        if not known:
            raise UserError(f"There are no runs in {out_dir} yet; 'dltoolkit train image-classifier' makes one.")
        return max(known, key=lambda found: (found.info.get("created", ""), found.path.stat().st_mtime_ns))
    named = [found for found in known if found.path.name == str(run)]
    if len(named) == 1:
        return named[0]
    if named:
        ways = ", ".join(f"{found.path.parent.name}/{found.path.name}" for found in named)
        raise UserError(f"'{run}' names several runs; say which: {ways}.")
    hint = did_you_mean(str(run), [found.path.name for found in known])
    raise UserError(f"There is no run '{run}' in {out_dir}; 'dltoolkit list runs' shows what there is.{hint}")


def resume(run: Run | str | Path, **changes: Any) -> Run:
    """Go on with a run where it stopped; everything but ``changes`` comes from its run.json.

    Args:
        run: a run, or what :func:`load` takes.
        changes: ``epochs`` (in all) or ``max_time`` (from now on), of which either takes the other's place unless
            both are given; ``device``.

    Raises:
        UserError: for any other change, if the data have changed, or if another process is at work on the run.
    """
    run = run if isinstance(run, Run) else load(run)
    if fixed := ", ".join(sorted(changes.keys() - CHANGEABLE)):
        raise UserError(
            f"A run goes on with the options that it began with, so {fixed} cannot be changed: only "
            f"{', '.join(CHANGEABLE)} can. Train a new run for the rest."
        )
    with run.exclusive_lock():
        run.info = run._read_json("run.json")  # as the process left it that had the run before
        module = run.recipe
        another_length = changes.keys() & {"epochs", "max_time"}
        if another_length:
            changes = {"epochs": None, "max_time": None, **changes}
        config = configuration.make(module.Config, {**run.info["config"], **changes}, flags=True)
        if another_length:
            run.info.get("plan", {}).pop("steps", None)  # plan anew
        run.info["config"] = config.to_dict()  # written with the rest when training begins
        return module.train(config, resume=run)


def runs(out_dir: str | Path = "saved_models") -> list[Run]:
    """Return every readable run under ``out_dir``, oldest first."""
    found = []
    for file in Path(out_dir).expanduser().glob("*/*/run.json"):
        with contextlib.suppress(UserError):
            found.append(_open(file.parent))
    return sorted(found, key=lambda run: run.info.get("created", ""))


def _open(path: Path) -> Run:
    run = Run(path, {})
    run.info = run._read_json("run.json")
    if not isinstance(run.info, dict) or not {"recipe", "state", "config"} <= run.info.keys():
        raise UserError(f"{path / 'run.json'} is damaged: it does not name its recipe, state and config.")
    return run


def _command(recipe_name: str) -> str:
    if Path(sys.argv[0]).stem in ("dltoolkit", "__main__"):
        return shlex.join(["dltoolkit", *sys.argv[1:]])
    return f"from Python: {recipe_name}.train"
