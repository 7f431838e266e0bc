"""Answers from an exported folder, without TensorFlow and Keras."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit import files, progress, recipe, run_schema
from dltoolkit.answers import Answers
from dltoolkit.data.text import encoders
from dltoolkit.errors import UserError
from dltoolkit.export import consistency, folder, onnx_check, sessions, trial
from dltoolkit.export.decoding import ExportedDecoder

if TYPE_CHECKING:
    from dltoolkit.evaluation.text_predictor import TextPredictor
    from dltoolkit.run import Run

EXPORTS = "exports"  # folder of a run
RUNTIMES = {"onnx": "onnxruntime", "litert": "ai_edge_litert"}  # packages of the formats that answer here
# The recipes whose functions answer, by the kind of the export
RECIPES = {
    "image-classifier": "image-classifier",
    "text-classifier": "sentiment-analyzer",
    "text-generator": "text-generator",
    "image-generator": "image-gan",
}
MODEL = "model.keras"  # file of a run
IMAGE_STEPS = ("image_shape", "scale", "resize")  # what preprocessing.json says about images as run.json does
# Formats that are for other programs, and why this one does not answer from them
OTHERS = {
    "savedmodel": "TensorFlow executes what a SavedModel says, such as to write files, so it is for your own servers",
    "keras": "it needs Keras, as the run itself does",
}


class Export(Answers):
    """An exported folder that answers as the run does from which it was made.

    Attributes:
        path: The folder.
        info: The contents of export.json.
        steps: The contents of preprocessing.json.
    """

    def __init__(self, path: Path, info: dict[str, Any], steps: dict[str, Any]):
        self.path, self.info, self.steps = path, {**info, "recipe": RECIPES[info["kind"]]}, steps
        self.info |= {
            "conditional": steps.get("conditional"),
            "resolved": {"context_length": steps.get("context_length")},
            "data": {**info.get("data", {}), **{name: steps[name] for name in IMAGE_STEPS if name in steps}},
        }

    @classmethod
    def open(cls, path: Path) -> Export:
        """Open an exported folder.

        Raises:
            UserError: If a file is missing, damaged or changed, the files do not belong together, or the format is for
                other programs.
        """
        info, steps = folder.read(path)
        if reason := OTHERS.get(info["runtime"]):
            raise UserError(f"{path} holds a model for other programs ({reason}): use the run, or an export to onnx.")
        opened = cls(path, info, steps)
        consistency.check_folder(path, info, steps, opened.labels)
        return opened

    @functools.cached_property
    def labels(self) -> list[str]:
        """The names of the classes; empty for a text generator."""
        path = self.path / folder.LABELS
        return run_schema.read(path, run_schema.LABELS) if path.exists() else []

    @property
    def recipe(self) -> Any:
        """The functions of the installed recipe that answer."""
        if self.info["kind"] == "text-classifier":
            return _TextClassifier
        return recipe.installed(RECIPES[self.info["kind"]])

    @property
    def config(self) -> Any:
        """The default options of the recipe; an export does not depend on those of its run."""
        return recipe.installed(self.info["recipe"]).Config()

    @functools.cached_property
    def session(self) -> sessions.Session:
        """The loaded file.

        Raises:
            UserError: If the runtime is missing, or refuses the file.
        """
        runtime = self.info["runtime"]
        file = self.path / folder.MODEL_FILES[runtime]
        is_installed = runtime in RUNTIMES and importlib.util.find_spec(RUNTIMES[runtime])
        if is_installed and (runtime == "litert" or onnx_check.check_file(file)):
            trial.check(file, self.info, self.steps)
        # One token of one text has too little work for several threads, which then wait for each other
        threads = 1 if self.info["kind"] == "text-generator" else 0
        session = open_session(self.path, runtime, threads)
        consistency.check_file(session, self.info, file)
        return session

    @property
    def model(self) -> _Model:
        """What answers batches as a Keras model does."""
        output = consistency.main_output(self.info["kind"])
        return _Model(self.session, self.info["inputs"], output, self._shape(output))

    def warn(self) -> None:
        """Warn of a file that does not answer as its run does, or no longer."""
        if not self.info["passed"]:
            progress.warn(f"{self.path} does not answer as its run does, and was kept anyway; card.md has the figures.")
        run = self.path.absolute().parent.parent
        with contextlib.suppress(OSError):
            if self.path.absolute().parent.name == EXPORTS and not self.is_of(run / MODEL):
                progress.warn(f"{self.path} was made of an earlier model of {run}: export the run again.")

    def is_of(self, model: Path) -> bool:
        """Return whether the export was made of the model in a file."""
        return self.info["run"]["model_sha256"] == files.sha256(model, follow_links=False)

    def embed(self, inputs: Any) -> np.ndarray:
        """Raise a UserError: the file has no outputs but those of the last layer."""
        raise UserError(f"{self.path} has logits and probabilities only: use the run for embeddings.")

    def decoder(self) -> ExportedDecoder:
        """Return the decoder of a language model."""
        return ExportedDecoder(self.session, self.info["state"], self.steps["empty_state"], self._shape("logits")[-1])

    def _shape(self, output: str) -> list[int | None]:
        return next(tensor["shape"] for tensor in self.info["outputs"] if tensor["name"] == output)

    def __repr__(self) -> str:
        return f"Export({str(self.path)!r})"


def of_run(run: Run) -> Export | None:
    """Return an export in the directory of a run that answers as the run does, or None.

    It has passed its comparison, is not quantized, was made of the current model, and its runtime is installed. A
    damaged one is named in a warning.
    """
    for runtime, package in RUNTIMES.items():
        path = run.path / EXPORTS / runtime
        if not folder.is_export(path) or importlib.util.find_spec(package) is None:
            continue
        try:
            opened = Export.open(path)
            if opened.info["passed"] and opened.is_of(run.model_path):
                _ = opened.session
                return opened
        except UserError as error:
            progress.warn(f"{error} Until then, the run itself answers.")
            continue
        if opened.info["passed"]:
            progress.warn(f"{path} was made of an earlier model, so the run itself answers: export the run again.")
    return None


def open_session(path: Path, runtime: str, threads: int = 0) -> sessions.Session:
    """Return the session that answers from the model file of an exported folder.

    Args:
        path: The folder.
        runtime: The format.
        threads: Number of threads; 0 for one per core.
    """
    file = path / folder.MODEL_FILES[runtime]
    if runtime == "onnx":
        onnx_check.check_file(file)
    return sessions.SESSIONS[runtime](file, threads)


class _Model:
    """The session as a model from one batch, or a list of them, to one batch.

    Args:
        session: The session.
        inputs: Names of its inputs.
        output: Name of the output.
        output_shape: Its shape.
    """

    def __init__(
        self, session: sessions.Session, inputs: list[dict[str, Any]], output: str, output_shape: list[int | None]
    ):
        self._session, self._output, self.output_shape = session, output, output_shape
        self.inputs = [tensor["name"] for tensor in inputs]

    def predict_on_batch(self, batch: np.ndarray | list[np.ndarray]) -> np.ndarray:
        """Return the output for a batch."""
        arrays = batch if isinstance(batch, list) else [batch]
        output = self._session.run(dict(zip(self.inputs, arrays, strict=True)))[self._output]
        if output.shape != (len(arrays[0]), *self.output_shape[1:]):
            raise UserError(
                f"The file answers {len(arrays[0])} inputs with an array of shape {output.shape}: export the run again."
            )
        return output


class _TextClassifier:
    """The functions of a recipe for texts whose encoder is in the folder."""

    @staticmethod
    def predictor(export: Export) -> TextPredictor:
        from dltoolkit.evaluation.text_predictor import TextPredictor  # its regular expressions take time

        return TextPredictor(export, encoders.load_exported(export.path, export.steps))

    @staticmethod
    def predict(export: Export, inputs: Any, **options: Any) -> Any:
        return _TextClassifier.predictor(export).predict(inputs, **options)
