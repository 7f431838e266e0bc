"""Keras models in .keras files, which may come from anybody."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from dltoolkit.errors import UserError

if TYPE_CHECKING:
    import keras


def load_model(path: Path) -> keras.Model:
    """Load a .keras file, in safe mode always: a file that hides code is refused."""
    from dltoolkit import lazy

    lazy.import_tensorflow()
    import keras

    from dltoolkit import models

    # registers the layers that the file may name
    _ = models.image.layers, models.text.layers, models.language.decoder_layers, models.fused
    of_hub = _names_hub(path)
    if of_hub:
        lazy.keras_hub()
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        text = str(error)
        if "safe_mode" in text or "unsafe" in text or "lambda" in text.lower():
            raise UserError(
                f"{path} holds code of its own and was not loaded; only load models that you trust."
            ) from None
        raise UserError(f"{path} is damaged or no Keras model, and was not loaded.") from error
    if of_hub:
        models.fused.quicken(model)  # as it was when it was trained
    model.compile(jit_compile=False)  # XLA's convolutions are slower than oneDNN's on a CPU
    return model


def _names_hub(path: Path) -> bool:
    """Tell whether a .keras file holds layers of KerasHub, which register themselves when it is imported."""
    try:
        with zipfile.ZipFile(path) as file:
            return b"keras_hub" in file.read("config.json")
    except (OSError, KeyError, zipfile.BadZipFile):
        return False  # loading says what is wrong
