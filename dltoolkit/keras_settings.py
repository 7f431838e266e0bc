"""The settings of Keras in ``keras.json``: models of dltoolkit do not depend on them, and errors in them are named."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from dltoolkit import strict_json
from dltoolkit.errors import UserError
from dltoolkit.files import open_regular

MAX_BYTES = 100_000
FLOAT_TYPES, DATA_FORMATS = ("float16", "float32", "float64"), ("channels_last", "channels_first")


def check_file() -> None:
    """Raise a UserError if Keras, which is not imported yet, would stop at its settings with an error of its own."""
    path = _path()
    try:
        with open_regular(path) as file:
            text = file.read(MAX_BYTES).decode()
    except OSError:
        return
    except ValueError:
        raise UserError(f"{path}, the settings of Keras, is not UTF-8 text: delete it.") from None
    try:
        settings = strict_json.loads(text, nan=True) if text.strip() else {}
    except strict_json.InvalidJSON as error:
        raise UserError(f"{path}, the settings of Keras, is not valid JSON ({error}): delete it.") from None
    problem = None
    if not isinstance(settings, dict):
        problem = "holds no settings"
    elif not isinstance(settings.get("epsilon", 1e-7), float):
        problem = "has an epsilon that is no fraction such as 1e-07"
    elif settings.get("floatx", "float32") not in FLOAT_TYPES:
        problem = "has a floatx other than float16, float32 and float64"
    elif settings.get("image_data_format", "channels_last") not in DATA_FORMATS:
        problem = "has an image_data_format other than channels_last and channels_first"
    if problem:
        raise UserError(f"{path}, the settings of Keras, {problem}: correct or delete it.")


def use_defaults() -> None:
    """Set Keras, which has just been imported, to its own defaults instead of those in the user's file."""
    config = sys.modules["keras"].config
    config.set_image_data_format("channels_last")
    config.set_floatx("float32")
    config.set_epsilon(1e-7)


def check_imported() -> None:
    """Raise a UserError if the user's program has imported Keras and set it to another order of the channels."""
    if sys.modules["keras"].config.image_data_format() != "channels_last":
        raise UserError(
            "Keras is set to images with channels first, but dltoolkit has them last: call "
            "keras.config.set_image_data_format('channels_last')."
        )


def _path() -> Path:
    """Return the path of keras.json as Keras finds it."""
    home = os.path.expanduser("~")
    folder = os.environ.get("KERAS_HOME") or os.path.join(home if os.access(home, os.W_OK) else "/tmp", ".keras")
    return Path(os.path.expanduser(os.path.join(folder, "keras.json")))
