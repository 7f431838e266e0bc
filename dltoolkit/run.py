"""A run: one self-describing directory, readable at any time, and the Python object that represents it."""

from __future__ import annotations

import contextlib
import datetime
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dltoolkit import cluster, data_object, files, interrupt, lazy, machine, recipe
from dltoolkit import config as configuration
from dltoolkit.errors import NonChiefDone, UserError, WorkerLost
from dltoolkit.models import model_file
from dltoolkit.run_files import RunFiles

if TYPE_CHECKING:
    import keras
    import numpy as np

FORMAT = 2  # version of the layout of a run directory; raised if older versions of this package cannot read the new one
LAUNCHED_VARIABLE = "DLTOOLKIT_LAUNCHED"  # environment variable with the start of the command that launched the workers
RUN_FILE_VARIABLE = "DLTOOLKIT_RUN_FILE"  # environment variable that names the file to which the chief writes its run


class Run(RunFiles):
    """A run directory. :meth:`create` makes a new one, :func:`dltoolkit.load` opens an existing one.

    Attributes:
        path: The directory.
        info: The contents of run.json (see docs/run_directory.md).
    """

    def __init__(self, path: Path, info: dict[str, Any], *, is_new: bool = False):
        super().__init__(path, info)
        self._is_new, self._is_locked = is_new, False
        self._model: keras.Model | None = None

    @classmethod
    def create(cls, module_file: str, settings: configuration.RunConfig, data_name: str) -> Run:
        """Create a run directory, ``<out_dir>/<recipe>/<name>``, with run.json as its first file.

        Args:
            module_file: The recipe's ``__file__``.
            settings: Every option as used.
            data_name: Name of the data. The run is named after it unless ``settings.name`` is given.

        Raises:
            UserError: If the name is taken or invalid, or the directory cannot be written.
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
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": _command(recipe_name),
            "config": settings.to_dict(),
            "versions": machine.versions(),
            "machine": machine.description(),
        }
        parent = Path(settings.out_dir).expanduser() / recipe_name
        if not cluster.is_chief():
            return cls(parent / (settings.name or data_name), info, is_new=True)  # the path is not used
        with files.new_folder(parent, settings.name, data_name) as path:
            run = cls(path, {**info, "name": path.name}, is_new=True)
            try:
                run.update()
            except BaseException:
                shutil.rmtree(path, ignore_errors=True)
                raise
        return run

    @classmethod
    def open(cls, path: Path) -> Run:
        """Open an existing run directory.

        Raises:
            UserError: If run.json is damaged, or the run has another format than this version reads.
        """
        run = cls(path, {})
        run.reload()
        return run

    def reload(self) -> None:
        """Read run.json again.

        Raises:
            UserError: If it is damaged, or the run has another format than this version reads.
        """
        info = self._read_json("run.json")
        if not isinstance(info, dict) or not {"recipe", "state", "config"} <= info.keys():
            raise UserError(f"{self.path / 'run.json'} is damaged: it does not contain a recipe, a state and a config.")
        if info.get("format") != FORMAT:
            actual = f"format {info['format']}" if "format" in info else "no format number"
            raise UserError(f"{self.path} has {actual}, but this version reads only format {FORMAT}: train a new run.")
        self.info = info

    # Changing a run

    def save_model(self, model: keras.Model) -> Path:
        """Save a model for inference as model.keras, without its optimizer and with Keras' own layers where it can.

        Language models keep layers of this package; see :mod:`dltoolkit.models.portable`.
        """
        from dltoolkit.models import portable

        path = self.path / "model.keras"
        if not self.writes:
            return path
        with files.atomic_write(path, suffix=".keras") as partial:
            portable.to_keras_layers(model).save(partial)
        self._model = None
        return path

    def describe_data(self, description: dict[str, Any], findings: Sequence[tuple[str, str]] = ()) -> None:
        """Record the description of the data in run.json, and print its warnings.

        Args:
            description: Source, fingerprint, splits, classes, warnings and further facts.
            findings: Name and problem of every invalid or duplicate example, for findings.csv.

        Raises:
            UserError: If this run is being resumed and the data differ from the data that it began with.
        """
        if "data" in self.info:
            self.check_data(description)
            return
        if "classes" in description:
            self.write_json("labels.json", description["classes"])
        if findings:
            self.write_rows("findings.csv", [{"input": name, "finding": problem} for name, problem in findings])
        self.update(data=description)  # last, so that a run that is killed before this writes all of the files again
        for warning in description.get("warnings", []) if self.writes else []:
            _warn(warning)

    def check_data(self, description: dict[str, Any]) -> None:
        """Raise a UserError if data differ from the data that the run was trained on."""
        if description["fingerprint"] != self.info["data"]["fingerprint"]:
            raise UserError(
                f"The data in {description['source']} have changed since {self.path} was trained, so its splits "
                "are no longer valid; train a new run, or evaluate other data with --data."
            )

    def warn_of_training_data(self, other: str) -> bool:
        """Print a warning, and return True, if the run was trained on ``other``, the data that it is evaluated on."""
        from dltoolkit.data.readers import source

        if same := source.same_examples(other, self.config.data):
            _warn("The run was trained on these data: the scores will be too optimistic.")
        return same

    @contextlib.contextmanager
    def exclusive_lock(self) -> Iterator[None]:
        """Keep other processes from changing the run inside the block.

        Raises:
            UserError: If another process is using the run.
        """
        if self._is_locked or not self.writes:
            yield
            return
        with files.exclusive_lock(self.path):
            files.remove_partial_files(self.path)
            self._is_locked = True
            try:
                yield
            finally:
                self._is_locked = False

    @contextlib.contextmanager
    def session(self) -> Iterator[Run]:
        """Lock the run inside the block and record its state: running, then finished, interrupted or failed.

        A new run that fails before its training has begun is deleted. SIGINT and SIGTERM raise
        :class:`dltoolkit.interrupt.Interrupted`. Workers other than the chief leave the block when training is done.
        Keras' dtype policy, which training sets, is restored at the end.

        Raises:
            UserError: If another process is using the run.
        """
        with self.exclusive_lock(), self._recorded_state(), _restored_dtype_policy(), lazy.quiet_tensorflow():
            yield self

    @contextlib.contextmanager
    def _recorded_state(self) -> Iterator[None]:
        start = time.monotonic()
        if self.info["state"] == "running":  # the process that left this state was killed
            self.info["state"] = "interrupted"
        if self.writes and (file := os.environ.get(RUN_FILE_VARIABLE)):
            Path(file).write_text(str(self.path))
        initial_state = self.info["state"]
        resumed, self._is_new = not self._is_new, False

        def record(state: str, **fields: Any) -> None:
            before = self.info.get("time", {}).get("total_seconds", 0.0) if resumed else 0.0
            seconds = {"total_seconds": round(before + time.monotonic() - start, 2)}
            self.update(state=state, time=seconds, peak_memory_mb=machine.peak_memory_mb(), **fields)

        try:
            with interrupt.signals_raise():
                yield
                self.info.pop("error", None)
                record("finished")
        except NonChiefDone:
            pass
        except (KeyboardInterrupt, Exception) as error:
            interrupted = isinstance(error, (KeyboardInterrupt, WorkerLost))
            if not self.writes:
                pass
            elif self.info["state"] == "starting" and not resumed:
                shutil.rmtree(self.path, ignore_errors=True)
            elif not (resumed and self.info["state"] == initial_state):  # if training has not begun, nothing changes
                if isinstance(error, KeyboardInterrupt):
                    error.resume_command = self.resume_command
                elif isinstance(error, files.WriteError):
                    error.args = (f"{error} When there is space and permission, resume with: {self.resume_command}",)
                with contextlib.suppress(OSError, UserError):  # keep the first error
                    record("interrupted" if interrupted else "failed", error=None if interrupted else str(error))
            raise

    def chief_only(self) -> None:
        """Leave the :meth:`session` on all workers except the chief, which does the rest alone."""
        if not self.writes:
            raise NonChiefDone

    # Reading a run

    @property
    def resume_command(self) -> str:
        """The command that resumes the run, or the call if a Python program held its data."""
        if str(self.info["config"].get("data")).startswith(data_object.SCHEME):
            return f"dltoolkit.resume({str(self.path)!r}, data=…)"
        return f"{os.environ.get(LAUNCHED_VARIABLE, 'dltoolkit')} resume {shlex.quote(str(self.path))}"

    @property
    def labels(self) -> list[str]:
        """The names of the classes, in the order of the model's outputs; empty if the data have none."""
        return self.info["data"].get("classes", [])

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
                f"{self.path} names a recipe file inside its own directory, and code in a run is not executed: move "
                "the recipe out of it."
            )
        return recipe.load(file)

    @property
    def model(self) -> keras.Model:
        """The trained Keras model, loaded once. If the run has not finished, the best epoch so far, with a warning.

        Raises:
            UserError: If there is no model yet, or the file is damaged or contains code.
        """
        if self._model is None:
            self._model = model_file.load_model(self.model_path)
        return self._model

    @property
    def model_path(self) -> Path:
        """The file of the trained model. If the run has not finished, the best epoch so far, with a warning.

        Raises:
            UserError: If there is no model yet.
        """
        path, state = self.path / "model.keras", self.info["state"]
        if not path.exists():
            raise UserError(f"{self.path} has no model yet; its state is '{state}'.")
        if state != "finished":
            _warn(f"{self.path} has not finished (its state is '{state}'); this is its best epoch so far.")
        return path

    def predict(self, inputs: Any, **options: Any) -> Any:
        """Classify one input or many: one gives a :class:`dltoolkit.Prediction`, many give a list of the same length.

        For a classifier of texts, a ``str`` is a text, whatever it holds; a file with one text is a ``pathlib.Path``.
        For a classifier of images, an image is a path, the bytes of a file, a Pillow image, or an array or tensor
        (height, width) or (height, width, channels). Many inputs are a list, an iterator, a column of a DataFrame, or
        an array with one more axis. An input that is missing (None, NaN) or cannot be read gets a prediction with its
        ``error``, in its place.

        Args:
            inputs: One input or many.
            options: ``top_k`` (number of classes that each prediction lists, 5 by default) and ``threshold``
                (probability below which the label is ``unsure``).

        Raises:
            UserError: If the run is not a classifier.
        """
        return self.verb("predict")(self, inputs, **options)

    def predict_proba(self, inputs: Any) -> np.ndarray:
        """Return the probabilities of :attr:`labels`, float32 (n, labels), for inputs as :meth:`predict` takes them.

        Raises:
            UserError: If an input cannot be read, or the run is not a classifier.
        """
        return self.verb("predictor")(self).predict_proba(inputs)

    def embed(self, inputs: Any) -> np.ndarray:
        """Return the input of the last dense layer, float32 (n, features), for inputs as :meth:`predict` takes them.

        Raises:
            UserError: If an input cannot be read, the model has no dense layer, or the run is not a classifier.
        """
        return self.verb("predictor")(self).embed(inputs)

    def preprocess(self, inputs: Any) -> np.ndarray:
        """Return inputs as :attr:`model` takes them: ``run.model(run.preprocess(inputs))`` are the logits.

        Args:
            inputs: One input or many, as :meth:`predict` takes them.

        Returns:
            Pixels uint8 (n, height, width, channels), or token IDs int32 (n, time).

        Raises:
            UserError: If an input cannot be read, or the run is not a classifier.
        """
        return self.verb("predictor")(self).preprocess(inputs)

    def verb(self, name: str) -> Any:
        """Return the recipe's function of this name.

        Raises:
            UserError: If the recipe has no such function.
        """
        if not hasattr(self.recipe, name):
            other = "generate" if name.startswith("predict") else "predict"
            hint = f": use 'dltoolkit {other}'" if hasattr(self.recipe, other) else ""
            raise UserError(f"A run of {self.info['recipe']} does not support this{hint}.")
        return getattr(self.recipe, name)

    def generate(self, *inputs: Any, **options: Any) -> Any:
        """Return the continuations of prompts, or the images, that the recipe's ``generate`` returns.

        Raises:
            UserError: If the recipe does not generate anything.
        """
        return self.verb("generate")(self, *inputs, **options)

    def stream_text(self, prompts: Sequence[str] = ("",), **options: Any) -> Iterator[list[str]]:
        """Continue prompts like :meth:`generate`, but yield the new text of each prompt while it is generated."""
        return self.verb("stream_text")(self, prompts, **options)

    @lazy.quiet_tensorflow()
    def evaluate(self, data: Any = None, **options: Any) -> dict[str, Any]:
        """Return the metrics on the run's own test split, or on other labeled data, shaped like ``metrics["test"]``.

        Args:
            data: Other data: a path or a name, arrays, pairs, a DataFrame or tf.data, as in ``Config(data=…)``.
            options: Reading options of the recipe that differ from the run's own.
        """
        return self.recipe.evaluate(self, data_object.wrap(data), **options)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, state={self.info['state']!r})"


@contextlib.contextmanager
def _restored_dtype_policy() -> Iterator[None]:
    policy = sys.modules["keras"].config.dtype_policy() if "keras" in sys.modules else None
    try:
        yield
    finally:
        if "keras" in sys.modules:  # not imported here, because a run may fail before anything needs it
            keras = sys.modules["keras"]
            keras.config.set_dtype_policy(policy or keras.config.floatx())


def _warn(message: str) -> None:
    from dltoolkit import progress  # imports Rich, which takes a noticeable part of the time of --help

    progress.warn(message)


def _command(recipe_name: str) -> str:
    if Path(sys.argv[0]).stem in ("dltoolkit", "__main__"):
        return shlex.join(["dltoolkit", *sys.argv[1:]])
    return f"from Python: {recipe_name}.train"
