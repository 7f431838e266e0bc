"""The command line: help, wrong input, exit codes, and the verbs that train nothing."""

import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest
from conftest import run_command

from dltoolkit import config, recipe
from dltoolkit.cli import doctor, image_files, recipe_command, tables, train
from dltoolkit.config import OptimizerOptions, RunConfig, option
from dltoolkit.errors import UserError


@pytest.fixture
def trained(monkeypatch):
    """Replace training; return the list of the configs that would be trained."""
    configs = []
    recipes = {}

    def load(name: str):
        if name not in recipes:
            module = original(name)
            recipes[name] = SimpleNamespace(Config=module.Config, train=configs.append, __doc__=module.__doc__)
        return recipes[name]

    original = recipe.load
    monkeypatch.setattr(recipe, "load", load)
    monkeypatch.setattr("dltoolkit.cli.train.print_summary", lambda run: None)
    return configs


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "image-clasifier"], "Did you mean 'image-classifier'?"),
        (["train", "./nowhere.py"], "no recipe file"),
        (["train", "image-classifier", "--epoch", "3"], "There is no option '--epoch'; did you mean --epochs?"),
        (["train", "image-classifier", "--lr", "3"], "There is no option '--lr'; did you mean --learning-rate?"),
        (["train", "image-classifier", "--batch=3"], "There is no option '--batch'; did you mean --batch-size?"),
        (["train", "image-classifier", "--imgsz", "64"], "did you mean --image-size?"),
        (["train", "sentiment-analyzer", "--max-seq-length", "64"], "did you mean --max-length?"),
        (["train", "text-generator", "--max-iters", "64"], "did you mean --steps?"),
        (["train", "text-generator", "--block-size", "64"], "did you mean --context-length?"),
        (["train", "image-classifier", "--workers", "4"], "dltoolkit launch --workers N"),
        (["train", "image-classifier", "--frobnicate", "4"], "There is no option '--frobnicate'. See"),
        (["train", "image-classifier", "digits", "mnist"], "The argument 'mnist' belongs to no option"),
        (["train", "image-classifier", "digits", "--data", "mnist"], "The data are given twice"),
        (["train", "image-classifier", "--model", "resnett"], "Did you mean 'resnet'?"),
        (["train", "image-classifier", "--monitor", "loss"], "did you mean --metric?"),
        (["train", "image-classifier", "--fold", "fold"], "did you mean --split-column?"),
        (["train", "image-classifier", "--crop", "1"], "did you mean --resize?"),
        (["train", "image-classifier", "--widths", "8,wide"], "Each value of --widths must be a whole number"),
        (["train", "image-gan", "--diff-augment", "cutout"], "'translation,cutout' or 'color,translation,cutout', not"),
        (["train", "image-classifier", "--epochs", "-4"], "--epochs must be at least 1"),
        (["train", "image-classifier", "--epochs", "many"], "--epochs must be a whole number"),
        (["train", "image-classifier", "--learning-rate", "1e9"], "--learning-rate must be at most"),
        (["train", "image-classifier", "--image-size", "4"], "--image-size must be at least 8"),
        (["train", "image-classifier", "--no-augment", "--mixup", "0.2"], "--mixup has no effect with --no-augment"),
        (["train", "sentiment-analyzer", "--units", "8"], "--units has no effect with --model ngram"),
        (["train", "sentiment-analyzer", "--model", "gru", "--ngrams", "2"], "--ngrams has no effect with --model gru"),
        (["train", "image-classifier", "--data", "./nowhere"], "No such file or folder"),
        (["train", "image-classifier", "--data", "digitz"], "Did you mean 'digits'?"),
        (["train", "image-classifier", "./nowhere"], "No such file or folder"),
        (["train", "image-classifier", "--config", "nowhere.yaml"], "Cannot read the config file"),
        (["train", "image-classifier", "--config", ""], "Cannot read the config file"),
        (["train", "image-classifier", "--out-dir", "/proc/nothing"], "another --out-dir"),
        (["train", "image-classifier", "--name", "../up"], "not a valid name"),
        (["train", "image-classifier", "--name", "latest"], "'latest' stands for the newest run"),
        (["trian"], "Did you mean 'train'?"),
        (["a\\b it's\n"], "There is no command 'a\\b it's\\n'. See"),
        (["copy", "image-classifier", "/dev/null"], "/dev/null is not a folder"),
        (["predict", "latest"], "Missing argument"),
        (["predict", "latest", "a", "--threshold", "nan"], "'--threshold': nan is not in the range"),
        (["show", "nothing-there"], "There is no run"),
        (["evaluate", "latest", "--format", "xml"], "xml"),
        (["copy", "image-clasifier"], "Did you mean 'image-classifier'?"),
        (["resume", "latest", "--batch-size", "3"], "--batch-size is not among --epochs, --max-time"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_is_one_line_and_leaves_no_file(capfd, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run_command(capfd, *words)
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert len(err.splitlines()) == 1
    assert message in err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.exit(0)", "cannot be imported (SystemExit: 0)"),
        ("import nothing_there", "cannot be imported (ModuleNotFoundError: No module named 'nothing_there')"),
        ("x = 1\0", "null bytes"),
        ("def train(config): pass\nConfig = 3", "Config must be a subclass of RunConfig"),
        ("train = Config = type('Config', (), {})", "Config must be a subclass of RunConfig"),
        ("from dltoolkit.config import RunConfig as Config\ntrain = 3", "and train a function"),
    ],
)
def test_a_recipe_file_that_is_none_is_named(capfd, tmp_path, code, message):
    (tmp_path / "mine.py").write_text(code)
    exit_code, out, err = run_command(capfd, "train", str(tmp_path / "mine.py"))
    assert (exit_code, out, len(err.splitlines())) == (2, "", 1)
    assert f"{tmp_path / 'mine.py'} " in err
    assert message in err


