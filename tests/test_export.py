"""Export: files that answer as their runs do, in folders that need neither TensorFlow nor this package."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import toy_language_models
from conftest import run_command, save_image, toy_image, toy_images
from dltoolkit.recipes import image_classifier
from toy_runs import randomize

import dltoolkit
from dltoolkit import files
from dltoolkit.errors import ExportRefused, UserError
from dltoolkit.export import exported, exporting, folder, formats, graphs, onnx_check, parts, sessions
from dltoolkit.models import portable
from dltoolkit.models.gan import networks
from dltoolkit.models.image import classifiers
from dltoolkit.models.text import classifiers as text_classifiers

# A Python in which neither TensorFlow, Keras nor, for example.py, this package can be imported
BLOCKED = """
import runpy, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
"""
RUN_EXAMPLE = "sys.argv = ['example.py', *sys.argv[1:]]\nrunpy.run_path('example.py', run_name='__main__')"
FAMILIES = {
    **{f"image-{family}": lambda family=family: _image_model(family) for family in classifiers.FAMILIES},
    **{f"text-{family}": lambda family=family: _text_model(family) for family in text_classifiers.FAMILIES},
    **{
        f"gan-{name}-{classes}": lambda name=name, classes=classes: _generator(name, classes)
        for name, classes in (("dcgan", 0), ("resnet", 3))
    },
    **{
        f"language-{family}-{size}": lambda family=family, size=size: toy_language_models.build_model(
            family, ensemble_size=size
        )
        for family, size in (("gpt", 2), ("lstm", 1), ("gru", 1), ("rnn", 1))
    },
}


def _randomized(model: keras.Model) -> keras.Model:
    return portable.to_keras_layers(randomize(model, scale=0.05))


def _image_model(family: str) -> keras.Model:
    widths = {"resnet": (8, 8, 8), "cnn": (8, 8), "alexnet": (8,) * 7, "mlp": (16,), "vit": (32,)}[family]
    return classifiers.with_flip_tta(_randomized(classifiers.build(family, (16, 16, 3), 3, widths=widths)))


def _text_model(family: str) -> keras.Model:
    return _randomized(text_classifiers.build(family, 30, 2, max_length=20, embedding_dim=8, units=8))


def _generator(name: str, classes: int) -> keras.Model:
    return _randomized(networks.build_generator(name, (20, 28, 3), *([classes] if classes else []), width=8))


def run_python(code: str, *arguments: object, cwd: Path, blocked: tuple[str, ...]) -> str:
    """Run code in which some packages cannot be imported, and return what it prints."""
    prelude = BLOCKED.replace("BLOCKED:", f"{blocked!r}:").replace("in BLOCKED", f"in {blocked!r}")
    done = subprocess.run(
        [sys.executable, "-c", prelude + code, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()  # not as text, which would turn a carriage return into a line break


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A trained run of images, its export to ONNX, and an image file."""
    root = tmp_path_factory.mktemp("export")
    x, y = toy_images(12, side=16)
    np.savez(root / "toys.npz", x=x, y=y)
    config = image_classifier.Config(data=str(root / "toys.npz"), out_dir=str(root / "runs"), epochs=1, name="toys")
    run = image_classifier.train(config)
    path = run.export()
    return run, path, save_image(root / "one.png", toy_image(1, 5, side=16))


@pytest.fixture
def copy(images, tmp_path):
    """A copy of the export, which a test may damage."""
    return Path(shutil.copytree(images[1], tmp_path / "copy"))


def test_export_answers_as_its_run_does_without_tensorflow(images, tmp_path):
    run, path, image = images
    expected = run.predict(str(image)).to_dict()
    code = (
        "import dltoolkit, json, os, sys\n"
        "os.environ['TMPDIR'] = sys.argv[3]\n"
        "export = dltoolkit.load(sys.argv[1])\n"
        "print(json.dumps([export.predict(sys.argv[2]).to_dict(), export.labels]))"
    )
    actual, labels = json.loads(run_python(code, path, image, tmp_path, cwd=path, blocked=("tensorflow", "keras")))
    assert labels == run.labels
    assert list(tmp_path.iterdir()) == []  # telemetry of ONNX Runtime would write a file there
    assert actual["label"] == expected["label"]
    assert actual["probability"] == pytest.approx(expected["probability"], abs=2e-5)
    info = json.loads((path / "export.json").read_text())
    assert path == run.path / "exports" / "onnx"
    assert info["passed"]
    assert info["parity"]["examples"] == len(image_classifier.build_data(run.config).test)
    assert info["parity"]["label_agreement"] == 1
    assert [tensor["name"] for tensor in info["outputs"]] == ["logits", "probabilities"]
    report = (run.path / "report.html").read_text()
    assert report.count("<h2>Exports</h2>") == 1
    assert "<td>onnx</td>" in report


