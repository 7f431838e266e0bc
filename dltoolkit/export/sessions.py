"""The runtimes that answer from an exported file. Only that of SavedModel imports TensorFlow."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dltoolkit import lazy, memory
from dltoolkit.errors import UserError, root_cause

INSTALL = "pip install 'dltoolkit[export]'"
ONNX_TYPES = {"tensor(float)": "float32", "tensor(double)": "float64"}  # those whose names differ from numpy's
SHOWN_CHARACTERS = 200  # of the reason that a runtime gives

Tensors = dict[str, tuple[str, list[int | None]]]  # name -> type and shape; a size is None if it may be any


class Session(Protocol):
    """A loaded file that answers. Several threads may call it.

    Attributes:
        inputs: Its inputs.
        outputs: Its outputs.
    """

    inputs: Tensors
    outputs: Tensors

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs by name.

        Args:
            inputs: The inputs by name, each with the number of inputs as its first size.

        Raises:
            UserError: If the runtime refuses the inputs, or an operation fails.
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
        if _limit_memory(onnxruntime):
            options.add_session_config_entry("session.use_env_allocators", "1")
        self._path = path
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
            )  # the fallback prints a message to stdout
            self.inputs, self.outputs = (
                {tensor.name: (_onnx_type(tensor.type), _sizes(tensor.shape)) for tensor in tensors}
                for tensors in (self._session.get_inputs(), self._session.get_outputs())
            )
        except Exception as error:  # the exceptions of ONNX Runtime have no common base
            raise _refused("ONNX Runtime", "load", path, error) from error

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            return dict(zip(self.outputs, self._session.run(None, dict(inputs)), strict=True))
        except Exception as error:
            raise _refused("ONNX Runtime", "answer from", self._path, error) from error


@functools.cache
def _limit_memory(onnxruntime: Any) -> bool:
    """Let all sessions together take half of the free memory at most, and return whether that succeeded.

    A file can ask for more: a few numbers in it are the shape of an array.
    """
    limit = {
        "max_mem": max(memory.GIGABYTE, memory.available() // 2),
        "arena_extend_strategy": 1,  # take what is needed, not the next power of two
        "initial_chunk_size_bytes": -1,
        "max_dead_bytes_per_chunk": -1,
    }
    try:
        place = onnxruntime.OrtMemoryInfo(
            "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
        )
        onnxruntime.create_and_register_allocator(place, onnxruntime.OrtArenaCfg(limit))
    except Exception:  # the program has registered one of its own
        return False
    return True


def _onnx_type(name: str) -> str:
    return ONNX_TYPES.get(name) or name.removeprefix("tensor(").removesuffix(")")


def _sizes(shape: Any) -> list[int | None]:
    """Return the sizes of a shape; those that a runtime names, leaves out or gives as negative may be any."""
    return [int(size) if isinstance(size, int | np.integer) and size >= 0 else None for size in shape]


def _refused(runtime: str, verb: str, path: Path, error: Exception) -> UserError:
    reason = root_cause(error) if str(error) else "without a message, as when memory is short"
    reason = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", reason).rpartition("Status Message: ")[2]
    reason = re.sub(r"^/\S+\.cc:\d+ .*?\) ", "", reason)  # the place in the source code of the runtime
    reason = f"{reason[:SHOWN_CHARACTERS]}…" if len(reason) > SHOWN_CHARACTERS else reason
    return UserError(f"{runtime} cannot {verb} {path} ({reason}): export the run again.")


class LiteRtSession:
    """A file of LiteRT (TensorFlow Lite).

    A file for one input at a time is called once for each input. The interpreter holds the tensors of a call, so one
    thread calls it at a time.

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
            self.inputs, self.outputs = (
                {
                    name: (np.dtype(each["dtype"]).name, _sizes(each["shape_signature"]))
                    for name, each in details.items()
                }
                for details in (self._run.get_input_details(), self._run.get_output_details())
            )
        except Exception as error:  # LiteRT raises ValueError and RuntimeError
            raise _refused("LiteRT", "load", path, error) from error
        self._path, self._ran, self._lock = path, False, threading.Lock()
        self._one_by_one = all(shape[:1] == [1] for _, shape in self.inputs.values())

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with self._lock:
            try:
                if self._ran:
                    return self._call(inputs)
                with lazy.discard_stderr():  # the first call says which delegate it creates
                    self._ran = True
                    return self._call(inputs)
            except Exception as error:
                raise _refused("LiteRT", "answer from", self._path, error) from error

    def _call(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
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
            self.inputs, self.outputs = (
                {name: (tensor.dtype.name, _sizes(tensor.shape)) for name, tensor in tensors.items()}
                for tensors in (self._function.structured_input_signature[1], self._function.structured_outputs)
            )
        except Exception as error:  # TensorFlow raises many kinds
            raise _refused("TensorFlow", "load", path, error) from error

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        import tensorflow as tf

        outputs = self._function(**{name: tf.constant(array) for name, array in inputs.items()})
        return {name: tensor.numpy() for name, tensor in outputs.items()}


SESSIONS: dict[str, Any] = {"onnx": OnnxSession, "litert": LiteRtSession, "savedmodel": SavedModelSession}
