"""Conversion of a graph to the file of a format."""

from __future__ import annotations

import contextlib
import logging
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from dltoolkit import lazy
from dltoolkit.errors import UserError, machine_error, root_cause
from dltoolkit.export.graphs import SIGNATURE, Graph

OPSET = 17  # of ONNX; all runtimes of the last years read it


def to_savedmodel(graph: Graph, path: Path) -> None:
    """Write a SavedModel folder with one signature.

    Raises:
        UserError: If the disk is full or not writable.
    """
    try:
        with quiet():
            tf.saved_model.save(graph.module, str(path), signatures={SIGNATURE: graph.function})
    except tf.errors.OpError as error:
        raise UserError(machine_error(error) or f"Cannot write {path}: {root_cause(error)}.") from error


def to_onnx(graph: Graph, path: Path) -> None:
    """Write a file of ONNX, whose sizes have the names ``batch`` and ``time``.

    Raises:
        UserError: If tf2onnx is missing, or the network has an operation that ONNX lacks.
    """
    try:
        import onnx
        import tf2onnx
    except ImportError:
        raise UserError("ONNX files are written by tf2onnx: pip install 'dltoolkit[export]'.") from None
    _register_erfc()
    try:
        with quiet():
            proto, _ = tf2onnx.convert.from_function(
                graph.module.answer, input_signature=list(graph.specs.values()), opset=OPSET
            )
        _store_captured(proto, graph)
        onnx.checker.check_model(proto)
    except Exception as error:  # tf2onnx raises many kinds
        raise UserError(f"tf2onnx cannot convert this network ({root_cause(error)}).") from error
    unknown = {node.op_type for node in proto.graph.node if node.domain not in ("", "ai.onnx")}
    if unknown:
        raise UserError(f"ONNX has no operation {', '.join(sorted(unknown))}, which this network needs.")
    _name_sizes(proto, graph)
    path.write_bytes(proto.SerializeToString())


def to_litert(graph: Graph, path: Path, configure: Callable[[Any], None] = lambda converter: None) -> None:
    """Write a file of LiteRT.

    Args:
        graph: The network.
        path: The file.
        configure: Sets further options of the converter, such as quantization.

    Raises:
        UserError: If the network has an operation that LiteRT lacks.
    """
    with tempfile.TemporaryDirectory() as folder:
        to_savedmodel(graph, Path(folder))
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])
        configure(converter)
        try:
            with quiet():
                content = converter.convert()
        except Exception as error:  # a ConverterError with the whole graph, or an error of MLIR
            missing = sorted(set(re.findall(r"'tf\.(\w+)' op is neither", str(error))))
            if missing:
                raise UserError(f"LiteRT has no operation {', '.join(missing)}, which this network needs.") from error
            raise UserError(f"LiteRT cannot convert this network ({root_cause(error)}).") from error
    path.write_bytes(content)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop what the converters print and log; their errors are exceptions or missing operations."""
    loggers = [logging.getLogger(name) for name in ("tf2onnx", "tensorflow", "absl")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with lazy.discard_stderr():
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _register_erfc() -> None:
    """Teach tf2onnx the complementary error function of the exact GELU: erfc(x) = 1 - erf(x)."""
    import numpy as np
    from tf2onnx.handler import tf_op

    @tf_op("Erfc")
    class _Erfc:
        @classmethod
        def version_9(cls, ctx: Any, node: Any, **_: Any) -> None:
            shape, dtype, outputs = ctx.get_shape(node.output[0]), ctx.get_dtype(node.output[0]), list(node.output)
            erf = ctx.make_node("Erf", [node.input[0]])
            one = ctx.make_const(f"{node.name}_one", np.array(1, np.float32))
            ctx.remove_node(node.name)
            ctx.make_node(
                "Sub", [one.output[0], erf.output[0]], outputs=outputs, name=node.name, shapes=[shape], dtypes=[dtype]
            )


def _store_captured(proto: Any, graph: Graph) -> None:
    """Store the constants of layers that are no variables, such as a mean, which tf2onnx makes inputs of the file."""
    from onnx import numpy_helper

    captured = {inner.name: outer for outer, inner in graph.function.graph.captures}
    for value in [value for value in proto.graph.input if value.name in captured]:
        proto.graph.initializer.append(numpy_helper.from_array(captured[value.name].numpy(), value.name))
        proto.graph.input.remove(value)


def _name_sizes(proto: Any, graph: Graph) -> None:
    """Name the sizes that a runtime may choose."""
    for value in (*proto.graph.input, *proto.graph.output):
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            if not size.HasField("dim_value"):
                is_state = value.name in graph.state or value.name in graph.state.values()
                size.dim_param = "batch" if axis == 0 else "earlier" if is_state else "time"
