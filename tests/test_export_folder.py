"""Exported folders that a stranger has written: all of their files are data, and what they ask for is bounded."""

import hashlib
import json
import re
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import flatbuffers
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from conftest import run_command, save_image
from onnx import TensorProto, helper, numpy_helper

import dltoolkit
from dltoolkit.errors import UserError
from dltoolkit.export import consistency, exported, folder, onnx_check, trial

SIDE = 32  # pixels of the images
LABELS = ["red", "green", "blue"]
TENSORS = {
    "inputs": [{"name": "image", "dtype": "uint8", "shape": [None, SIDE, SIDE, 3]}],
    "outputs": [{"name": name, "dtype": "float32", "shape": [None, 3]} for name in ("logits", "probabilities")],
}
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
    steps = {"image_shape": [SIDE, SIDE, 3], "scale": {"low": 0.0, "high": 255.0}, "resize": {"mode": "stretch"}}
    files = {
        "labels": changes.pop("labels", LABELS),
        "preprocessing": {**steps, **changes.pop("preprocessing", {})},
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


@pytest.mark.parametrize("model", [onnx_model, litert_model])
def test_threads_share_an_export(tmp_path, model):
    opened = dltoolkit.load(write_export(tmp_path / "it", model()))
    images = [one_color(i % 3, 2 + i) for i in range(90)]
    with ThreadPoolExecutor(8) as pool:
        probabilities = list(pool.map(lambda image: opened.predict_proba([image])[0], images))
    for i, image in enumerate(images):
        expected = np.exp(image.mean(axis=(0, 1)) - image.max())
        np.testing.assert_allclose(probabilities[i], expected / expected.sum(), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": LABELS[:2]}, "there are 2 labels, but the logits have the shape anyx3"),
        ({"labels": [*LABELS, "gray"]}, "there are 4 labels, but the logits have the shape anyx3"),
        ({"labels": ["red", "red", "blue"]}, "the label 'red' stands there twice"),
        ({"preprocessing": {"image_shape": [SIDE, 8, 3]}}, "the inputs are image, and not image of the right shapes"),
        ({"preprocessing": {"image_shape": [SIDE, SIDE, 1]}}, "not image of the right shapes"),
        ({"inputs": TENSORS["inputs"] * 2}, "two inputs or outputs have the same name"),
        ({"inputs": [{"name": "noise", "dtype": "float32", "shape": [None, 64]}]}, "the inputs are noise"),
        ({"outputs": []}, "the outputs are none, not logits"),
        ({"outputs": TENSORS["outputs"][1:]}, "the outputs are probabilities, not logits"),
        ({"kind": "text-classifier"}, "the inputs are image, and not token_ids"),
        (
            {"kind": "text-generator", "preprocessing": {"context_length": 8, "empty_state": {"key": [1, 4]}}},
            "the state of the language model is not that of its inputs and outputs",
        ),
        (
            {"kind": "image-generator", "preprocessing": {"latent_dim": 64, "conditional": False}},
            "the outputs are logits, probabilities, not image",
        ),
    ],
)
def test_files_that_do_not_belong_together_are_refused(tmp_path, changes, message):
    path = write_export(tmp_path / "it", **changes)
    with pytest.raises(UserError, match=f"The files of .*it do not belong together .*{message}"):
        dltoolkit.load(path)


@pytest.mark.parametrize("field", folder.REQUIRED)
def test_missing_fields_are_named(tmp_path, field):
    path = write_export(tmp_path / "it")
    info = json.loads((path / "export.json").read_text())
    del info[field]
    (path / "export.json").write_text(json.dumps(info))
    folder.write_sums(path)
    with pytest.raises(UserError, match=f"export.json is damaged: it has no {field}"):
        dltoolkit.load(path)


def test_language_model_without_context_length_is_refused(tmp_path):
    path = write_export(tmp_path / "it", kind="text-generator", preprocessing={"empty_state": {}})
    with pytest.raises(UserError, match="preprocessing.json is incomplete: it has no 'context_length'"):
        dltoolkit.load(path)


