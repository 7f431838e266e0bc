"""Small exported folders that are written without TensorFlow, as a stranger might write them."""

import json
from pathlib import Path

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

from dltoolkit.export import folder

SIDE = 32  # pixels of the images
LABELS = ["red", "green", "blue"]
TENSORS = {
    "inputs": [{"name": "image", "dtype": "uint8", "shape": [None, SIDE, SIDE, 3]}],
    "outputs": [{"name": name, "dtype": "float32", "shape": [None, 3]} for name in ("logits", "probabilities")],
}
IMAGES = {"image_shape": [SIDE, SIDE, 3], "scale": {"low": 0.0, "high": 255.0}, "resize": {"mode": "stretch"}}
MEAN = [
    helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
    helper.make_node("ReduceMean", ["pixels"], ["logits"], axes=[1, 2], keepdims=0),
    helper.make_node("Softmax", ["logits"], ["probabilities"]),
]
ZERO = [helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT)]


def constant(name: str, *values: int) -> onnx.NodeProto:
    """Return a node whose output is a list of whole numbers."""
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(values), name))


def onnx_model(nodes: list[onnx.NodeProto] = MEAN, **options: object) -> onnx.ModelProto:
    """Return a network of ONNX that reads images and has two outputs."""
    types_ = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}
    inputs, outputs = (
        [helper.make_tensor_value_info(each["name"], types_[each["dtype"]], each["shape"]) for each in TENSORS[kind]]
        for kind in ("inputs", "outputs")
    )
    graph = helper.make_graph(nodes, "graph", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, **options)


def litert_model(*, recursive: bool = False, endless: bool = False, custom: str | None = None) -> bytes:
    """Return a file of LiteRT that reads images and has two outputs.

    Args:
        recursive: Whether the graph calls itself.
        endless: Whether a loop in it never ends.
        custom: Name of an operation that LiteRT lacks.
    """
    types_, names = schema.TensorType, schema.BuiltinOperator
    model, buffers = schema.ModelT(), [b"", np.array([1, 2], np.int32).tobytes(), b"\1"]
    model.version, model.buffers, model.operatorCodes = 3, [], []
    for content in buffers:
        buffer = schema.BufferT()
        buffer.data = list(content) or None
        model.buffers.append(buffer)

    def tensor(name, sizes, kind=types_.FLOAT32, buffer=0):
        result = schema.TensorT()
        result.name, result.type, result.buffer, result.hasRank = name, kind, buffer, True
        result.shape, result.shapeSignature = (
            [1 if size is None else size for size in sizes],
            [-1 if size is None else size for size in sizes],
        )
        return result

    def operation(name, inputs, outputs, options=None, **values):
        code = schema.OperatorCodeT()
        code.builtinCode, code.version = getattr(names, name), 1
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.customCode = custom if name == "CUSTOM" else None
        model.operatorCodes.append(code)
        result = schema.OperatorT()
        result.opcodeIndex, result.inputs, result.outputs = len(model.operatorCodes) - 1, inputs, outputs
        if options:
            result.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            result.builtinOptions = getattr(schema, f"{options}T")()
            for field, value in values.items():
                setattr(result.builtinOptions, field, value)
        return result

    def graph(tensors, inputs, outputs, operations):
        result = schema.SubGraphT()
        result.tensors, result.inputs, result.outputs, result.operators = tensors, inputs, outputs, operations
        model.subgraphs.append(result)

    image = [None, SIDE, SIDE, 3]
    tensors = [
        *(tensor("image", image, types_.UINT8), tensor("pixels", image), tensor("axes", [2], types_.INT32, 1)),
        *(tensor("logits", [None, 3]), tensor("probabilities", [None, 3]), tensor("true", [], types_.BOOL, 2)),
        *(tensor("more", [None, 3]), tensor("same", image)),
    ]
    casts = {"inDataType": types_.UINT8, "outDataType": types_.FLOAT32}
    operations = [
        operation("CAST", [0], [1], "CastOptions", **casts),
        operation("MEAN", [1, 2], [3], "ReducerOptions", keepDims=False),
        operation("SOFTMAX", [3], [4], "SoftmaxOptions", beta=1.0),
    ]
    model.subgraphs = []
    if recursive:
        calls = {"thenSubgraphIndex": 0, "elseSubgraphIndex": 0}
        operations = [operation("IF", [5, 0], [3, 4], "IfOptions", **calls)]
    if endless:
        loop = {"condSubgraphIndex": 1, "bodySubgraphIndex": 2}
        operations.insert(1, operation("WHILE", [1], [7], "WhileOptions", **loop))
        operations[2].inputs = [7, 2]
    if custom:
        operations = [operation("CUSTOM", [0], [3, 4])]
    graph(tensors, [0], [3, 4], operations)
    if endless:
        graph([tensor("pixels", image), tensor("true", [], types_.BOOL, 2)], [0], [1], [])
        absolute = [tensor("pixels", image), tensor("absolute", image)]
        graph(absolute, [0], [1], [operation("ABS", [0], [1], "AbsOptions")])
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0

    def maps(**indices):
        result = []
        for name, index in indices.items():
            result.append(schema.TensorMapT())
            result[-1].name, result[-1].tensorIndex = name, index
        return result

    signature.inputs, signature.outputs = maps(image=0), maps(logits=3, probabilities=4)
    model.signatureDefs = [signature]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def write_export(path: Path, model: onnx.ModelProto | bytes | None = None, **changes: object) -> Path:
    """Write an export that answers with the mean of each channel.

    Args:
        path: The folder.
        model: The file of the model.
        changes: Fields of export.json, or the contents of ``labels`` and fields of ``preprocessing``.
    """
    path.mkdir(parents=True)
    model = model or onnx_model()
    runtime = "litert" if isinstance(model, bytes) else "onnx"
    content = model if isinstance(model, bytes) else model.SerializeToString()
    (path / folder.MODEL_FILES[runtime]).write_bytes(content)
    files = {
        "labels": changes.pop("labels", LABELS),
        "preprocessing": {**IMAGES, **changes.pop("preprocessing", {})},
        "export": {
            **{"format": 1, "kind": "image-classifier", "runtime": runtime, "quantize": "none", **TENSORS},
            **{"state": {}, "run": {"model_sha256": "0"}, "passed": True, **changes},
        },
    }
    for name, value in files.items():
        (path / f"{name}.json").write_text(json.dumps(value))
    folder.write_sums(path)
    return path


def one_color(channel: int, brightness: int = 200) -> np.ndarray:
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[..., channel] = brightness
    return image
