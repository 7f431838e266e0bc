"""A run: one self-describing directory, readable at any time, and the Python object that represents it."""

from __future__ import annotations

import contextlib
import datetime
import importlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dltoolkit import cluster, data_object, display, files, lazy, machine, recipe
from dltoolkit import config as configuration
from dltoolkit.answers import Answers
from dltoolkit.errors import UserError
from dltoolkit.models import model_file
from dltoolkit.run_files import FORMAT
from dltoolkit.run_session import RunSession

if TYPE_CHECKING:
    from types import ModuleType

    import keras


class Run(Answers, RunSession):
    """A run directory. :meth:`create` makes a new one, :func:`dltoolkit.load` opens an existing one.

    Attributes:
        path: The directory.
        info: The contents of run.json (see docs/run_directory.md).
        recipe_file: The recipe's file if it is none of the installed ones. It is never taken from run.json.
    """

    _recipe: ModuleType | None = None
    _model: keras.Model | None = None

    @classmethod
    def create(cls, module_file: str, settings: configuration.RunConfig, data_name: str) -> Run:
        """Create a run directory, ``<out_dir>/<recipe>/<name>``, with run.json as its first file.

        Args:
            module_file: The recipe's ``__file__``.
            settings: Every option as used.
            data_name: Name of the data. The run is named after it unless ``settings.name`` is given.

        Raises:
            UserError: If the name is taken or invalid, the directory cannot be written, or the clock is wrong.
        """
        machine.check_clock()
        cluster.current()  # refuses a malformed description of a cluster
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
        parent = files.user_path(settings.out_dir) / recipe_name
        options = {"is_new": True, "recipe_file": None if file in shipped else file}
        if not cluster.is_chief():
            return cls(parent / (settings.name or data_name), info, **options)  # the path is not used
        with files.new_folder(parent, settings.name, data_name) as path:
            run = cls(path, {**info, "name": path.name}, **options)
            try:
                run.update()
            except BaseException:
                shutil.rmtree(path, ignore_errors=True)
                raise
        return run

    @classmethod
    def open(cls, path: Path, module: ModuleType | None = None) -> Run:
        """Open an existing run directory.

        Args:
            path: The directory.
            module: The recipe's module; None for the installed recipe that run.json names.

        Raises:
            UserError: If run.json is damaged, or the run has another format than this version reads.
        """
        run = cls(path, {}, recipe_file=None if module is None else recipe.own_file(module))
        run._recipe = module
        run.reload()
        return run

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a run as its path: another process, such as a worker of a pool, opens the directory again.

        Raises:
            UserError: If the run is of a recipe file of your own, because a run names no code.
        """
        if self.recipe_file:
            raise UserError(
                f"{self.path} is a run of your own recipe file, which is not pickled: open it in the other process "
                "with load(path, recipe=module)."
            )
        return Run.open, (self.path.absolute(),)

    # Changing a run

    def save_model(self, model: keras.Model) -> Path:
        """Save a model for inference as model.keras, without its optimizer and with Keras' own layers where it can.

        Language models keep layers of this package; see :mod:`dltoolkit.models.portable`.
        """
        from dltoolkit.models import portable

        path = self.path / "model.keras"
        if not self.writes:
            return path
        machine.check_clock()
        with files.atomic_write(path, suffix=".keras") as partial:
            portable.to_keras_layers(model).save(partial)
        self._model = None
        self.__dict__.pop("explainer", None)  # which has the earlier model
        return path

    def describe_data(self, description: dict[str, Any], findings: Sequence[tuple[str, str]] = ()) -> None:
        """Record the description of the data in run.json, and print its warnings.

        Args:
            description: Source, fingerprint, splits, classes, warnings and further facts.
            findings: Name and problem of every invalid or duplicate example, for findings.csv.

        Raises:
            UserError: If this run is being resumed and the data differ from the data that it began with.
        """
        is_known = "data" in self.info
        if is_known:
            self.check_data(description)
        if "classes" in description:  # again if the run is resumed, because its file may be damaged
            self.write_json("labels.json", description["classes"])
        if is_known:
            return
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
                "are no longer valid: restore the data, or train a new run."
            )

    @contextlib.contextmanager
    def naming_its_data(self) -> Iterator[None]:
        """Raise a UserError that names this run if the data that it was trained on are missing inside the block."""
        from dltoolkit.data.readers import source

        try:
            yield
        except source.NoSuchData:
            raise UserError(
                f"{self.path} was trained on {self.info['config']['data']}, which is not here: run this in the folder "
                "where it was trained, or restore the data."
            ) from None

    def warn_of_training_data(self, other: str) -> bool:
        """Print a warning, and return True, if the run was trained on ``other``, the data that it is evaluated on."""
        from dltoolkit.data.readers import source

        if same := source.same_examples(other, self.config.data):
            _warn("The run was trained on these data: the scores will be too optimistic.")
        return same

    # Reading a run

    @property
    def labels(self) -> list[str]:
        """The names of the classes, in the order of the model's outputs; empty if the data have none."""
        classes = self.info["data"].get("classes", [])
        if self.info.get("conditional") and not classes:
            raise UserError(f"{self.path / 'run.json'} is damaged: it names no classes, but its model generates some.")
        return classes

    @property
    def config(self) -> Any:
        """The recipe's ``Config`` with every option as this run used it.

        Raises:
            UserError: If run.json has options that the recipe refuses.
        """
        try:
            return configuration.make(self.recipe.Config, self.info["config"])
        except UserError as error:
            reason = str(error).rstrip(".")
            raise UserError(f"{self.path / 'run.json'} is damaged: its config is wrong ({reason}).") from None

    @property
    def recipe(self) -> Any:
        """The recipe's module: an installed one, or the one that :func:`dltoolkit.load` was given.

        Raises:
            UserError: If the run is of a recipe file of your own, which was not given: a run names no code.
        """
        if self._recipe is None:
            name = self.info["recipe"]
            if self.recipe_file:  # of a run that this process has created
                self._recipe = recipe.of_file(self.recipe_file)
            elif "recipe_file" in self.info or name not in recipe.names():
                raise UserError(
                    f"{self.path} is not a run of an installed recipe: a run of a recipe file of your own is used with "
                    "'--recipe ./mine.py' on the command line, or with load(path, recipe=module) in Python."
                )
            else:
                self._recipe = recipe.installed(name)
        return self._recipe

    @property
    def model(self) -> keras.Model:
        """The trained Keras model, loaded once. If the run has not finished, the best epoch so far, with a warning.

        Raises:
            UserError: If there is no model yet, or the file is damaged or contains code.
        """
        if self._model is None:
            from dltoolkit.models import run_parts  # imports NumPy, which --help does not need

            model = model_file.load_model(self.model_path)
            if self.info["recipe"] in recipe.names():  # others may use these fields in ways of their own
                run_parts.check(self.path, self.info, model)
            self._model = model
        return self._model

    @property
    def model_path(self) -> Path:
        """The file of the trained model. If the run has not finished, the best epoch so far, with a warning.

        Raises:
            UserError: If there is no model yet.
        """
        path, state = self.path / "model.keras", self.info["state"]
        if not path.exists():
            when = ": model.keras is missing" if state == "finished" else f" yet; its state is '{state}'"
            raise UserError(f"{self.path} has no model{when}.")
        self.check_parts()
        if state != "finished":
            _warn(f"{self.path} has not finished (its state is '{state}'); this is its best epoch so far.")
        return path

    def export(self, runtime: str = "onnx", **options: Any) -> Path:
        """Write a folder that another runtime answers from, after it has answered the test split as the run does.

        Args:
            runtime: ``onnx``, ``litert``, ``savedmodel`` or ``keras``.
            options: ``quantize`` (``none``, ``float16`` or ``int8``), ``out`` (the folder, by default
                ``exports/FORMAT`` in the run), ``keep_anyway`` (whether a file that answers otherwise is kept) and
                ``data`` (the data of the run, if they have moved).

        Returns:
            The folder, which :func:`dltoolkit.load` opens if its format is ``onnx`` or ``litert``.

        Raises:
            ExportRefused: If the file does not answer as the run does.
            UserError: If the run cannot be exported; see :func:`dltoolkit.export.exporting.export_run`.
        """
        exporting = importlib.import_module("dltoolkit.export.exporting")  # by name, because it reads runs itself
        return exporting.export_run(self, runtime, **options)[0]

    def decoder(self) -> Any:
        """Return the decoder of a language model; see :mod:`dltoolkit.models.language.decoders`."""
        from dltoolkit.models.language import decoders

        return decoders.load(self.model_path) or decoders.build(self.model)

    @lazy.quiet_tensorflow()
    def evaluate(self, data: Any = None, **options: Any) -> dict[str, Any]:
        """Return the metrics on the run's own test split, or on other labeled data, shaped like ``metrics["test"]``.

        Args:
            data: Other data: a path or a name, arrays, pairs, a DataFrame or tf.data, as in ``Config(data=…)``.
            options: Reading options of the recipe that differ from the run's own.
        """
        with self.naming_its_data() if data is None else contextlib.nullcontext():
            return self.recipe.evaluate(self, data_object.wrap(data), **options)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, state={self.info['state']!r})"


def _warn(message: str) -> None:
    from dltoolkit import progress  # imports Rich, which takes a noticeable part of the time of --help

    progress.warn(message)


def _command(recipe_name: str) -> str:
    if Path(sys.argv[0]).stem in ("dltoolkit", "__main__"):
        return display.command("dltoolkit", *sys.argv[1:])
    return f"from Python: {recipe_name}.train"
