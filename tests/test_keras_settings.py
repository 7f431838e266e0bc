"""The user's settings of Keras, which neither stop a command with an error of Keras nor change a model."""

import subprocess
import sys

import keras
import pytest

from dltoolkit import keras_settings, lazy
from dltoolkit.errors import UserError


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    return tmp_path / "keras.json"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"epsilon": "tiny"}', "has an epsilon that is no fraction"),
        (b'{"epsilon": 1}', "has an epsilon that is no fraction"),
        (b'{"floatx": "float8"}', "has a floatx other than"),
        (b'{"image_data_format": "channels"}', "has an image_data_format other than"),
        (b"[]", "holds no settings"),
        (b'{"epsilon": ', "is not valid JSON"),
        (b"[" * 90_000, r"is not valid JSON \(nested too deeply\)"),
        (b"\xff\xfe", "is not UTF-8 text"),
    ],
)
def test_settings_that_keras_refuses_are_named(settings, content, problem):
    settings.write_bytes(content)
    with pytest.raises(
        UserError, match=f"^{settings}, the settings of Keras, {problem}.*(correct or )?delete it"
    ) as error:
        keras_settings.check_file()
    assert len(str(error.value)) < 250


@pytest.mark.parametrize(
    "content", ["", "{}", '{"image_data_format": "channels_first", "floatx": "float64", "epsilon": 1e-3}']
)
def test_other_settings_are_no_error(settings, content):
    settings.write_text(content)
    keras_settings.check_file()
    settings.unlink()
    keras_settings.check_file()


def test_the_file_is_checked_before_keras_is_imported(settings):
    settings.write_text('{"epsilon": "tiny"}')
    code = "from dltoolkit import lazy\nlazy.import_tensorflow()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.splitlines()[-1].startswith("dltoolkit.errors.UserError: ")


def test_models_do_not_depend_on_settings(monkeypatch):
    keras.config.set_image_data_format("channels_first")
    keras.config.set_epsilon(1e-3)
    try:
        with pytest.raises(UserError, match="channels first"):
            lazy.import_tensorflow()
    finally:
        keras_settings.use_defaults()
    lazy.import_tensorflow()
    assert (keras.config.image_data_format(), keras.config.floatx()) == ("channels_last", "float32")
    assert keras.config.epsilon() == 1e-7
