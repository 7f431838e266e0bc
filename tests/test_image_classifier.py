"""The image classifier from end to end: real files, the real command line, real training."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dltoolkit.recipes import image_classifier, image_gan
from PIL import Image

import dltoolkit
from dltoolkit import evaluation, recipe
from dltoolkit.cli import app as cli
from dltoolkit.errors import UserError
from dltoolkit.evaluation import feature_extractor as probe


def command(capfd, *words: str) -> tuple[int, str, str]:
    """Run the command line in this process; return exit code, stdout and stderr."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    out, err = capfd.readouterr()
    return stop.value.code, out, err


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three class folders of thirty small colour PNGs that a network can tell apart."""
    from conftest import CLASSES, save_image, toy_image

    folder = tmp_path_factory.mktemp("toys") / "toys"
    for label, name in enumerate(CLASSES):
        for i in range(30):
            save_image(folder / name / f"{i:03d}.png", toy_image(label, i))
    return folder


@pytest.fixture(scope="module")
def config(pictures, tmp_path_factory):
    return image_classifier.Config(
        data=str(pictures), epochs=12, batch_size=16, widths=(16, 16, 32), out_dir=str(tmp_path_factory.mktemp("runs"))
    )


@pytest.fixture(scope="module")
def run(config):
    return image_classifier.train(config)


def test_a_run_is_trained_measured_and_described(run, config):
    assert run.metrics["test"]["accuracy"] > 0.8
    assert {path.name for path in run.path.iterdir()} - {"tensorboard"} == {
        *("run.json", "model.keras", "history.csv", "metrics.json", "report.html", "labels.json"),
        *("plots", "checkpoint"),
    }
    info = json.loads((run.path / "run.json").read_text())
    assert (info["recipe"], info["name"], info["state"]) == ("image-classifier", "toys-1", "finished")
    assert info["data"]["splits"] == {"train": 66, "validation": 12, "test": 12}
    assert info["data"]["classes"] == run.classes == ["bars", "dots", "plain"]
    assert info["plan"] == {"batch_size": 16, "epochs": 12, "steps": 48}
    assert info["config"] == config.to_dict()
    assert info["peak_memory_mb"] > 100
    metrics = json.loads((run.path / "metrics.json").read_text())
    assert metrics.keys() == {"test", "validation", "baseline"}
    assert metrics["baseline"].keys() == {"majority", "linear"}
    assert {"loss", "accuracy", "accuracy_ci95", "macro_f1", "per_class", "confusion", "ece"} <= metrics["test"].keys()
    assert "<img" in (run.path / "report.html").read_text()


def test_the_probabilities_are_calibrated_in_the_saved_model(run):
    logits = np.concatenate(
        [
            run.model.predict_on_batch(x)
            for x, _ in evaluation.image_classification.labeled_batches(image_classifier.build_data(run.config), "test")[1]
        ]
    )
    labels = evaluation.image_classification.labeled_batches(image_classifier.build_data(run.config), "test")[0]
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = shifted / shifted.sum(1, keepdims=True)
    loss = -np.log(probabilities[np.arange(len(labels)), labels]).mean()
    assert loss == pytest.approx(run.metrics["test"]["loss"], abs=1e-4)
    assert run.info["calibration"]["temperature"] != 1.0


def test_equal_commands_give_equal_runs(config, run):
    again = image_classifier.train(config)
    assert again.path.name == "toys-2"
    assert again.metrics == run.metrics
    assert all((a == b).all() for a, b in zip(again.model.get_weights(), run.model.get_weights(), strict=True))


def test_evaluate_gives_the_same_test_again_and_takes_other_data(run, pictures, capfd, tmp_path):
    assert run.evaluate() == run.metrics["test"]
    code, out, _ = command(capfd, "evaluate", str(run.path), "--data", str(pictures), "--format", "json")
    assert code == 0
    assert json.loads(out)["per_class"].keys() == {"bars", "dots", "plain"}
    assert sum(row["support"] for row in json.loads(out)["per_class"].values()) == 90
    code, out, _ = command(capfd, "evaluate", str(run.path))
    assert "macro f1" in out
    shutil.copytree(pictures, tmp_path / "new")
    (tmp_path / "new" / "plain").rename(tmp_path / "new" / "stripes")
    code, out, err = command(capfd, "evaluate", str(run.path), "--data", str(tmp_path / "new"))
    assert (code, out) == (2, "")
    assert "stripes" in err
    assert "bars" in err
    assert len(err.splitlines()) == 1


def test_changed_data_are_not_evaluated_as_if_they_were_the_same(config, tmp_path, pictures):
    moving = shutil.copytree(pictures, tmp_path / "moving")
    trained = image_classifier.train(replace(config, data=str(moving), epochs=1))
    next(moving.rglob("*.png")).unlink()
    with pytest.raises(UserError, match="have changed"):
        trained.evaluate()


def test_predict_every_format(run, pictures, capfd):
    one = str(pictures / "bars" / "000.png")
    code, out, _ = command(capfd, "predict", str(run.path), one, "--format", "json", "--top-k", "2")
    (answer,) = json.loads(out)
    assert (code, answer["input"], answer["label"], len(answer["top"])) == (0, one, "bars", 2)
    assert answer["probability"] == answer["top"][0]["probability"] > answer["top"][1]["probability"]
    _, out, _ = command(capfd, "predict", str(run.path), one, "--format", "jsonl", "--top-k", "2")
    assert json.loads(out) == answer
    _, out, _ = command(capfd, "predict", str(run.path), one, "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(out))
    assert (row["input"], row["label"], float(row["probability"])) == (one, "bars", answer["probability"])
    _, out, _ = command(capfd, "predict", str(run.path), one)
    assert out.splitlines()[0].split() == ["input", "label", "probability", "next"]
    assert out.splitlines()[1].split()[1] == "bars"


def test_predict_goes_on_after_a_bad_file(run, pictures, capfd, tmp_path):
    (tmp_path / "note.jpg").write_text("this is text")
    code, out, _ = command(
        capfd,
        *("predict", str(run.path), str(tmp_path / "note.jpg"), str(pictures / "dots"), str(tmp_path / "gone.png")),
        *("--format", "json"),
    )
    answers = json.loads(out)
    assert code == 2
    assert [("error" in answer) for answer in answers] == [True] + [False] * 30 + [True]
    assert "not a picture" in answers[0]["error"]
    assert "no such file" in answers[-1]["error"]


def test_predict_takes_globs_and_stdin(run, pictures):
    listed = "\n".join(str(path) for path in sorted((pictures / "plain").glob("*.png"))[:3])
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "dltoolkit",
            "predict",
            str(run.path),
            "-",
            str(pictures / "*" / "001.png"),
            "--format",
            "jsonl",
        ],
        input=listed,
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 6
    assert done.stderr == "", "nothing but the answer, and no chatter"


def test_python_takes_arrays_and_paths(run, pictures):
    pixels = np.asarray(Image.open(pictures / "dots" / "002.png"))
    by_array, by_path = run.predict([pixels, pictures / "dots" / "002.png"], top_k=1)
    assert by_array.label == by_path.label == "dots"
    assert by_array.top == by_path.top
    assert by_array.input == "array 0"
    again = dltoolkit.load(run.path)
    assert again.predict([pixels], top_k=1)[0].top == by_array.top


@pytest.mark.parametrize(("family", "widths"), [("cnn", None), ("mlp", None), ("vit", (32, 32)), ("alexnet", None)])
def test_every_family_trains(config, family, widths):
    trained = image_classifier.train(replace(config, model=family, widths=widths, epochs=1, limit=45))
    assert trained.info["model"]["name"] == family
    assert (trained.path / "report.html").exists()


def test_class_weights_mixing_and_few_labels(config, make_folder):
    uneven = make_folder("uneven", [40, 12, 12])
    trained = image_classifier.train(
        replace(config, data=str(uneven), epochs=1, class_weights="balanced", mixup=0.2, cutmix=1.0, shots=5)
    )
    assert trained.info["data"]["splits"]["train"] == 15
    pictures = image_classifier.build_data(replace(config, data=str(uneven)))
    weights = pictures.balanced_weights()
    counts = np.bincount(pictures.labels[pictures.train])
    assert (weights * counts) == pytest.approx(np.full(3, len(pictures.train) / 3))


def test_a_copied_recipe_trains_and_predicts(capfd, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = command(capfd, "copy", "image-classifier", ".")
    assert (code, out.strip()) == (0, "image_classifier.py")
    mine = Path("image_classifier.py").rename("mine.py")
    mine.write_text(mine.read_text().replace('option("resnet",', 'option("mlp",'))
    code, _, err = command(capfd, "train", "./mine.py", "--data", str(pictures), "--epochs", "1")
    assert code == 0, err
    found = dltoolkit.load("latest")
    assert found.info["config"]["model"] == "mlp"
    assert found.path.parent.name == "mine"
    code, out, _ = command(capfd, "predict", "latest", str(pictures / "bars" / "000.png"), "--format", "json")
    assert (code, len(json.loads(out))) == (0, 1)
    code, _, err = command(capfd, "copy", "image-classifier", ".")
    code, _, err = command(capfd, "copy", "image-classifier", ".")
    assert code == 2
    assert "exists already" in err


def test_flags_win_over_the_config_file(capfd, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("options.yaml").write_text(f"data: {pictures}\nepochs: 3\nmodel: mlp\nlimit: 45\naugment: false\n")
    code, out, err = command(
        capfd, "train", "image-classifier", "--config", "options.yaml", "--epochs", "1", "--name", "x"
    )
    assert code == 0, err
    used = dltoolkit.load("x").info["config"]
    assert (used["epochs"], used["model"], used["augment"]) == (1, "mlp", False)
    assert "test accuracy" in out
    code, out, _ = command(capfd, "show", "x")
    assert "test accuracy" in out
    code, out, _ = command(capfd, "list", "runs")
    assert "image-classifier/x" in out
    code, out, _ = command(capfd, "compare", "x", "x")
    assert "test accuracy" in out
    code, out, _ = command(capfd, "resume", "x", "--epochs", "2")
    assert [row["epoch"] for row in dltoolkit.load("x").history] == [1, 2]
    Path("options.yaml").write_text("epoch: 3\n")
    code, _, err = command(capfd, "train", "image-classifier", "--config", "options.yaml")
    assert code == 2
    assert "Did you mean 'epochs'?" in err


def test_a_table_is_evaluated_as_it_was_read_in_training(config, pictures, tmp_path, capfd):
    """Its first line names columns, though it looks like data: one name turns up again below as a label."""
    rows = [("picture", "bars"), *((str(path), path.parent.name) for path in sorted(pictures.rglob("*.png")))]
    table = tmp_path / "toys.csv"
    table.write_text("".join(f"{file},{label}\n" for file, label in rows))
    columns = {"header": True, "image_column": "picture", "label_column": "bars"}
    trained = image_classifier.train(replace(config, data=str(table), epochs=1, model="mlp", widths=(8,), **columns))
    assert sum(trained.info["data"]["splits"].values()) == 90
    code, out, err = command(capfd, "evaluate", str(trained.path), "--data", str(table), "--format", "json")
    assert code == 0, err
    assert sum(row["support"] for row in json.loads(out)["per_class"].values()) == 90


def test_two_logical_cpus_train_measure_and_resume(pictures, tmp_path):
    words = [sys.executable, "-m", "dltoolkit"]
    options = ["--data", str(pictures), "--model", "cnn", "--widths", "4", "--device", "cpu:2"]
    train = [*words, "train", "image-classifier", *options, "--epochs", "1", "--name", "two"]
    subprocess.run(train, cwd=tmp_path, check=True, capture_output=True)
    found = dltoolkit.load("two", tmp_path / "saved_models")
    assert found.info["device"]["replicas"] == 2
    assert sum(map(sum, found.metrics["test"]["confusion"])) == 12
    subprocess.run([*words, "resume", "two", "--epochs", "2"], cwd=tmp_path, check=True, capture_output=True)
    assert len(dltoolkit.load("two", tmp_path / "saved_models").history) == 2


def test_evaluate_says_how_to_read_and_what_it_left_out(run, pictures, tmp_path, capfd):
    other = shutil.copytree(pictures, tmp_path / "other")
    (other / "bars" / "void.png").touch()
    code, _, err = command(capfd, "evaluate", str(run.path), "--data", str(other))
    assert (code, "--skip-invalid" in err) == (2, True)
    code, _, err = command(capfd, "evaluate", str(run.path), "--data", str(other), "--skip-invalid")
    assert code == 0
    assert "void.png" in err
    _, _, err = command(capfd, "evaluate", str(run.path), "--data", str(pictures))
    assert "was trained on these data" in err


def test_a_classifier_does_not_generate(run, capfd):
    code, _, err = command(capfd, "generate", str(run.path))
    assert (code, "use 'dltoolkit predict'" in err) == (2, True)


def test_names_that_are_no_text(config, make_folder, capfd):
    folder = make_folder()
    odd = os.fsdecode(b"caf\xe9")
    (folder / "bars").rename(folder / odd)
    trained = image_classifier.train(replace(config, data=str(folder), epochs=1, model="mlp", widths=(8,)))
    assert odd in dltoolkit.load(trained.path).classes
    code, out, _ = command(capfd, "predict", str(trained.path), str(folder / odd))
    assert code == 0
    assert len(out.splitlines()) == 11


def test_contradicting_options_are_named(config):
    with pytest.raises(UserError, match="--no-augment"):
        image_classifier.train(replace(config, augment=False, mixup=0.2))


def test_doctor_tries_the_recipes(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(image_gan, "SHORTEST_EPOCH", 10)
    monkeypatch.setattr(probe, "MOST_STEPS", 30)
    code, out, _ = command(capfd, "doctor")
    assert code == 0
    assert all(f"{name:20} works" in out for name in recipe.names())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "image-clasifier"], "Did you mean 'image-classifier'?"),
        (["train", "./nowhere.py"], "no recipe file"),
        (["train", "image-classifier", "--epoch", "3"], "Did you mean '--epochs'?"),
        (["train", "image-classifier", "--model", "resnett"], "Did you mean 'resnet'?"),
        (["train", "image-classifier", "--epochs", "-4"], "--epochs must be at least 1"),
        (["train", "image-classifier", "--epochs", "many"], "--epochs must be a whole number"),
        (["train", "image-classifier", "--learning-rate", "1e9"], "--learning-rate must be at most"),
        (["train", "image-classifier", "--image-size", "4"], "--image-size must be at least 8"),
        (["train", "image-classifier", "--data", "./nowhere"], "no such file or folder"),
        (["train", "image-classifier", "--data", "digitz"], "Did you mean 'digits'?"),
        (["train", "image-classifier", "--config", "nowhere.yaml"], "Cannot read the config file"),
        (["train", "image-classifier", "--out-dir", "/proc/nothing"], "another --out-dir"),
        (["train", "image-classifier", "--name", "../up"], "no name for a run"),
        (["trian"], "Did you mean 'train'?"),
        (["predict", "latest"], "Missing argument"),
        (["show", "nothing-there"], "There is no run"),
        (["evaluate", "latest", "--format", "xml"], "xml"),
        (["copy", "image-clasifier"], "Did you mean 'image-classifier'?"),
    ],
)
def test_wrong_input_is_one_sentence_and_leaves_nothing(capfd, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = command(capfd, *words)
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert len(err.splitlines()) == 1
    assert message in err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_bad_pictures_stop_the_training_and_leave_no_run(capfd, image_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (image_folder / "bars" / "broken.png").write_bytes(b"")
    code, _, err = command(capfd, "train", "image-classifier", "--data", str(image_folder))
    assert code == 2
    assert "broken.png" in err
    assert "--skip-invalid" in err
    assert not list(tmp_path.glob("saved_models/*/*"))
    code, _, err = command(
        capfd, "train", "image-classifier", "--data", str(image_folder), "--skip-invalid", "--epochs", "1"
    )
    assert code == 0
    assert "Warning: " in err


def test_debug_shows_the_traceback(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLTOOLKIT_DEBUG", "")  # so that it is put back
    _, _, err = command(capfd, "show", "nothing-there", "--debug")
    assert "Traceback" in err


def test_another_keras_backend_is_one_sentence(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "dltoolkit", "train", "image-classifier"],
        env={"KERAS_BACKEND": "jax", "PATH": "", "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Error: dltoolkit runs Keras on TensorFlow")
    assert len(done.stderr.splitlines()) == 1
