"""The runtimes that answer from an exported file. Only that of SavedModel imports TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dltoolkit import lazy
from dltoolkit.errors import UserError, root_cause

INSTALL = "pip install 'dltoolkit[export]'"


class Session(Protocol):
    """A loaded file that answers.

    Attributes:
        inputs: Names of its inputs.
    """

    inputs: list[str]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs by name.

        Args:
            inputs: The inputs by name, each with the number of inputs as its first size.
        """


class OnnxSession:
    """A file of ONNX, which ONNX Runtime answers from on the CPU.

    Args:
        path: The file.
        threads: Number of threads; 0 for one per core.
    """

    def __init__(self, path: Path, threads: int = 0):
        try:
            import onnxruntime
        except ImportError:
            raise UserError(f"{path} needs ONNX Runtime: {INSTALL}.") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4  # only fatal errors; others are exceptions
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the exceptions of ONNX Runtime have no common base
            raise UserError(f"ONNX Runtime cannot load {path} ({root_cause(error)}): export the run again.") from error
        self.inputs = [tensor.name for tensor in self._session.get_inputs()]
        self._outputs = [tensor.name for tensor in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(self._outputs, self._session.run(None, dict(inputs)), strict=True))


class LiteRtSession:
    """A file of LiteRT (TensorFlow Lite).

    A file for one input at a time is called once for each input.

    Args:
        path: The file.
        threads: Number of threads; 0 for one per core.
    """

    def __init__(self, path: Path, threads: int = 0):
        try:
            with lazy.discard_stderr():
                from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise UserError(f"{path} needs LiteRT: {INSTALL}.") from None
        try:
            with lazy.discard_stderr():
                self._interpreter = Interpreter(model_path=str(path), num_threads=threads or None)
                self._run = self._interpreter.get_signature_runner()
        except Exception as error:  # LiteRT raises ValueError and RuntimeError
            raise UserError(f"LiteRT cannot load {path} ({root_cause(error)}): export the run again.") from error
        self._ran = False
        details = self._run.get_input_details()
        self.inputs = list(details)
        self._one_by_one = all(detail["shape_signature"][0] == 1 for detail in details.values())

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if not self._ran:  # the first call says on stderr which delegate it creates
            self._ran = True
            with lazy.discard_stderr():
                return self.run(inputs)
        count = len(next(iter(inputs.values())))
        if not self._one_by_one or count == 1:
            return self._run(**inputs)
        rows = [self._run(**{name: array[[row]] for name, array in inputs.items()}) for row in range(count)]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


class SavedModelSession:
    """A folder of TensorFlow's SavedModel."""

    def __init__(self, path: Path, threads: int = 0):
        lazy.import_tensorflow()
        import tensorflow as tf

        try:
            self._loaded = tf.saved_model.load(str(path))  # the function needs its variables to stay alive
            self._function = self._loaded.signatures["serving_default"]
            self.inputs = list(self._function.structured_input_signature[1])
        except Exception as error:  # TensorFlow raises many kinds
            raise UserError(f"TensorFlow cannot load {path} ({root_cause(error)}): export the run again.") from error

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        import tensorflow as tf

        outputs = self._function(**{name: tf.constant(array) for name, array in inputs.items()})
        return {name: tensor.numpy() for name, tensor in outputs.items()}


SESSIONS: dict[str, Any] = {"onnx": OnnxSession, "litert": LiteRtSession, "savedmodel": SavedModelSession}
