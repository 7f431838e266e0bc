"""Exported folders of strangers: their files are data, and must belong together."""

import hashlib
import json
import types
from pathlib import Path

import numpy as np
import pytest
from toy_exports import LABELS, SIDE, TENSORS, one_color, write_export

import dltoolkit
from dltoolkit.errors import UserError
from dltoolkit.export import consistency, exported, folder


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
