"""Smaller files: weights in float16, or in int8 with activations in float32 or int8."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from dltoolkit.export import formats
from dltoolkit.export.graphs import Graph

REPRESENTATIVE = 200  # training examples that decide the ranges of the activations


def convert(graph: Graph, runtime: str, quantize: str, path: Path, representative: np.ndarray | None) -> str:
    """Write the model file of a format, and return its quantization in words.

    Args:
        graph: The network.
        runtime: The format.
        quantize: ``none``, ``float16`` or ``int8``.
        path: The file, or the folder of a SavedModel.
        representative: Inputs of a convolutional network, whose activations become int8 too; None for other networks,
            whose activations stay float32 because full int8 ruined them.

    Raises:
        UserError: If the network cannot be converted.
    """
    if quantize == "none":
        {"savedmodel": formats.to_savedmodel, "onnx": formats.to_onnx, "litert": formats.to_litert}[runtime](
            graph, path
        )
        return "none"
    if runtime == "litert":
        formats.to_litert(graph, path, _litert_options(quantize, representative, next(iter(graph.specs))))
    else:
        _quantize_onnx(graph, quantize, path, representative)
    if quantize == "float16":
        return "weights in float16"
    return "weights in int8" if representative is None else "weights and activations in int8"


def _litert_options(quantize: str, representative: np.ndarray | None, name: str) -> Callable[[Any], None]:
    def configure(converter: Any) -> None:
        import tensorflow as tf

        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        elif representative is not None:
            converter.representative_dataset = lambda: ({name: example[None]} for example in representative)

    return configure


def _quantize_onnx(graph: Graph, quantize: str, path: Path, representative: np.ndarray | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "model.onnx"
        formats.to_onnx(graph, plain)
        with formats.quiet():
            if quantize == "float16":
                _onnx_to_float16(plain, path)
            elif representative is None:
                from onnxruntime.quantization import QuantType, quantize_dynamic

                quantize_dynamic(str(plain), str(path), weight_type=QuantType.QInt8)
            else:
                from onnxruntime.quantization import QuantFormat, QuantType, quantize_static, shape_inference

                prepared = Path(folder) / "prepared.onnx"
                shape_inference.quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
                quantize_static(
                    str(prepared),
                    str(path),
                    _Reader(next(iter(graph.specs)), representative),
                    quant_format=QuantFormat.QDQ,
                    per_channel=True,
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                )


def _onnx_to_float16(plain: Path, path: Path) -> None:
    """Store the large weights as float16, and cast them to float32 when the file is loaded."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(str(plain))
    for graph in _graphs(model.graph):
        casts = []
        for tensor in graph.initializer:
            if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims, dtype=int) < 64:
                continue
            name, half = tensor.name, f"{tensor.name}_float16"
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), half))
            casts.append(helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT))
        nodes = [*casts, *graph.node]
        del graph.node[:]
        graph.node.extend(nodes)
    onnx.save(model, str(path))


def _graphs(graph: Any) -> Iterable[Any]:
    """Yield a graph of ONNX and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


class _Reader:
    """The representative inputs as ONNX Runtime reads them."""

    def __init__(self, name: str, examples: np.ndarray):
        self._batches = iter([{name: example[None]} for example in examples])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)