@pytest.mark.parametrize(
    ("flags", "augment"),
    [
        (["--augment", "strong"], "strong"),
        (["--no-augment"], False),
        (["--epochs", "3", "--augment"], True),
        ([], True),
    ],
)
def test_train_takes_an_option_that_is_on_off_or_strong(flags, augment, capfd, trained):
    assert run_command(capfd, "train", "image-classifier", "digits", *flags)[0] == 0
    assert trained[0].augment == augment


@pytest.mark.parametrize("name", ["image-classifier", "image_classifier", "Image-Classifier"])
def test_train_takes_the_recipe_with_underscores_and_the_data_as_an_argument(name, capfd, trained):
    assert run_command(capfd, "train", name, "digits", "--epochs", "3", "--no-augment")[0] == 0
    assert (trained[0].data, trained[0].epochs, trained[0].augment) == ("digits", 3, False)


def test_train_reads_a_config_file_and_prefers_flags(capfd, trained, tmp_path):
    path = tmp_path / "options.yaml"
    path.write_text("model: gru\nepochs: 3\nunits: 8\nheader: false\n")
    code, _, err = run_command(capfd, "train", "sentiment-analyzer", "--config", str(path), "--epochs", "1")
    assert code == 0, err
    used = trained[0]
    assert (used.model, used.epochs, used.units, used.header) == ("gru", 1, 8, False)
    path.write_text("units: 8\n")
    assert run_command(capfd, "train", "sentiment-analyzer", "--config", str(path), "--model", "gru")[0] == 0
    assert (trained[1].model, trained[1].units) == ("gru", 8), "the modes are those of file and flags together"
    path.write_text("epoch: 3\n")
    code, _, err = run_command(capfd, "train", "sentiment-analyzer", "--config", str(path))
    assert (code, f"Error: {path}: There is no option 'epoch'; did you mean 'epochs'?" in err) == (2, True)