def test_example_needs_the_runtime_only_and_prints_what_predict_prints(images, capfd):
    _, path, image = images
    code, expected, _ = run_command(capfd, "predict", str(path), str(image), "--format", "csv")
    assert code == 0
    blocked = ("tensorflow", "keras", "dltoolkit", "scipy")
    assert run_python(RUN_EXAMPLE, image, cwd=path, blocked=blocked) == expected
    assert len((path / "example.py").read_text().splitlines()) <= 60


def test_export_has_no_embeddings_and_takes_no_inputs(images):
    _, path, image = images
    opened = dltoolkit.load(path)
    assert opened.predict_proba([]).shape == (0, len(opened.labels))
    with pytest.raises(UserError, match="has logits and probabilities only: use the run for embeddings"):
        opened.embed(str(image))


def test_predict_takes_the_export_of_a_run_and_says_so(images, capfd):
    run, path, image = images
    _, _, messages = run_command(capfd, "predict", str(run.path), str(image))
    assert f"Answering from {path}" in messages


def test_export_that_answers_otherwise_is_refused_and_deleted(images, monkeypatch, tmp_path):
    run = images[0]
    convert = formats.to_onnx

    def convert_wrongly(graph, path):
        """Exchange two classes, as a broken converter might."""
        wrong = keras.models.clone_model(run.model)
        weights = run.model.get_weights()
        wrong.set_weights([*weights[:-1], np.roll(weights[-1], 1) + np.arange(len(weights[-1]))])
        convert(graphs.classifier(wrong), path)

    monkeypatch.setattr(formats, "to_onnx", convert_wrongly)
    with pytest.raises(ExportRefused, match="as the run does, so it was deleted: .*probabilities differ"):
        run.export(out=tmp_path / "wrong")
    assert list(tmp_path.iterdir()) == []
    path = run.export(out=tmp_path / "wrong", keep_anyway=True)
    assert not json.loads((path / "export.json").read_text())["passed"]
    assert "No: " in (path / "card.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runtime": "onxx"}, "There is no format 'onxx'.*Did you mean 'onnx'"),
        ({"quantize": "int7"}, "There is no quantization 'int7'.*Did you mean 'int8'"),
        ({"runtime": "keras", "quantize": "int8"}, "quantize has no effect"),
        ({}, "exists already"),
    ],
)
def test_wrong_options_are_named(images, options, message):
    with pytest.raises(UserError, match=message):
        images[0].export(**options)


def test_two_exports_never_share_a_folder(images, tmp_path):
    workspace = tmp_path / ".it.partial"
    (workspace / "export").mkdir(parents=True)
    (workspace / "export" / "model.onnx").write_text("half of a file that a killed export left")
    with files.exclusive_lock(workspace), pytest.raises(UserError, match="Another process is using"):
        images[0].export(out=tmp_path / "it")
    assert (workspace / "export" / "model.onnx").exists()
    path = images[0].export("keras", out=tmp_path / "it")
    assert [each.name for each in tmp_path.iterdir()] == ["it"]
    assert not (path / "model.onnx").exists()


def test_folder_that_cannot_be_written_is_named(images, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Cannot write .*it: Not a directory"):
        images[0].export("keras", out=tmp_path / "file" / "it")
    (tmp_path / ".it.partial").symlink_to(tmp_path)
    with pytest.raises(UserError, match=r"Cannot write .*\.it\.partial: it is a symbolic link"):
        images[0].export("keras", out=tmp_path / "it")


def test_missing_package_is_named_with_its_install_line(images, monkeypatch, tmp_path):
    monkeypatch.setattr(exporting, "PACKAGES", {"onnx": ("onnx", "not_installed")})
    with pytest.raises(UserError, match=r"needs not_installed: pip install 'dltoolkit\[export\]'"):
        images[0].export(out=tmp_path / "it")


def test_unfinished_run_is_not_exported(images, tmp_path):
    run = images[0]
    path = Path(shutil.copytree(run.path, tmp_path / "runs" / "unfinished"))
    info = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**info, "state": "interrupted"}))
    with pytest.raises(UserError, match=r"has not finished \(its state is 'interrupted'\): resume it with"):
        dltoolkit.load(path).export(out=tmp_path / "it")