def test_state_of_a_language_model_must_fit_its_inputs():
    ids = [{"name": "token_ids", "shape": [None, None]}, {"name": "previous_ids", "shape": [None]}]
    key = {"name": "key", "shape": [None, 2, None, 4]}
    info = {
        **{"kind": "text-generator", "inputs": [*ids, key], "state": {"new_key": "key"}},
        "outputs": [{"name": "logits", "shape": [None, None, 9]}, {"name": "new_key", "shape": key["shape"]}],
    }
    steps = {"context_length": 8, "empty_state": {"key": [1, 2, 0, 4]}}
    consistency.check_folder(Path("it"), info, steps, [])
    for shape in ([1, 3, 0, 4], [1, 2, 0], [1, 2, 0, 8]):
        with pytest.raises(UserError, match="the state key has the shape 1x"):
            consistency.check_folder(Path("it"), info, {**steps, "empty_state": {"key": shape}}, [])


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (TENSORS["outputs"][:1], "has the outputs logits, probabilities, but export.json names logits"),
        (
            [{"name": name, "dtype": "float64", "shape": [None, 3]} for name in ("logits", "probabilities")],
            "The output logits of .*model.onnx is float32 anyx3, but export.json says float64 anyx3",
        ),
    ],
)
def test_file_must_have_the_described_outputs(tmp_path, outputs, message):
    path = write_export(tmp_path / "it", outputs=outputs)
    with pytest.raises(UserError, match=message):
        dltoolkit.load(path).predict(one_color(0))


def test_preprocessing_json_is_what_prepares_images(tmp_path):
    data = {"image_shape": [8, 8, 1], "resize": {"mode": "stretch"}}
    path = write_export(tmp_path / "it", data=data, preprocessing={"resize": {"mode": "letterbox"}})
    pixels = dltoolkit.load(path).preprocess(np.full((SIDE, SIDE // 2, 3), 255, np.uint8))
    assert pixels.shape == (1, SIDE, SIDE, 3)
    assert pixels[0, :, 0].max() == 0  # black bars


def failing_graphs() -> dict[str, onnx.ModelProto | bytes]:
    """Return files that are valid, but ask for what a runtime must not or cannot do."""
    sizes = constant("sizes", 1 << 22, 1 << 23)
    outputs = [helper.make_node("Softmax", ["logits"], ["probabilities"])]
    return {
        r"ONNX Runtime cannot answer from .*model.onnx \(Available memory of": onnx_model(
            [
                *(*ZERO, sizes, constant("two", 1, 3), helper.make_node("ReduceMax", ["pixels"], ["one"], keepdims=0)),
                *(
                    helper.make_node("Expand", ["one", "sizes"], ["large"]),
                    helper.make_node("ReduceMax", ["large"], ["r"]),
                ),
                *(helper.make_node("Expand", ["r", "two"], ["logits"]), *outputs),
            ]
        ),
        r"ONNX Runtime cannot answer from .*model.onnx \(": onnx_model(
            [
                *(*ZERO, constant("rows", 0, 1, 99), helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[1, 2])),
                *(helper.make_node("Reshape", ["mean", "flat"], ["means"]), constant("flat", -1, 3)),
                *(helper.make_node("Gather", ["means", "rows"], ["logits"], axis=1), *outputs),
            ]
        ),
        "The file answers 1 inputs with an array of shape": onnx_model(
            [*ZERO, constant("all", -1, 3), helper.make_node("Reshape", ["pixels", "all"], ["logits"]), *outputs]
        ),
        r"makes its runtime crash \(SIGSEGV\)": litert_model(recursive=True),
        r"LiteRT cannot answer from .*\(Encountered unresolved custom op: Evil": litert_model(custom="Evil"),
        r"LiteRT cannot answer from .*model.tflite \(Select TensorFlow op": litert_model(custom="FlexWriteFile"),
    }


@pytest.mark.parametrize("message", failing_graphs())
def test_what_a_runtime_refuses_is_one_sentence(tmp_path, message, capfd):
    path = write_export(tmp_path / "it", failing_graphs()[message])
    code, out, messages = run_command(capfd, "predict", str(path), str(save_image(tmp_path / "one.png", one_color(0))))
    assert (code, out) == (2, "")
    assert re.search(f"Error: .*{message}", messages)


def test_names_that_are_not_text_print_nothing(tmp_path, capfd):
    content = onnx_model().SerializeToString().replace(b"logits", b"log\xffts")
    path = write_export(tmp_path / "it")
    (path / "model.onnx").write_bytes(content)
    folder.write_sums(path)
    with pytest.raises(UserError, match="ONNX Runtime cannot load"):
        dltoolkit.load(path).predict(one_color(0))
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow  # until the limit of the processor's time
def test_loop_without_end_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "SECONDS", 1)
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["x", "x"], ["twice"])],
        "body",
        [
            helper.make_tensor_value_info(name, kind, [])
            for name, kind in (("i", TensorProto.INT64), ("go", TensorProto.BOOL), ("x", TensorProto.FLOAT))
        ],
        [
            helper.make_tensor_value_info(name, kind, [])
            for name, kind in (("go_on", TensorProto.BOOL), ("twice", TensorProto.FLOAT))
        ],
    )
    true = helper.make_node("Constant", [], ["true"], value=numpy_helper.from_array(np.array(True), "true"))
    count = helper.make_node("Constant", [], ["count"], value=numpy_helper.from_array(np.array(1 << 62), "count"))
    endless = onnx_model(
        [
            *(*MEAN, true, count, helper.make_node("ReduceMax", ["pixels"], ["start"], keepdims=0)),
            helper.make_node("Loop", ["count", "true", "start"], ["end"], body=body),
        ]
    )
    endless.graph.output.append(helper.make_tensor_value_info("end", TensorProto.FLOAT, []))
    outputs = [*TENSORS["outputs"], {"name": "end", "dtype": "float32", "shape": []}]
    for path in (
        write_export(tmp_path / "onnx", endless, outputs=outputs),
        write_export(tmp_path / "litert", litert_model(endless=True)),
    ):
        with pytest.raises(UserError, match="has no answer to one input after 1 seconds"):
            dltoolkit.load(path).predict(one_color(0))