@dataclass(frozen=True, kw_only=True)
class Toy(RunConfig, OptimizerOptions):
    model: Literal["gpt", "lstm", "gru"] = option("gpt", "Model family", group="model")
    heads: int | None = option(None, "Attention heads", group="model", applies_to={"model": ("gpt",)})
    layers: int | None = option(None, "Layers (default: by family)", group="model", applies_to={"backbone": (None,)})
    units: int = option(8, "Units", group="model", applies_to={"model": ("gpt", "lstm")})
    backbone: str | None = option(None, "Pretrained network", group="model")
    augment: bool = option(True, "Augmentation", group="augmentation")
    mixup: float = option(0.0, "Mixup alpha", group="augmentation", applies_to={"augment": (True,)})
    flip: bool | None = option(None, "Flips", group="augmentation", applies_to={"task": ("image",)})


def test_help_row_shows_choices_default_and_modes():
    options = config.options(Toy)
    rows = {name: recipe_command.help_row(item, options) for name, item in options.items()}
    assert rows["model"] == ("--model gpt|lstm|gru", "Model family (default: gpt)")
    assert rows["heads"] == ("--heads N", "Attention heads (with --model gpt)")
    assert rows["layers"] == ("--layers N", "Layers (default: by family; without --backbone)")
    assert rows["units"] == ("--units N", "Units (default: 8; not with --model gru)")
    assert rows["augment"] == ("--[no-]augment", "Augmentation (default: on)")
    assert rows["mixup"] == ("--mixup X", "Mixup alpha (default: 0; with --augment)")
    assert rows["flip"] == ("--[no-]flip", "Flips (image data)")
    assert rows["max_time"][0] == "--max-time TIME"


