"""The image classifier from end to end: real files, the real command line, real training."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import run_command, same_metrics, silence, write_images
from dltoolkit.recipes import image_classifier
from PIL import Image

import dltoolkit
from dltoolkit import evaluation
from dltoolkit.errors import UserError


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Write three class folders of thirty small color PNG files that a network can tell apart."""
    return write_images(tmp_path_factory.mktemp("toys") / "toys", 30, side=16)


@pytest.fixture(scope="module")
def config(images, tmp_path_factory):
    """Options of a training that takes seconds and learns the classes."""
    return image_classifier.Config(
        data=str(images), epochs=12, batch_size=16, widths=(16, 16, 32), out_dir=str(tmp_path_factory.mktemp("runs"))
    )


@pytest.fixture(scope="module")
def tiny(config):
    """Options of the shortest training, for tests in which accuracy does not matter."""
    return replace(config, model="mlp", widths=(8,), epochs=1)


@pytest.fixture(scope="module")
def run(config):
    return image_classifier.train(config)


def test_evaluate_and_predict_scale_and_resize_as_the_run_file_says(run, tmp_path, capfd):
    """The run was trained on squares of 8 bits; here its run file describes stretched images of 12 bits."""
    deep = shutil.copytree(run.path, tmp_path / "deep")
    info = json.loads((deep / "run.json").read_text())
    info["data"] |= {"scale": {"low": 0, "high": 4095, "minimum": 0, "maximum": 4095}, "resize": {"mode": "stretch"}}
    (deep / "run.json").write_text(json.dumps(info))
    values = np.repeat(np.linspace(0, 4000, 16).round()[:, None], 32, axis=1).astype(np.uint16)  # twice as wide
    expected = np.round(values[:, :16] / 4095 * 255)
    opened = dltoolkit.load(str(deep))
    assert (opened.preprocess(values)[0] == expected[..., None]).all()
    for name in ("a", "b"):
        (tmp_path / "new" / "bars").mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(tmp_path / "new" / "bars" / f"{name}.png")
    pixels, _ = evaluation.image_classification.read_labeled(opened, str(tmp_path / "new"), opened.config)
    assert (pixels == expected[..., None]).all()
    capfd.readouterr()
    opened.predict([values, values + np.uint16(200)])
    assert "An image has values from 200 to 4200, but the model was trained on values from 0 to 4095" in (
        capfd.readouterr().err.replace("\n", " ")
    )


