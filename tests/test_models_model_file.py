"""What a model file may contain: networks of Keras, KerasHub and this package, and nothing that runs code."""

import json
import zipfile

import keras
import numpy as np
import pytest
from conftest import make_special

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
    ],
)
def test_load_model_refuses_everything_else(changed, words, tmp_path):
    path = edit_config(save(tmp_path / "model.keras", keras.layers.Dense(2)), **changed)
    with pytest.raises(UserError, match=words):
        load_model(path)


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