def test_train_help_is_grouped_and_ends_with_an_example_of_the_recipe(capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for name, path in recipe.names().items():
        code, out, _ = run_command(capfd, "train", name, "--help")
        headings = [line for line in out.splitlines() if line.endswith(" options:")]
        assert headings[:3] == ["Data options:", "Model options:", "Optimization options:"], path
        assert (code, f"Example: dltoolkit train {name} --data " in " ".join(out.split())) == (0, True)
        assert out.count("--epochs N") == 1


def test_example_names_the_copied_file():
    module = SimpleNamespace(__doc__="Do this.\n\n    dltoolkit train this --data ~/flowers\n")
    assert recipe_command.example(module, "./mine.py") == "dltoolkit train ./mine.py --data ~/flowers"
    assert recipe_command.example(SimpleNamespace(__doc__=None), "x") == "dltoolkit train x --epochs 20"


def test_copy_writes_the_recipe_once(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run_command(capfd, "copy", "image_classifier", ".")
    assert (code, out.strip()) == (0, "image_classifier.py")
    assert Path("image_classifier.py").read_bytes() == recipe.names()["image-classifier"].read_bytes()
    code, _, err = run_command(capfd, "copy", "image-classifier", ".")
    assert (code, "exists already" in err) == (2, True)


@pytest.mark.parametrize("folder", [".", "my recipes", "{root}/there"])
def test_copy_prints_the_command_that_works(folder, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run_command(capfd, "copy", "image-classifier", folder.format(root=tmp_path))
    assert code == 0
    words = shlex.split(err.removeprefix("Train with it: "))
    assert words[:2] == ["dltoolkit", "train"]
    code, out, err = run_command(capfd, *words[1:], "--help")
    assert code == 0, err
    assert out.startswith(f"Usage: dltoolkit train {words[2]}"), out


def test_debug_shows_the_traceback(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLTOOLKIT_DEBUG", "")  # so that monkeypatch removes it after the test
    _, _, err = run_command(capfd, "show", "nothing-there", "--debug")
    assert "Traceback" in err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("Wrong."), 2, "Error: Wrong.\n"),
        (ValueError("first\nsecond"), 1, "Error: ValueError: first (--debug shows the traceback).\n"),
        (KeyboardInterrupt(), 128 + signal.SIGINT, "Error: Interrupted.\n"),
    ],
)
def test_exit_codes_tell_wrong_input_failure_and_interrupt(error, code, message, capfd, trained, monkeypatch):
    def fail(_):
        raise error

    monkeypatch.setattr(recipe.load("image-classifier"), "train", fail)
    assert run_command(capfd, "train", "image-classifier") == (code, "", message)


def test_interrupt_of_a_saved_run_prints_the_command_that_resumes(capfd, trained, monkeypatch):
    def interrupted(_):
        interrupt = KeyboardInterrupt()
        interrupt.resume_command, interrupt.signal = "dltoolkit resume x", signal.SIGTERM
        raise interrupt

    monkeypatch.setattr(recipe.load("image-classifier"), "train", interrupted)
    code, _, err = run_command(capfd, "train", "image-classifier")
    assert (code, err) == (143, "Error: Interrupted; the run is saved. Resume it with: dltoolkit resume x\n")


def test_another_keras_backend_is_refused_in_one_line(tmp_path):
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


def test_list_prints_recipes_data_backbones_and_runs(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run_command(capfd, "list")
    assert code == 0
    assert all(name in out for name in (*recipe.names(), "digits", "reviews", "No runs in saved_models yet."))
    assert "MobileNetV2" in run_command(capfd, "list", "backbones")[1]


def test_print_table_aligns_columns(capfd):
    tables.print_table(["name", "n"], [["a", 10], ["longer", 2]])
    assert capfd.readouterr().out.splitlines() == ["name    n", "a       10", "longer  2"]


def test_image_files_are_written_together_or_not_at_all(tmp_path, monkeypatch):
    images = np.zeros((3, 8, 8, 1), np.uint8)
    folder = tmp_path / "out"
    message = image_files.write(images, str(folder), grid=True, animated=True)
    assert message == f"3 images in {folder}, with grid.png and interpolation.gif"
    names = {"0001.png", "0002.png", "0003.png", "grid.png", "interpolation.gif"}
    assert {path.name for path in folder.iterdir()} == names

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="Cannot write images to .*: No space left on device"):
        image_files.write(images, str(tmp_path / "other"), grid=True, animated=False)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.fixture
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert list(tmp_path.iterdir()) == [], "doctor leaves nothing behind"


def test_doctor_reports_a_recipe_that_fails_and_continues(capfd, in_an_empty_folder, monkeypatch):
    def train(config):
        if "fails" in config.name:
            raise RuntimeError("out of memory")
        return SimpleNamespace(info={"plan": {"steps": 1}})

    def load(name):
        return SimpleNamespace(Config=lambda **options: SimpleNamespace(name=name, **options), train=train)

    monkeypatch.setattr(recipe, "names", lambda: ["fails", "works"])
    monkeypatch.setattr(recipe, "load", load)
    code, out, _ = run_command(capfd, "doctor")
    assert code == 1
    assert f"{'fails':20} failed: RuntimeError: out of memory" in out
    assert f"{'works':20} works: 1 step, evaluation" in out
    assert f"\ncpu cores  {os.cpu_count()}\n" in re.sub(" {2,}", "  ", out)


def test_doctor_trains_a_recipe(capfd, in_an_empty_folder, tmp_path_factory):
    assert doctor.try_recipe("sentiment-analyzer", tmp_path_factory.mktemp("runs")) == 0
    assert f"{'sentiment-analyzer':20} works" in capfd.readouterr().out


@pytest.mark.slow
def test_doctor_trains_every_recipe(capfd, in_an_empty_folder):
    code, out, _ = run_command(capfd, "doctor")
    assert code == 0
    assert all(f"{name:20} works" in out for name in recipe.names())


def test_scores_of_a_gan_have_different_names_and_the_precision_of_evaluate():
    scores = {"gan_train_accuracy": 0.8412, "frechet_distance": 0.136612, "kernel_distance": 0.0004567}
    real = {"classifier_accuracy": 0.951, "frechet_distance": 0.0123456, "kernel_distance": -0.00001}
    assert train._gan_rows(scores, real) == [
        ("GAN-train accuracy", "84.1 %  (real images: 95.1 %)"),
        ("Fréchet distance", "0.1366  (real images: 0.01235)"),
        ("kernel distance", "0.0004567  (real images: -1e-05)"),
    ]
    assert train._gan_rows({"accuracy": 0.9}, {}) == []