def test_predictions_file_names_each_test_image_by_its_place_in_the_folder(run, images):
    with open(run.path / "predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert not any(Path(row["input"]).is_absolute() for row in rows)
    assert all(row["label"] == Path(row["input"]).parent.name for row in rows)
    answers = run.predict([images / row["input"] for row in rows])
    assert [row["predicted_label"] for row in rows] == [answer.label for answer in answers]
    correct = sum(row["label"] == row["predicted_label"] for row in rows)
    assert correct / 12 == pytest.approx(run.metrics["test"]["accuracy"])


def test_train_learns_the_classes_and_describes_the_run(run, config):
    assert run.metrics["test"]["accuracy"] > 0.8
    assert {path.name for path in run.path.iterdir()} - {"tensorboard", ".lock"} == {
        *("run.json", "model.keras", "history.csv", "metrics.json", "report.html", "labels.json"),
        *("predictions.csv", "train_hashes.bin", "plots", "checkpoint"),
    }
    info = json.loads((run.path / "run.json").read_text())
    assert (info["recipe"], info["name"], info["state"]) == ("image-classifier", "toys-1", "finished")
    assert info["data"]["splits"] == {"train": 66, "validation": 12, "test": 12}
    assert info["data"]["classes"] == run.labels == ["bars", "dots", "plain"]
    summary = dict(info["plan"].pop("summary"))
    assert summary["Splits"].startswith("66 train, 12 validation, 12 test")
    assert summary["Training"] == "12 epochs of 4 steps of 16 examples, muon"
    assert summary["Model"] == f"resnet, {info['model']['parameters']:,} parameters"
    augment = info["augment"]
    flip = f"{'flip' if augment['flip'] else 'no flip'} ({augment['flip_reason']})"
    assert sorted(summary["Augmentation"].split(", ")) == sorted(["shift 1", flip])
    after = "12 test and 12 validation images, majority-class and linear baselines, report"
    assert re.fullmatch(rf"about \d+ s: {after}", summary["Evaluation"])
    assert summary["Result"] == str(run.path)
    assert {"batch_size": 16, "epochs": 12, "steps": 48, "steps_per_epoch": 4}.items() <= info["plan"].items()
    assert info["plan"]["monitor"] == "validation_accuracy"
    assert info["config"] == config.to_dict()
    assert info["peak_memory_mb"] > 100
    metrics = json.loads((run.path / "metrics.json").read_text())
    assert metrics.keys() == {"test", "validation", "baseline"}
    assert metrics["baseline"].keys() == {"majority", "linear"}
    assert {"loss", "accuracy", "accuracy_ci95", "macro_f1", "per_class", "confusion", "ece"} <= metrics["test"].keys()
    assert "<img" in (run.path / "report.html").read_text()


def test_train_saves_a_calibrated_model(run):
    labels, batches = evaluation.image_classification.labeled_batches(image_classifier.build_data(run.config), "test")
    logits = np.concatenate([run.model.predict_on_batch(x) for x, _ in batches])
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = shifted / shifted.sum(1, keepdims=True)
    loss = -np.log(probabilities[np.arange(len(labels)), labels]).mean()
    assert loss == pytest.approx(run.metrics["test"]["loss"], abs=1e-4)
    assert run.info["calibration"]["temperature"] != 1.0


@pytest.mark.parametrize(
    ("family", "widths"),
    [
        ("cnn", (4, 8)),
        pytest.param("vit", (32, 32), marks=pytest.mark.slow),
        pytest.param("alexnet", (8, 8, 8, 8, 8, 16, 16), marks=pytest.mark.slow),
    ],
)
def test_train_trains_every_family(config, family, widths):
    """The resnet and the mlp are trained by the other tests."""
    trained = image_classifier.train(replace(config, model=family, widths=widths, epochs=1, limit=45))
    assert trained.info["model"]["name"] == family
    assert (trained.path / "report.html").exists()


def test_train_weights_classes_mixes_images_and_limits_shots(tiny, make_folder):
    uneven = str(make_folder("uneven", [40, 12, 12]))
    trained = image_classifier.train(
        replace(tiny, data=uneven, class_weights="balanced", augment="strong", mixup=0.2, cutmix=1.0, shots=5)
    )
    assert trained.info["data"]["splits"]["train"] == 15
    strong = {"min_crop_area": 0.35, "color_jitter": 0.4, "shift": 0}
    assert {**strong, "mixup": 0.2, "cutmix": 1.0}.items() <= trained.info["augment"].items()
    splits = image_classifier.build_data(replace(tiny, data=uneven))
    counts = np.bincount(splits.labels[splits.train])
    assert splits.balanced_weights() * counts == pytest.approx(np.full(3, len(splits.train) / 3))


def test_train_reads_a_table_with_named_columns(tiny, images, tmp_path, capfd):
    """The first line of the table looks like data: a column has the name of a label."""
    rows = [("image", "bars"), *((str(path), path.parent.name) for path in sorted(images.rglob("*.png")))]
    table = tmp_path / "toys.csv"
    table.write_text("".join(f"{file},{label}\n" for file, label in rows))
    columns = {"header": True, "image_column": "image", "label_column": "bars"}
    trained = image_classifier.train(replace(tiny, data=str(table), **columns))
    assert sum(trained.info["data"]["splits"].values()) == 90
    code, out, err = run_command(capfd, "evaluate", str(trained.path), "--data", str(table), "--format", "json")
    assert code == 0, err
    assert sum(row["support"] for row in json.loads(out)["per_class"].values()) == 90


def test_train_accepts_class_names_that_are_not_utf8(tiny, make_folder, capfd):
    folder = make_folder()
    name = os.fsdecode(b"caf\xe9")
    (folder / "bars").rename(folder / name)
    trained = image_classifier.train(replace(tiny, data=str(folder)))
    assert name in dltoolkit.load(trained.path).labels
    code, out, _ = run_command(capfd, "predict", str(trained.path), str(folder / name))
    assert code == 0
    assert len(out.splitlines()) == 11


def test_train_stops_at_an_unreadable_image_or_skips_it(capfd, image_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (image_folder / "bars" / "broken.png").write_bytes(b"")
    words = ["train", "image-classifier", "--data", str(image_folder), "--model", "mlp", "--widths", "8"]
    code, _, err = run_command(capfd, *words)
    assert code == 2
    assert "broken.png" in err
    assert "--skip-invalid" in err
    assert not list(tmp_path.glob("saved_models/*/*"))
    code, _, err = run_command(capfd, *words, "--skip-invalid", "--epochs", "1")
    assert code == 0
    assert "Warning: " in err


def test_train_runs_a_copied_and_changed_recipe(capfd, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_command(capfd, "copy", "image-classifier", ".")[0] == 0
    mine = Path("image_classifier.py").rename("mine.py")
    mine.write_text(mine.read_text().replace('"resnet", "Model family', '"mlp", "Model family'))
    code, _, err = run_command(capfd, "train", "./mine.py", "--data", str(images), "--epochs", "1", "--widths", "8")
    assert code == 0, err
    trained = dltoolkit.load("latest")
    assert trained.info["config"]["model"] == "mlp"
    assert trained.path.parent.name == "mine"
    image, options = str(images / "bars" / "0.png"), ["--format", "json"]
    assert "--recipe ./mine.py" in run_command(capfd, "predict", "latest", image, *options)[2]
    code, out, err = run_command(capfd, "predict", "latest", image, *options, "--recipe", "./mine.py")
    assert (code, len(json.loads(out))) == (0, 1), err


def test_command_line_and_python_give_equal_runs(tiny, capfd, tmp_path, monkeypatch):
    """Equal options and seeds give equal weights and metrics. The other verbs find the run by its name."""
    first = image_classifier.train(tiny)
    monkeypatch.chdir(tmp_path)
    words = ["--model", "mlp", "--widths", "8", "--batch-size", "16", "--epochs", "1", "--name", "x"]
    code, out, err = run_command(capfd, "train", "image_classifier", tiny.data, *words)
    assert code == 0, err
    assert "test accuracy" in out
    assert out.splitlines()[-1].split(maxsplit=2)[2] == "dltoolkit predict saved_models/image-classifier/x INPUT..."
    second = dltoolkit.load("x")
    assert second.metrics == first.metrics
    assert all((a == b).all() for a, b in zip(first.model.get_weights(), second.model.get_weights(), strict=True))
    assert "test accuracy" in run_command(capfd, "show", "x")[1]
    assert json.loads(run_command(capfd, "show", "x", "--format", "json")[1])["metrics"] == first.metrics
    assert "image-classifier/x" in run_command(capfd, "list", "runs")[1]
    assert "test accuracy" in run_command(capfd, "compare", "x", str(first.path))[1]
    assert run_command(capfd, "resume", "x", "--epochs", "2")[0] == 0
    assert [row["epoch"] for row in dltoolkit.load("x").history] == [1, 2]


def test_evaluate_repeats_the_test_and_takes_other_data(run, images, capfd, tmp_path):
    assert same_metrics(run.evaluate(), run.metrics["test"])
    code, out, err = run_command(capfd, "evaluate", str(run.path), "--data", str(images), "--format", "json")
    assert code == 0
    assert json.loads(out)["per_class"].keys() == {"bars", "dots", "plain"}
    assert sum(row["support"] for row in json.loads(out)["per_class"].values()) == 90
    lines = [line for line in err.splitlines() if line]
    assert lines[0].startswith("Evaluating ")
    assert "of 90 images are among the training examples of the run" in " ".join(err.split())
    assert "macro F1" in run_command(capfd, "evaluate", str(run.path))[1]
    shutil.copytree(images, tmp_path / "new")
    (tmp_path / "new" / "plain").rename(tmp_path / "new" / "stripes")
    code, out, err = run_command(capfd, "evaluate", str(run.path), "--data", str(tmp_path / "new"))
    assert (code, out) == (2, "")
    assert "stripes" in err
    assert "bars" in err
    assert len(err.splitlines()) == 1


def test_evaluate_stops_at_an_unreadable_image_or_skips_it(run, images, tmp_path, capfd):
    other = shutil.copytree(images, tmp_path / "other")
    (other / "bars" / "void.png").touch()
    code, _, err = run_command(capfd, "evaluate", str(run.path), "--data", str(other))
    assert (code, "--skip-invalid" in err) == (2, True)
    code, _, err = run_command(capfd, "evaluate", str(run.path), "--data", str(other), "--skip-invalid")
    assert code == 0
    assert "void.png" in err


def test_evaluate_refuses_data_that_changed_after_training(tiny, tmp_path, images):
    changing = shutil.copytree(images, tmp_path / "changing")
    trained = image_classifier.train(replace(tiny, data=str(changing)))
    next(changing.rglob("*.png")).unlink()
    with pytest.raises(UserError, match="have changed"):
        trained.evaluate()


def test_predict_prints_every_format(run, images, capfd):
    image = str(images / "bars" / "0.png")
    code, out, _ = run_command(capfd, "predict", str(run.path), image, "--format", "json", "--top-k", "2")
    (prediction,) = json.loads(out)
    assert (code, prediction["input"], prediction["label"], len(prediction["top"])) == (0, image, "bars", 2)
    assert prediction["probability"] == prediction["top"][0]["probability"] > prediction["top"][1]["probability"]
    _, out, _ = run_command(capfd, "predict", str(run.path), image, "--format", "jsonl", "--top-k", "2")
    assert json.loads(out) == prediction
    _, out, _ = run_command(capfd, "predict", str(run.path), image, "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(out))
    assert (row["input"], row["label"], float(row["probability"])) == (image, "bars", prediction["probability"])
    _, out, _ = run_command(capfd, "predict", str(run.path), image)
    assert out.splitlines()[0].split() == ["input", "label", "probability", "next"]
    assert out.splitlines()[1].split()[1] == "bars"


def test_predict_reports_an_unreadable_file_and_continues(run, images, capfd, tmp_path):
    (tmp_path / "note.jpg").write_text("this is text")
    inputs = [str(tmp_path / "note.jpg"), str(images / "dots"), str(tmp_path / "missing.png")]
    code, out, _ = run_command(capfd, "predict", str(run.path), *inputs, "--format", "json")
    predictions = json.loads(out)
    assert code == 2
    assert [("error" in prediction) for prediction in predictions] == [True] + [False] * 30 + [True]
    assert "not a" in predictions[0]["error"]
    assert "no such file" in predictions[-1]["error"]


def test_predict_takes_globs_and_stdin(run, images):
    paths = "\n".join(str(path) for path in sorted((images / "plain").glob("*.png"))[:3])
    words = ["predict", str(run.path), "-", str(images / "*" / "1.png"), "--format", "jsonl"]
    done = subprocess.run(
        [sys.executable, "-m", "dltoolkit", *words], input=paths, capture_output=True, text=True, check=True
    )
    assert len(done.stdout.splitlines()) == 6
    assert done.stderr == ""


def test_predict_reads_an_image_or_names_from_stdin(run, images, capfd, tmp_path, monkeypatch):
    path = images / "dots" / "2.png"
    (tmp_path / "names").write_text(f"{path}\nhttps://example.com/a.png\n")
    answers = {}
    for source in (path, tmp_path / "names"):
        with open(source, "rb") as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            _, out, _ = run_command(capfd, "predict", str(run.path), "-", "--format", "jsonl")
        answers[source] = [json.loads(line) for line in out.splitlines()]
    (image,) = answers[path]
    named, url = answers[tmp_path / "names"]
    assert (image["input"], image["label"], image["top"]) == ("stdin", "dots", named["top"])
    assert (named["input"], url["error"]) == (str(path), "a URL: download the file")
    code, _, err = run_command(capfd, "predict", str(run.path), str(path), "--text")
    assert (code, "This run classifies images: leave --text out." in err) == (2, True)


def test_predict_from_python_takes_arrays_and_paths(run, images):
    pixels = np.asarray(Image.open(images / "dots" / "2.png"))
    by_array, by_path = run.predict([pixels, images / "dots" / "2.png"], top_k=1)
    assert by_array.label == by_path.label == "dots"
    assert by_array.top == by_path.top
    assert by_array.input == "array 0"
    assert dltoolkit.load(run.path).predict([pixels], top_k=1)[0].top == by_array.top


def test_generate_is_refused_for_a_classifier(run, capfd):
    code, _, err = run_command(capfd, "generate", str(run.path))
    assert (code, "use 'dltoolkit predict'" in err) == (2, True)


@pytest.mark.slow
def test_two_logical_cpus_train_evaluate_and_resume(images, tmp_path):
    words = [sys.executable, "-m", "dltoolkit"]
    options = ["--data", str(images), "--model", "cnn", "--widths", "4", "--device", "cpu:2"]
    train = [*words, "train", "image-classifier", *options, "--epochs", "1", "--name", "two"]
    subprocess.run(train, cwd=tmp_path, check=True, capture_output=True)
    run = dltoolkit.load("two", tmp_path / "saved_models")
    assert run.info["device"]["replicas"] == 2
    assert sum(map(sum, run.metrics["test"]["confusion"])) == 12
    subprocess.run([*words, "resume", "two", "--epochs", "2"], cwd=tmp_path, check=True, capture_output=True)
    assert len(dltoolkit.load("two", tmp_path / "saved_models").history) == 2


def test_load_evaluate_and_predict_print_no_warning(run, images, capfd):
    with silence(capfd):
        loaded = dltoolkit.load(str(run.path))
        loaded.evaluate()
        loaded.predict(str(images / "bars" / "0.png"))
