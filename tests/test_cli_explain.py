"""The verb explain: pages and JSON, inputs that cannot be read, wrong options, and the report."""

import json
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import toy_explanations
import toy_runs
from conftest import run_command, save_image
from dltoolkit.recipes import image_gan

import dltoolkit
from dltoolkit import files
from dltoolkit.errors import UserError

PLACES = ("box", "size", "original_box", "original_size")


def test_one_page_explains_a_folder_with_rows_for_what_cannot_be_read(patches_run, patches, tmp_path, capfd):
    new = tmp_path / "new"
    for name in ("across", "down"):
        shutil.copytree(patches / name, new / name, ignore=lambda _, files: sorted(files)[3:])
    shutil.copy(new / "down" / "000.png", new / "across" / "wrong.png")
    (new / "across" / "broken.png").write_bytes(b"no image")
    words = ("--method", "grad-cam", "--out", str(tmp_path / "page"))
    code, out, _ = run_command(capfd, "explain", str(patches_run.path), str(new), *words)
    assert code == 2
    assert out == f"7 explanations in {tmp_path / 'page' / 'explanations.html'}, 1 input not explained\n"
    page = (tmp_path / "page" / "explanations.html").read_text()
    assert page.count('<section class="card') == 7
    assert page.count("wrong: it is <bdi>across</bdi>") == 1 and page.count(">right<") == 6
    assert "broken.png" in page and "Not explained" in page
    assert "<script" not in page and 'id="only-wrong"' in page and page.count('name="class"') == 3
    assert "was not measured on this model" in page


def test_json_holds_the_values_and_the_errors_in_their_places(patches_run, patches, capfd):
    inputs = [str(patches / "across" / "000.png"), str(patches / "no.png"), str(patches / "down" / "000.png")]
    words = ("--method", "occlusion", "--class", "down", "--format", "json")
    code, out, _ = run_command(capfd, "explain", str(patches_run.path), *inputs, *words)
    first, missing, second = json.loads(out)
    assert code == 2 and missing.keys() == {"input", "error"}
    assert [each["label"] for each in (first, second)] == ["down", "down"]
    assert [each["truth"] for each in (first, second)] == ["across", "down"]
    assert np.sum(first["values"]) < 0 < np.sum(second["values"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--method", "lime"], "There is no method 'lime': use --method auto, or one of occlusion, rise, grad-cam"),
        (["--method", "leave-one-out"], "it explains texts, and this model reads images"),
        (["--method", "attention-rollout"], "it needs a layer of attention"),
        (["--class", "acros", "--method", "rise"], "There is no class 'acros'"),
        (["-"], "explain reads no stdin"),
        (["--encoding", "latin-1"], "--encoding has no effect on a run of image-classifier"),
        (["--format", "json", "--out", "x"], "--out has no effect with --format json"),
    ],
)
def test_wrong_options_are_refused(patches_run, patches, words, sentence, capfd):
    code, out, err = run_command(capfd, "explain", str(patches_run.path), str(patches / "down" / "000.png"), *words)
    assert (code, out) == (2, "")
    assert sentence in " ".join(err.split())


def test_without_inputs_the_report_is_explained_and_a_mark_is_named(patches, tmp_path, capfd):
    """All test images of a class carry the stripes in one corner, where other classes have nothing."""
    for number in range(40):
        image = np.random.default_rng(number).integers(110, 140, (16, 16, 1))
        image[:4, :4, 0] += 90 * toy_explanations.STRIPES[0]
        save_image(tmp_path / "marked" / "across" / f"{number}.png", image.astype(np.uint8))
    shutil.copytree(patches / "down", tmp_path / "marked" / "down")
    marked = toy_explanations.finished_run(tmp_path / "marked", tmp_path, toy_explanations.matched_network())
    code, out, err = run_command(capfd, "explain", str(marked.path), "--method", "occlusion")
    assert (code, out) == (0, f"explanations in {marked.path / 'report.html'}\n")
    assert "of what speaks for the class across in its test images lies at the top left corner" in " ".join(err.split())
    report = (marked.path / "report.html").read_text()
    assert "What each class looks at" in report and "The surest right answer of each class" in report
    assert report.count("most at the top left corner") == 1
    code, _, err = run_command(capfd, "explain", str(marked.path), "--class", "down")
    assert code == 2 and "--class has no effect without INPUT" in err


def test_boxes_are_also_in_pixels_of_the_file(patches_run, patches, tmp_path, capfd):
    """The model reads the square in the middle of the file, at a fifth of its size."""
    pixels = toy_explanations.patch_image(1, 3)[0]
    file = np.full((80, 120, 1), 125, np.uint8)
    file[:, 20:100] = pixels.repeat(5, axis=0).repeat(5, axis=1)
    save_image(tmp_path / "wide.png", file)
    words = (str(tmp_path / "wide.png"), "--method", "occlusion", "--format", "json")
    code, out, _ = run_command(capfd, "explain", str(patches_run.path), *words)
    (explained,) = json.loads(out)
    box, original = explained["box"], explained["original_box"]
    assert (code, explained["original_size"]) == (0, {"width": 120, "height": 80})
    assert original == {name: 5 * edge + (20 if name in ("left", "right") else 0) for name, edge in box.items()}
    assert file[original["top"] : original["bottom"], original["left"] : original["right"]].std() > 30