@pytest.fixture
def moved(images, tmp_path):
    """A copy of the run whose data are not where they were."""
    path = Path(shutil.copytree(images[0].path, tmp_path / "runs" / "moved"))
    info = json.loads((path / "run.json").read_text())
    info["config"]["data"] = str(tmp_path / "gone.npz")
    (path / "run.json").write_text(json.dumps(info))
    return path


def test_data_that_have_moved_are_given(images, moved, tmp_path, capfd):
    code, _, err = run_command(capfd, "export", str(moved), "--out", str(tmp_path / "it"))
    assert code == 2
    assert "which cannot be read (" in err and "gone.npz" in err and "give their new place with --data." in err
    x, y = toy_images(12, side=16)
    np.savez(tmp_path / "others.npz", x=x[::-1], y=y)
    others = str(tmp_path / "others.npz")
    code, _, err = run_command(capfd, "export", str(moved), "--data", others, "--out", str(tmp_path / "it"))
    assert code == 2 and "holds other data than those that" in err
    for data in (images[0].config.data, (x, y)):
        splits = parts.Source(dltoolkit.load(moved), data).read()
        assert len(splits.test) == len(image_classifier.build_data(images[0].config).test)
        assert "holds the data that the run was trained on, unchanged." in capfd.readouterr().err
    assert not (tmp_path / "it").exists()


@pytest.mark.parametrize("name", ["model.onnx", "labels.json", "preprocessing.json", "example.py"])
def test_changed_and_missing_files_are_named(copy, name):
    file = copy / name
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=rf"{name} has changed since it was exported"):
        dltoolkit.load(copy)
    file.unlink()
    with pytest.raises(UserError, match=rf"{name} is missing"):
        dltoolkit.load(copy)


def test_files_that_do_not_belong_to_an_export_are_refused(copy):
    (copy / "more.bin").write_bytes(b"0")
    with pytest.raises(UserError, match=r"more.bin is not a file of the export"):
        dltoolkit.load(copy)
    (copy / "more.bin").unlink()
    (copy / "labels.json").unlink()
    (copy / "labels.json").symlink_to("/etc/hostname")
    with pytest.raises(UserError, match=r"labels.json is a symbolic link"):
        dltoolkit.load(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 9}, "has format 9"),
        ({"kind": "oracle"}, "'kind' must be"),
        ({"runtime": "savedmodel"}, "TensorFlow executes what a SavedModel says"),
        ({"inputs": 3}, "'inputs' must be a list"),
    ],
)
def test_wrong_descriptions_are_refused(copy, changes, message):
    info = json.loads((copy / "export.json").read_text())
    (copy / "export.json").write_text(json.dumps({**info, **changes}))
    folder.write_sums(copy)
    with pytest.raises(UserError, match=message):
        dltoolkit.load(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context_length": 10**9}, "'context_length' must be a whole number from 4 to 65,536"),
        ({"image_shape": [10**9, 8, 3]}, r"'image_shape\[0\]' must be a whole number from 1 to 8,192"),
        ({"latent_dim": 10**9}, "'latent_dim' must be a whole number from 1 to 8,192"),
        ({"empty_state": {"a": [1, 1 << 12, 1 << 12], "b": [1]}}, "'empty_state' has more than 16,777,216 numbers"),
    ],
)
def test_sizes_that_would_take_memory_are_refused(tmp_path, changes, message):
    description = {name: {} for name in folder.REQUIRED} | {"format": 1, "kind": "text-generator", "runtime": "onnx"}
    description |= {"quantize": "none", "inputs": [], "outputs": [], "passed": True}
    (tmp_path / "export.json").write_text(json.dumps(description))
    (tmp_path / "preprocessing.json").write_text(json.dumps(changes))
    folder.write_sums(tmp_path)
    with pytest.raises(UserError, match=f"preprocessing.json is damaged: {message}"):
        dltoolkit.load(tmp_path)