def with_function(model: onnx.ModelProto) -> None:
    default = helper.make_attribute("x", external(numpy_helper.from_array(np.zeros(4, np.float32))))
    function = helper.make_function("", "Hidden", ["x"], ["y"], [helper.make_node("Neg", ["x"], ["y"])], [])
    function.attribute_proto.append(default)
    model.functions.append(function)


def external(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """Return a tensor whose values are in another file."""
    onnx.external_data_helper.set_external_data(tensor, "../../../etc/passwd")
    tensor.ClearField("raw_data")
    return tensor


def inside(node: onnx.NodeProto) -> onnx.NodeProto:
    """Return a node that executes another one in a graph of its own."""
    graph = helper.make_graph([node], "inner", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])])
    return helper.make_node("If", ["true"], ["z"], then_branch=graph, else_branch=graph)


def sparse() -> onnx.SparseTensorProto:
    values, indices = (numpy_helper.from_array(np.array([1], kind), "values") for kind in ("float32", "int64"))
    return helper.make_sparse_tensor(values, indices, [1 << 40])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_function, "has functions of its own"),
        (lambda m: m.graph.sparse_initializer.append(sparse()), "has sparse weights"),
        (
            lambda m: m.graph.node.append(helper.make_node("Constant", [], ["y"], sparse_value=sparse())),
            "has sparse weights",
        ),
        (lambda m: m.training_info.add().algorithm.node.add(op_type="Neg"), "has graphs for training"),
        (
            lambda m: m.graph.initializer.append(external(numpy_helper.from_array(np.zeros(4, np.float32), "w"))),
            "keeps weights in another file",
        ),
        (
            lambda m: m.graph.node.append(
                inside(helper.make_node("Constant", [], ["y"], value=external(numpy_helper.from_array(np.zeros(4)))))
            ),
            "keeps weights in another file",
        ),
        (
            lambda m: m.graph.node.append(inside(helper.make_node("Run", [], ["y"], domain="evil"))),
            "has operations of 'evil', which are not executed",
        ),
    ],
)
def test_what_exported_onnx_files_never_have_is_refused(change, message):
    model = onnx_model()
    assert not onnx_check.check(model.SerializeToString(), "it")
    change(model)
    with pytest.raises(UserError, match=f"^it {message}.*so it was not read"):
        onnx_check.check(model.SerializeToString(), "it")


