"""Reading Keras models from .keras files of any origin."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from dltoolkit.errors import UserError

if TYPE_CHECKING:
    import keras


def load_model(path: Path) -> keras.Model:
    """Load a .keras file in safe mode, which refuses files that contain Python code.

    Raises:
        UserError: If the file contains code, is damaged, or is not a Keras model.
    """
    from dltoolkit import lazy

    lazy.import_tensorflow()
    import keras

    from dltoolkit import models

    # Importing these modules registers the layers that the file may name.
    _ = models.image.layers, models.text.layers, models.language.decoder_layers, models.fused
    needs_keras_hub = _names_keras_hub(path)
    if needs_keras_hub:
        lazy.keras_hub()
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        if models.keras_internals.refuses_code(error):
            raise UserError(
                f"{path} contains Python code and was not loaded; only load models that you trust."
            ) from None
        raise UserError(f"{path} is damaged or not a Keras model, and was not loaded.") from error
    if needs_keras_hub:
        models.fused.use_fused_ops(model)  # as in training
    model.jit_compile = False  # XLA's convolutions are slower than oneDNN's on a CPU
    return model


def _names_keras_hub(path: Path) -> bool:
    """Return whether a .keras file contains layers of KerasHub, which importing KerasHub registers."""
    try:
        with zipfile.ZipFile(path) as file:
            return b"keras_hub" in file.read("config.json")
    except (OSError, KeyError, zipfile.BadZipFile):
        return False  # load_model then raises an error
