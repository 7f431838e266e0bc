"""Model files of strangers: what they ask a runtime for is bounded, and a failure is one sentence."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import run_command, save_image
from onnx import TensorProto, helper, numpy_helper
from toy_exports import MEAN, SIDE, TENSORS, ZERO, constant, litert_model, one_color, onnx_model, write_export

import dltoolkit
from dltoolkit.errors import UserError
from dltoolkit.export import folder, onnx_check, trial


def test_threads_share_an_export(tmp_path):
    session = dltoolkit.load(write_export(tmp_path / "it", litert_model())).session
    batches = [np.full((count, SIDE, SIDE, 3), count, np.uint8) for count in range(1, 200, 25)]
    with ThreadPoolExecutor(8) as pool:
        for answers in pool.map(lambda batch: [session.run({"image": batch})["logits"] for _ in range(30)], batches):
            assert {(answer.min(), answer.max()) for answer in answers} == {(len(answers[0]), len(answers[0]))}


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
        r"makes its runtime crash \(SIG": litert_model(recursive=True),
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
    content = onnx_model().SerializeToString().replace(b"Cast", b"C\xffst")
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


def test_files_of_the_current_folder_are_not_imported(tmp_path, monkeypatch):
    path = write_export(tmp_path / "it", litert_model())
    for name in ("json", "numpy", "dltoolkit"):
        (tmp_path / f"{name}.py").write_text("open('executed', 'w')")
    monkeypatch.chdir(tmp_path)
    assert dltoolkit.load(path).predict(one_color(1)).label == "green"
    assert trial.run_module("dltoolkit.export.speed", "missing").returncode != 0
    assert not Path("executed").exists()