@pytest.mark.parametrize("operation", ["Loop", "Scan", "SequenceMap"])
def test_loops_of_onnx_files_are_found(operation):
    model = onnx_model()
    model.graph.node.append(inside(helper.make_node(operation, [], ["y"])))
    assert onnx_check.check(model.SerializeToString(), "it")


def test_onnx_files_of_millions_of_parts_are_refused(monkeypatch):
    monkeypatch.setattr(onnx_check, "MAX_FIELDS", 50)
    with pytest.raises(UserError, match="it has more than 50 parts, so it was not read"):
        onnx_check.check(onnx_model(MEAN * 9).SerializeToString(), "it")


def test_empty_onnx_file_is_refused(tmp_path):
    (tmp_path / "model.onnx").touch()
    with pytest.raises(UserError, match="model.onnx cannot be read"):
        onnx_check.check_file(tmp_path / "model.onnx")


@pytest.mark.parametrize("change", [str.upper, lambda digest: digest])
@pytest.mark.parametrize("mark", ["  ", " *"])
def test_sums_are_read_as_other_programs_write_them(tmp_path, change, mark):
    path = write_export(tmp_path / "it")
    lines = [line.split("  ") for line in (path / "SHA256SUMS").read_text().splitlines()]
    (path / "SHA256SUMS").write_bytes(b"".join(f"{change(a)}{mark}{b}\r\n".encode() for a, b in lines))
    assert dltoolkit.load(path).labels == LABELS


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("0" * 64 + "  model.onnx\n", "SHA256SUMS is missing or damaged"),
        ("0" * 64 + "  ../../secret\n", r"\.\./\.\./secret is missing in .*it: copy the whole folder"),
        ("\n", "SHA256SUMS is missing or damaged"),
        ("0  model.onnx\n", "SHA256SUMS is missing or damaged"),
        ("x" * (5 << 20), "SHA256SUMS is missing or damaged"),
    ],
)
def test_wrong_sums_are_refused(tmp_path, more, message):
    path = write_export(tmp_path / "it")
    with (path / "SHA256SUMS").open("a") as file:
        file.write(more)
    with pytest.raises(UserError, match=message):
        dltoolkit.load(path)


def test_export_that_was_kept_anyway_says_so(tmp_path, capfd):
    dltoolkit.load(write_export(tmp_path / "it", passed=False))
    assert "it does not answer as its run does, and was kept anyway; card.md" in capfd.readouterr().err


def of_run(path: Path) -> exported.Export | None:
    return exported.of_run(types.SimpleNamespace(path=path, model_path=path / "model.keras"))


def test_export_of_an_earlier_model_of_its_run_is_named(tmp_path, capfd):
    (tmp_path / "model.keras").write_bytes(b"the model")
    model = hashlib.sha256(b"the model").hexdigest()
    path = write_export(tmp_path / "exports" / "onnx", run={"model_sha256": model})
    assert dltoolkit.load(path).path == of_run(tmp_path).path
    assert capfd.readouterr().err == ""
    (tmp_path / "model.keras").write_bytes(b"the resumed model")
    assert dltoolkit.load(path).path == path
    assert "onnx was made of an earlier model of" in capfd.readouterr().err
    assert of_run(tmp_path) is None
    assert "onnx was made of an earlier model, so the run itself answers" in capfd.readouterr().err


@pytest.mark.parametrize("damage", ["labels.json", "model.onnx"])
def test_run_answers_in_place_of_a_damaged_export(tmp_path, capfd, damage):
    (tmp_path / "model.keras").write_bytes(b"the model")
    model = hashlib.sha256(b"the model").hexdigest()
    path = write_export(tmp_path / "exports" / "onnx", run={"model_sha256": model})
    (path / damage).write_bytes(b"[]")
    if damage == "model.onnx":
        folder.write_sums(path)
    assert of_run(tmp_path) is None
    assert "Until then, the run itself answers" in capfd.readouterr().err


def test_names_next_to_an_export_suggest_it(tmp_path):
    path = write_export(tmp_path / "exports" / "onnx")
    for wrong in (tmp_path / "exports", path / "model.onnx"):
        with pytest.raises(UserError, match=r"is not the folder of an export: give .*exports/onnx\.$"):
            dltoolkit.load(wrong)
