"""What a model file may contain: networks of Keras, KerasHub and this package, and nothing that runs code."""

import json
import zipfile

import keras
import numpy as np
import pytest
from conftest import make_special
from keras.src.applications import convnext

from dltoolkit.errors import UserError
from dltoolkit.models.model_file import load_model

VALUES = np.array([[1.0, 2.0]], "float32")


def save(path, layer: keras.layers.Layer):
    inputs = keras.Input((2,))
    keras.Model(inputs, layer(inputs)).save(path)
    return path


def edit_config(path, **changed):
    """Change the description of the last layer in a model file."""
    with zipfile.ZipFile(path) as file:
        contents = {name: file.read(name) for name in file.namelist()}
    config = json.loads(contents["config.json"])
    config["config"]["layers"][-1].update(changed)
    with zipfile.ZipFile(path, "w") as file:
        for name, content in {**contents, "config.json": json.dumps(config)}.items():
            file.writestr(name, content)
    return path


@keras.saving.register_keras_serializable(package="recipe_of_a_user")
class Doubling(keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs


def test_load_model_takes_networks_of_keras_and_layers_that_a_recipe_has_registered(tmp_path):
    loaded = load_model(save(tmp_path / "a.keras", Doubling()))
    np.testing.assert_array_equal(loaded(VALUES), 2 * VALUES)
    load_model(save(tmp_path / "scale.keras", convnext.LayerScale(1.0, 2)))
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, "gelu", kernel_regularizer="l2")])
    model.compile("adam", lambda truth, predicted: 0.0)  # what a model was compiled with is not loaded
    model.save(tmp_path / "b.keras")
    loaded = load_model(tmp_path / "b.keras")
    np.testing.assert_allclose(loaded(VALUES), model(VALUES), atol=1e-6)
    assert not loaded.compiled


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"class_name": "Lambda"}, "contains Python code"),
        ({"class_name": "TFSMLayer"}, "contains Python code"),
        ({"registered_name": "unknown>Layer", "module": "unknown"}, "contains unknown>Layer, which is not a layer"),
        ({"class_name": "Popen", "module": "subprocess"}, "contains Popen, which is not a layer"),
        ({"class_name": "get_file", "module": "keras.utils"}, "contains get_file, which is not a layer"),
        ({"class_name": "StringLookup"}, "contains StringLookup, which is not a layer"),  # reads a file
        ({"class_name": "BertTokenizer", "module": "keras_hub.src.models.bert"}, "contains BertTokenizer"),
        (
            {"class_name": "Dense", "registered_name": "keras_hub>Tokenizer", "module": "keras_hub"},
            "hub>Tokenizer, which",
        ),
        ({"class_name": "layers.Lambda", "module": "keras"}, "contains layers.Lambda, which is not a layer"),
        ({"class_name": "ForiLoop", "module": "keras.src.ops.core"}, "contains ForiLoop, which is not a layer"),
        ({"class_name": "SGD", "module": "keras.optimizers"}, "contains SGD, which is not a layer"),
        ({"inbound_nodes": [{"args": [[[1.0, 2.0]]], "kwargs": {}}]}, "computes with constants only"),
    ],
)
def test_load_model_refuses_everything_else(changed, words, tmp_path):
    path = edit_config(save(tmp_path / "model.keras", keras.layers.Dense(2)), **changed)
    with pytest.raises(UserError, match=words):
        load_model(path)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("keras.applications.imagenet_utils", "decode_predictions"),  # downloads a file
        ("keras", "utils.plot_model"),
        ("keras", "config.set_floatx"),
        ("keras_hub", "keras_hub>upload_preset"),
        ("keras.ops", "logdet"),
    ],
)
def test_load_model_refuses_functions_that_are_no_activations(module, name, tmp_path):
    function = {"module": module, "class_name": "function", "config": name, "registered_name": name}
    path = save(tmp_path / "model.keras", keras.layers.Activation("relu"))
    edit_config(path, config={"name": "activation", "activation": function})
    with pytest.raises(UserError, match=f"contains {name}, which is not a layer"):
        load_model(path)


def test_load_model_ignores_what_a_nested_model_was_compiled_with(tmp_path):
    inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    inner.compile("adam", "mse", metrics=[keras.metrics.MeanIoU(num_classes=4)])
    model = load_model(save(tmp_path / "model.keras", inner))
    assert getattr(model.layers[-1], "optimizer", None) is None
    model.save(tmp_path / "again.keras")


def test_predictions_that_fail_or_are_no_numbers_name_the_model(tmp_path):
    inputs = keras.Input((2, 2))
    keras.Model(inputs, keras.ops.cholesky(inputs)).save(tmp_path / "model.keras")
    model = load_model(tmp_path / "model.keras")
    with pytest.raises(UserError, match="model.keras cannot be computed for these inputs .*Error"):
        model.predict_on_batch(-np.ones((1, 2, 2)))
    path = save(tmp_path / "model.keras", keras.layers.Activation("relu"))
    function = {"module": "keras.ops", "class_name": "function", "config": "isnan", "registered_name": None}
    model = load_model(edit_config(path, config={"name": "activation", "activation": function}))
    with pytest.raises(UserError, match="its outputs are of type bool, not floating-point numbers"):
        model.predict_on_batch(VALUES)


def test_load_model_refuses_weights_that_are_not_finite_and_outputs_that_are_integers(tmp_path):
    bad = keras.initializers.Constant(np.nan)
    with pytest.raises(UserError, match="its weights .*kernel are not finite"):
        load_model(save(tmp_path / "a.keras", keras.layers.Dense(2, kernel_initializer=bad)))
    with pytest.raises(UserError, match="its outputs are of type int32"):
        load_model(save(tmp_path / "b.keras", lambda x: keras.ops.cast(x, "int32")))


@pytest.mark.parametrize("content", [b"not a zip", None])
def test_load_model_refuses_damaged_files(content, tmp_path):
    path = tmp_path / "model.keras"
    if content:
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("config.json", "[" * 100_000)  # too deep to parse
    with pytest.raises(UserError, match="damaged or not a Keras model"):
        load_model(path)


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a socket"])
def test_load_model_refuses_special_files(kind, tmp_path):
    path = make_special(tmp_path / "model.keras", kind)
    with pytest.raises(UserError, match=f"model.keras is {kind}, not a regular file, and was not loaded"):
        load_model(path)