def test_onnx_files_of_strangers_are_data(images, tmp_path):
    import onnx
    from onnx import helper

    content = (images[1] / "model.onnx").read_bytes()
    onnx_check.check(content, "it")
    for end in (len(content) // 2, 1):
        with pytest.raises(UserError, match="it is not a file of ONNX, or it is damaged"):
            onnx_check.check(content[:end], "it")
    model = onnx.load_from_string(content)
    onnx.save(model, tmp_path / "external.onnx", save_as_external_data=True, size_threshold=0, location="data.bin")
    with pytest.raises(UserError, match="keeps weights in another file"):
        onnx_check.check((tmp_path / "external.onnx").read_bytes(), "it")
    model.graph.node.append(helper.make_node("RunCode", [], ["y"], domain="evil"))
    with pytest.raises(UserError, match="has operations of 'evil', which are not executed"):
        onnx_check.check(model.SerializeToString(), "it")


def test_onnx_file_of_another_network_is_refused(copy):
    import onnx
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info("other", TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("result", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Neg", ["other"], ["result"])], "g", [value], [result])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), copy / "model.onnx")
    folder.write_sums(copy)
    with pytest.raises(UserError, match=r"model.onnx has the inputs other, but export.json names image"):
        _ = exported.Export.open(copy).session


def _answers(name: str, graph: graphs.Graph, session: sessions.Session, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs of rows and the main output of a session for them."""
    rng = np.random.default_rng(2)
    if name.startswith("image"):
        x = rng.integers(0, 256, (rows, 16, 16, 3)).astype("uint8")
        return x, session.run({"image": x})["logits"]
    if name.startswith("gan"):
        x = rng.normal(size=(rows, 64)).astype("float32")
        labels = {"label": np.arange(rows, dtype="int32") % 3} if "label" in graph.specs else {}
        return ([x, labels["label"]] if labels else x), session.run({"noise": x, **labels})["image"]
    x = rng.integers(1, 11, (rows, 9)).astype("int32")
    if name.startswith("text"):
        x[rows // 2 :, 6:] = 0
        return x, session.run({"token_ids": x})["logits"]
    state = {
        each: np.zeros([rows, *(size or 0 for size in graph.specs[each].shape[1:])], "float32")
        for each in graph.state.values()
    }
    first = session.run({"token_ids": x[:, :4], "previous_ids": np.zeros(rows, "int32"), **state})
    state = {each: first[output] for output, each in graph.state.items()}
    second = session.run({"token_ids": x[:, 4:], "previous_ids": x[:, 3], **state})
    return x, np.concatenate([first["logits"], second["logits"]], axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_converted_to_every_format(name, tmp_path):
    model = FAMILIES[name]()
    kinds = {"gan": graphs.generator, "language": graphs.language_model}
    make = kinds.get(name.partition("-")[0], graphs.classifier)
    recurrent = name.split("-")[1] in ("lstm", "gru", "rnn")
    for runtime, convert in (
        ("savedmodel", formats.to_savedmodel),
        ("onnx", formats.to_onnx),
        ("litert", formats.to_litert),
    ):
        batch = 1 if runtime == "litert" and recurrent else None
        graph = make(model, batch)
        convert(graph, tmp_path / runtime)
        session = sessions.SESSIONS[runtime](tmp_path / runtime)
        for rows in (1, 4):
            if batch and rows > 1 and graph.state:
                continue  # a text at a time
            x, actual = _answers(name, graph, session, rows)
            np.testing.assert_allclose(
                actual, np.asarray(model(x, training=False), "float32"), rtol=1e-4, atol=1e-4, err_msg=runtime
            )


@pytest.mark.slow
@pytest.mark.parametrize(("runtime", "quantize"), [("onnx", "int8"), ("onnx", "float16"), ("litert", "int8")])
def test_quantized_files_are_smaller_and_say_what_they_are(images, runtime, quantize, tmp_path):
    run = images[0]
    plain, small = (
        json.loads((run.export(runtime, quantize=each, out=tmp_path / each) / "export.json").read_text())
        for each in ("none", quantize)
    )
    assert small["bytes"] < 0.75 * plain["bytes"]
    expected = {"float16": "weights in float16", "int8": "weights and activations in int8"}
    assert small["quantize"] == expected[quantize]
