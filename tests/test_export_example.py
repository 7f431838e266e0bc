"""example.py of an export prints what predict prints, for inputs that need care."""

import csv
import io
import json
import runpy
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from conftest import run_command
from onnx import TensorProto, helper
from PIL import Image
from toy_exports import (
    IMAGES,
    write_export,
)

from dltoolkit.data.text import encoders
from dltoolkit.data.text.vocabulary import Vocabulary
from dltoolkit.export import card, folder, steps


def run_example(path: Path, monkeypatch, capsys, *arguments: object) -> str:
    """Return what example.py of an export prints."""
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["example.py", *map(str, arguments)])
    runpy.run_path(str(path / "example.py"), run_name="__main__")
    return capsys.readouterr().out


def odd_images(folder_: Path) -> list[Path]:
    """Write images whose reading has steps of its own, and return their paths."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 30, 3)).astype(np.uint8)
    alpha = np.linspace(0, 255, 600).reshape(20, 30).astype(np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6
    images = {
        "large.jpg": Image.fromarray(pixels.repeat(30, axis=0).repeat(30, axis=1)),
        "transparent.png": Image.fromarray(np.dstack([pixels, alpha])),
        "palette.gif": Image.fromarray(pixels).quantize(16),
        "gray.png": Image.fromarray(pixels[..., 0]),
        "cmyk.jpg": Image.fromarray(pixels).convert("CMYK"),
        "deep.png": Image.fromarray(pixels[..., 0].astype(np.uint16) * 9),
        "deeper.png": Image.fromarray(pixels[..., 0].astype(np.uint16) * 255),
        "floats.tif": Image.fromarray(pixels[..., 0].astype(np.float32) / 255),
        'a\rb, "c".png': Image.fromarray(pixels[:1, :1]),
    }
    for name, image in images.items():
        image.save(folder_ / name, **({} if name.endswith((".gif", ".tif")) else {"exif": turned}))
    (folder_ / "text.png").write_text("no image")
    return [folder_ / name for name in (*images, "text.png")]


@pytest.mark.parametrize("mode", ["crop", "letterbox", "stretch"])
@pytest.mark.parametrize("values", [{}, {"low": 0.0, "high": 4095.0, "minimum": 3.0, "maximum": 4000.0, "levels": 99}])
def test_example_reads_odd_images_as_predict_does(tmp_path, mode, values, monkeypatch, capsys):
    scale = {"low": 0.0, "high": 255.0, **values}
    run = types.SimpleNamespace(info={"data": {**IMAGES, "scale": scale, "resize": {"mode": mode}}})
    preprocessing = steps.of_images(run)
    path = write_export(tmp_path / "it", labels=["red", "g\rn", "blue"], preprocessing=preprocessing)
    info = json.loads((path / "export.json").read_text())
    card.write_example(path, info, "image", mode=mode, is_8_bit="whites" in preprocessing)
    folder.write_sums(path)
    names = odd_images(tmp_path)
    code, expected, _ = run_command(capsys, "predict", str(path), *map(str, names), "--format", "csv")
    lines = run_example(path, monkeypatch, capsys, *names)
    *expected, error = csv.reader(io.StringIO(expected, newline=""))
    *rows, own_error = csv.reader(io.StringIO(lines, newline=""))
    assert code == 2 and len(rows) == len(names)
    assert rows == expected
    assert own_error[:4] == error[:4] == [str(names[-1]), "", "", ""] and own_error[4]


def test_example_writes_rows_of_texts_as_predict_does(tmp_path, monkeypatch, capsys):
    texts = ["a great film", "a\rgreat film", "", " ", "unknown", '"great", <b>he said</b>']
    nodes = [
        helper.make_node("Cast", ["token_ids"], ["ids"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["ids"], ["greatest"], axes=[1]),
        *(
            helper.make_node("Neg", ["greatest"], ["opposite"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"]),
        ),
        helper.make_node("Concat", ["greatest", "opposite"], ["logits"], axis=1),
    ]
    nodes[3:] = reversed(nodes[3:])
    value, kinds = helper.make_tensor_value_info, TensorProto
    graph = helper.make_graph(
        nodes,
        "graph",
        [value("token_ids", kinds.INT32, [None, None])],
        [value(name, kinds.FLOAT, [None, 2]) for name in ("logits", "probabilities")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    encoder = encoders.VocabularyEncoder(Vocabulary(("great", "film")))
    path = write_export(
        tmp_path / "it",
        model,
        kind="text-classifier",
        labels=["a", "b"],
        inputs=[{"name": "token_ids", "dtype": "int32", "shape": [None, None]}],
        outputs=[{"name": name, "dtype": "float32", "shape": [None, 2]} for name in ("logits", "probabilities")],
        preprocessing=steps.of_texts(encoder),
    )
    encoder.save(path)
    options = {"kind": "bag", "pretrained": False, "lowercase": False, "strip_accents": False, "needs": ""}
    card.write_example(path, json.loads((path / "export.json").read_text()), "text", **options)
    folder.write_sums(path)
    _, expected, _ = run_command(capsys, "predict", str(path), "--text", "--format", "csv", "--", *texts)
    assert run_example(path, monkeypatch, capsys, *texts) == expected


def test_card_shows_names_as_they_are(tmp_path):
    classes = ["a|b", "<script>alert(1)</script>", "*c*", "d\n# e"]
    info = {"parity": {}, "speed": {}, "runtime": "onnx", "quantize": "none", "bytes": 9}
    run_info = {"config": {}, "data": {"classes": classes, "source": "my|data"}, "recipe": "image-classifier"}
    description = {**info, "kind": "image-classifier", "passed": True, "run": {"name": "it", "recipe": "it"}}
    card.write_card(tmp_path, description, run_info, "python example.py IMAGE", "numpy")
    lines = (tmp_path / "card.md").read_text().splitlines()
    assert r"| Classes | a\|b, \<script\>alert(1)\</script\>, \*c\*, d\\n# e |" in lines
    assert r"| Data | my\|data |" in lines


def test_table_fits_80_columns():
    speed = {"ms_1_thread": 0.08934, "ms_2_threads": 12.345, "per_second": 43210.9, "peak_memory_mb": 1234.5}
    info = {"runtime": "savedmodel", "quantize": "none", "bytes": 23_456_789, "speed": speed}
    rows = [card.row({**info, "parity": {"accuracy": 0.9123, "label_agreement": 1.0}})]
    rows += [card.row({"runtime": "the run", "quantize": "none"})]
    assert rows[0] == ["savedmodel", "float32", "23.5", "91.2 %", "100.0 %", "0.089 | 12.3 ms", "43,211", "1,234"]
    assert rows[1] == ["the run", "float32", *["-"] * 6]
    widths = [max(map(len, cells)) for cells in zip(card.COLUMNS, *rows, strict=True)]
    assert sum(widths) + 2 * (len(widths) - 1) <= 80
    quantized = {**info, "runtime": "onnx", "quantize": "weights and activations in int8"}
    assert card.row(quantized)[1] == "all int8"
