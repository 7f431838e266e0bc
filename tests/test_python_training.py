"""Training from Python: data, models and callbacks that a program gives, and resuming such a run."""

import json
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
from conftest import run_command, same_metrics

import dltoolkit
from dltoolkit import recipe
from dltoolkit.errors import UserError
from dltoolkit.models.image import classifiers
from dltoolkit.training import custom_model

image_classifier = recipe.load("image-classifier")
sentiment_analyzer = recipe.load("sentiment-analyzer")
fine_tune = recipe.load("fine-tune")
SHAPE, CLASSES = (8, 8, 1), 3


def shades(count=60, seed=0):
    """Return noisy images (count, 8, 8) of three brightnesses, and their names."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = 60 + 70 * labels[:, None, None] + rng.integers(-20, 20, (count, 8, 8))
    return images.astype(np.uint8), np.array(["dark", "gray", "light"])[labels]


def small(input_shape, classes, **options):
    """Build a model of one layer."""
    inputs = keras.Input(input_shape)
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, keras.layers.Dense(classes, name="head", **options)(x), name="small")


class StopAfter(keras.callbacks.Callback):
    """Stop training after an epoch, and collect the logs."""

    def __init__(self, epochs):
        super().__init__()
        self.epochs, self.logs = epochs, []

    def on_epoch_end(self, epoch, logs=None):
        self.logs.append(dict(logs))
        self.model.stop_training = len(self.logs) == self.epochs


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train a model of this file on arrays, and stop it with a callback after two of nine epochs."""
    config = image_classifier.Config(
        data=shades(), epochs=9, batch_size=8, learning_rate=0.02, optimizer="adam", tta=False, augment=False,
        out_dir=str(tmp_path_factory.mktemp("runs")),
    )  # fmt: skip
    callback = StopAfter(2)
    return image_classifier.train(config, model=small, callbacks=[callback]), callback


def test_a_run_with_own_model_data_and_callbacks(trained):
    run, callback = trained
    info = json.loads((run.path / "run.json").read_text())
    assert run.path.name == "arrays-1"
    assert (info["config"]["data"], info["config"]["model"]) == ("python:arrays", "custom")
    assert (info["data"]["source"], info["model"]["name"]) == ("python:arrays", "small")
    assert run.labels == ["dark", "gray", "light"]
    assert [row["epoch"] for row in run.history] == [1, 2]
    assert (len(callback.logs), info["state"]) == (2, "finished")
    assert {"loss", "accuracy", "val_loss", "val_accuracy"} <= callback.logs[0].keys()
    assert same_metrics(run.evaluate(), run.metrics["test"])
    images, names = shades(9, seed=5)
    reloaded = dltoolkit.load(run.path)
    assert reloaded.predict_proba(images) == pytest.approx(run.predict_proba(images), abs=1e-6)
    assert reloaded.evaluate((images, names))["accuracy"] == pytest.approx(
        np.mean([p.label == name for p, name in zip(reloaded.predict(images), names)])
    )


def test_temperature_is_part_of_a_custom_model(trained):
    run, _ = trained
    assert run.info["calibration"]["temperature"] != 1
    assert run.model.layers[-1].name == "temperature"
    assert run.embed(shades()[0]).shape == (60, 64)


def test_resume_asks_for_the_data_and_the_model(trained, capfd, tmp_path):
    run, _ = trained
    reloaded = dltoolkit.load(run.path)
    before = (run.path / "run.json").read_bytes()
    for call, message in (
        (lambda: dltoolkit.resume(run.path, epochs=3), r"dltoolkit\.resume\(run, data=…\)"),
        (lambda: dltoolkit.resume(run.path, epochs=3, data=shades()), r"dltoolkit\.resume\(run, model=…\)"),
        (lambda: dltoolkit.resume(run.path, epochs=3, data=shades(seed=1), model=small), "have changed"),
        (lambda: dltoolkit.resume(run.path, epochs=3, data={1, 2}, model=small), "data must be a path or name"),
        (lambda: reloaded.evaluate(), r"python:arrays stands for data that a Python program held"),
    ):
        with pytest.raises(UserError, match=message):
            call()
    code, _, err = run_command(capfd, "resume", str(run.path), "--epochs", "3")
    assert (code, "from Python, as dltoolkit.resume(run, data=…)" in err, len(err.strip().splitlines())) == (2, True, 1)
    assert (run.path / "run.json").read_bytes() == before