def test_a_page_is_written_only_where_it_can_be_and_with_something_on_it(patches_run, patches, tmp_path, capfd):
    words = ("explain", str(patches_run.path), "--method", "occlusion", "--out", str(tmp_path / "page"))
    assert run_command(capfd, *words, str(patches / "down" / "000.png"))[0] == 0
    before = (tmp_path / "page" / "explanations.html").read_bytes()
    missing = [str(tmp_path / f"{number}.png") for number in range(5)]
    code, out, err = run_command(capfd, *words, *missing)
    assert (code, out) == (2, "") and "0.png: no such file; " in " ".join(err.split())
    assert "and 2 further inputs" in " ".join(err.split())
    assert (tmp_path / "page" / "explanations.html").read_bytes() == before
    (tmp_path / "file").write_text("")
    (tmp_path / "folder" / "explanations.html").mkdir(parents=True)
    for name, sentence in (("file/x", "file is not a folder"), ("folder", "it is a folder")):
        code, out, err = run_command(capfd, *words[:-1], str(tmp_path / name), missing[0])
        assert (code, out) == (2, "") and sentence in " ".join(err.split())


def test_names_from_python_are_texts_and_what_has_no_picture_says_so(patches_run, patches, tmp_path):
    image = patches / "down" / "000.png"
    for options, name in (({"label": 3}, "label"), ({"method": None}, "method"), ({"method": ["rise"]}, "method")):
        with pytest.raises(UserError, match=f"{name} takes a name as text"):
            patches_run.explain(image, **options)
    missing = patches_run.explain(tmp_path / "no.png", method="occlusion")
    with pytest.raises(UserError, match=r"it could not be explained \(no such file\)"):
        missing.save_png(tmp_path / "map.png")


def test_a_page_is_written_while_another_process_writes_it(patches_run, patches, tmp_path, monkeypatch):
    explained = patches_run.explain(patches / "down" / "000.png", method="occlusion")
    with files.atomic_write(tmp_path / "page.html", suffix=f".{os.getpid()}") as partial:
        partial.write_text("another page")
        monkeypatch.setattr(os, "getpid", lambda: 1)
        explained.save_html(tmp_path / "page.html")
        assert partial.exists()
    assert (tmp_path / "page.html").read_text() == "another page"


def test_damaged_figures_are_refused_with_what_to_do(patches_run, patches, tmp_path, capfd):
    shutil.copytree(patches_run.path, tmp_path / "run")
    (tmp_path / "run" / "explanations").mkdir(exist_ok=True)
    (tmp_path / "run" / "explanations" / "faithfulness.json").write_text('{"methods": NaN}')
    code, out, err = run_command(capfd, "explain", str(tmp_path / "run"), str(patches / "down" / "000.png"))
    assert (code, out) == (2, "")
    assert "is damaged" in err and "Without this file, the methods are measured again" in " ".join(err.split())


def test_predictions_in_json_carry_the_box_that_they_rest_on(patches_run, patches, capfd):
    words = (str(patches / "down" / "003.png"), str(patches / "no.png"), "--explain")
    code, out, _ = run_command(capfd, "predict", str(patches_run.path), *words, "--format", "json")
    explained, missing = json.loads(out)
    _, place = toy_explanations.patch_image(1, 3)
    assert code == 2 and missing.keys() == {"input", "error"}
    assert explained.keys() == {"input", "label", "probability", "top", "method", *PLACES}
    assert explained["box"]["left"] < place[1].stop and explained["box"]["right"] > place[1].start
    code, out, err = run_command(capfd, "predict", str(patches_run.path), *words)
    assert code == 2 and "--explain has no effect without --format json or jsonl" in err


def test_a_gan_is_not_explained_and_the_sentence_says_where_its_images_are_compared(tmp_path, capfd):
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)])
    gan = toy_runs.finished_run(image_gan, tmp_path, "gan", model)
    code, out, err = run_command(capfd, "explain", str(gan.path), "image.png")
    assert (code, out) == (2, "") and "answers to noise, which has no parts to explain: report.html" in err


@pytest.mark.slow
def test_an_export_is_explained_as_its_run_is_and_without_tensorflow(patches_run, patches, tmp_path):
    for package in ("onnx", "onnxruntime", "tf2onnx"):
        pytest.importorskip(package)
    export, image = patches_run.export("onnx", out=tmp_path / "export"), patches / "down" / "004.png"
    code = (
        "import json, sys, dltoolkit\n"
        "explained = dltoolkit.load(sys.argv[1]).explain(sys.argv[2])\n"
        "loaded = {'tensorflow', 'keras'} & set(sys.modules)\n"
        "print(json.dumps([explained.to_json(), sorted(loaded)]))"
    )
    command = [sys.executable, "-c", code, str(export), str(image)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    explained, loaded = json.loads(done.stdout)
    expected = patches_run.explain(image, method="occlusion").to_json()
    assert loaded == [] and explained["method"] == "occlusion"
    assert np.array(explained["values"]) == pytest.approx(np.array(expected["values"]), rel=1e-2, abs=1e-3)
    with pytest.raises(UserError, match="because an export has no gradients"):
        dltoolkit.load(export).explain(image, method="grad-cam")
    with pytest.raises(UserError, match="data has no effect with an export"):
        dltoolkit.load(export).explain(image, data=str(patches))