def test_a_new_process_says_in_one_sentence_that_resume_needs_the_data(trained):
    run, _ = trained
    code = f"""
import dltoolkit
try:
    dltoolkit.resume(dltoolkit.load({str(run.path)!r}), epochs=3)
except dltoolkit.UserError as error:
    print(error)
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == (
        f"{run.path} was trained on data that a Python program held (python:arrays), and that are not stored: resume "
        "it from Python, as dltoolkit.resume(run, data=…).\n"
    )


def test_resume_names_options_as_python_does(trained):
    run, _ = trained
    with pytest.raises(UserError, match="has already trained 2 epochs: give a larger number of epochs") as caught:
        dltoolkit.resume(run, epochs=2, model=small)
    assert "--" not in str(caught.value)
    with pytest.raises(UserError, match="^epochs must be a whole number, not 'many'"):
        dltoolkit.resume(run, epochs="many", model=small)  # and the run still has its data


@pytest.mark.slow
def test_resume_continues_with_the_same_data(trained):
    run, _ = trained
    resumed = dltoolkit.resume(run.path, epochs=4, data=shades(), model=small)
    assert [row["epoch"] for row in resumed.history] == [1, 2, 3, 4]
    again = dltoolkit.resume(resumed, epochs=5, model=small)
    assert len(again.history) == 5, "a run of this process still has its data"


@pytest.mark.slow
def test_a_custom_text_model_reads_token_ids(tmp_path):
    def build(input_shape, classes):
        inputs = keras.Input(input_shape, dtype="int32")
        x = keras.layers.GlobalMaxPooling1D()(keras.layers.Embedding(200, 8)(inputs))
        return keras.Model(inputs, keras.layers.Dense(classes)(x))

    words = {"good": ["lovely", "great"], "bad": ["dreadful", "poor"]}
    pairs = [(f"a {words[name][i % 2]} film number {i}", name) for i in range(40) for name in words]
    config = sentiment_analyzer.Config(
        data=pairs, vocab_size=200, epochs=6, learning_rate=0.05, optimizer="adam", out_dir=str(tmp_path)
    )
    run = sentiment_analyzer.train(config, model=build)
    assert run.metrics["test"]["accuracy"] > 0.9
    assert [each.label for each in dltoolkit.load(run.path).predict(["lovely", "dreadful"])] == ["good", "bad"]
    assert run.preprocess("lovely film").shape == (1, 2)
    tuned = fine_tune.Config(data=pairs, backbone=str(run.path), epochs=2, batch_size=16, out_dir=str(tmp_path))
    assert dltoolkit.load(fine_tune.train(tuned).path).predict("lovely").label == "good"


def layer_of_this_file(shape, classes):
    class Own(keras.layers.Layer):
        def call(self, x):
            return x

    model = small(shape, classes)
    return keras.Model(model.input, Own()(model.output))


def with_lambda(shape, classes):
    layers = [keras.Input(shape), keras.layers.Lambda(lambda x: x / 255.0), keras.layers.Flatten()]
    return keras.Sequential([*layers, keras.layers.Dense(classes)])


def two_outputs(shape, classes):
    model = small(shape, classes)
    return keras.Model(model.input, [model.output, model.output])


class Subclassed(keras.Model):
    def call(self, x):
        return x


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda shape, classes: small(shape, classes + 1), r"\(batch, 4\), but 3 classes need logits"),
        (lambda shape, classes: small((8, 8, 3), classes), r"\(batch, 8, 8, 3\), but the data are \(batch, 8, 8, 1\)"),
        (lambda shape, classes: small(shape, classes, activation="softmax"), "returns probabilities"),
        (lambda shape, classes: None, "must return a keras.Model, not a NoneType"),
        (layer_of_this_file, "could not be opened again"),
        (with_lambda, r"opened again \(its file contains Python code and was not loaded\): use layers of Keras only"),
        (two_outputs, "1 inputs and 2 outputs"),
        (Subclassed(), "no symbolic input"),
        (np.zeros(3), "must be a keras.Model or a function, not an array"),
    ],
)
def test_unsuitable_models_are_refused_in_one_sentence(model, message):
    with pytest.raises(UserError, match=message) as caught:
        custom_model.build(model, SHAPE, CLASSES)
    assert len(str(caught.value)) < 300


def test_models_of_every_form_are_taken():
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
    pooled = keras.Sequential([keras.Input((None, None, 1)), keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(3)])
    for given in (model, pooled, small(SHAPE, 3), small):
        assert custom_model.build(given, SHAPE, CLASSES).output_shape == (None, 3)


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        (keras.callbacks.EarlyStopping(), "must be a list of Keras callbacks"),
        ([print], "one is a builtin_function_or_method"),
        ([keras.callbacks.ReduceLROnPlateau()], "follows a schedule of its own"),
        ([keras.callbacks.BackupAndRestore("x")], "resumed with dltoolkit.resume"),
    ],
)
def test_unsuitable_callbacks_are_refused(callbacks, message):
    with pytest.raises(UserError, match=message):
        custom_model.check_callbacks(callbacks)


def test_options_and_models_that_contradict_each_other_are_refused(tmp_path, capfd):
    config = image_classifier.Config(data=shades(), out_dir=str(tmp_path))
    with pytest.raises(UserError, match=r"model 'vit' of the config has no effect with train\(model=…\)"):
        image_classifier.train(replace(config, model="vit"), model=small)
    with pytest.raises(UserError, match="dropout has no effect with model='custom'"):
        image_classifier.train(replace(config, dropout=0.1), model=small)
    code, _, err = run_command(capfd, "train", "image-classifier", "--model", "custom", "--out-dir", str(tmp_path))
    assert (code, "A custom model is given from Python" in err) == (2, True)
    assert not list(tmp_path.iterdir())


def test_an_unbuilt_sequential_model_becomes_a_functional_one_for_flips():
    layers = [keras.layers.Flatten(), keras.layers.Dense(3)]
    model = custom_model.build(keras.Sequential(layers), (8, 8, 1), 3)
    assert classifiers.with_flip_tta(model).output_shape == (None, 3)
