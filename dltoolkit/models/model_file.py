"""Reading Keras models from .keras files of any origin: what a file may contain is a closed list."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dltoolkit.errors import UserError
from dltoolkit.files import NotRegularFile, open_regular
from dltoolkit.models import model_size

if TYPE_CHECKING:
    import keras

MAX_CONFIG_BYTES = 50_000_000  # of config.json, which is read into memory; the largest networks of Keras have 2 MB
CODE = frozenset(["Lambda", "TFSMLayer", "TorchModuleWrapper", "FlaxLayer", "JaxLayer", "__lambda__"])  # hold code
# Modules of Keras and KerasHub, without "src", whose classes and functions make up networks
KERAS_MODULES = frozenset(
    [
        "activations",
        "applications",
        "constraints",
        "dtype_policies",
        "initializers",
        "layers",
        "models",
        "ops",
        "quantizers",
        "random",
        "regularizers",
    ]
)
KERAS_HUB_MODULES = frozenset(["layers", "models"])
READ_FILES = ("Lookup", "TextVectorization", "Tokenizer", "Preprocessor")  # ends of the names of layers that read files


def load_model(path: Path) -> keras.Model:
    """Load a .keras file in safe mode, which refuses files that contain Python code.

    Raises:
        UserError: If the file contains code, layers that are neither of Keras, KerasHub nor this package, or is damaged
            or not a Keras model.
    """
    from dltoolkit import lazy, progress

    parts, needs_keras_hub, stored = _read_parts(path)
    lazy.import_tensorflow()
    import keras

    from dltoolkit import models

    # Importing these modules registers the layers that the file may name.
    _ = models.image.layers, models.text.layers, models.language.decoder_layers, models.fused
    if needs_keras_hub:
        lazy.keras_hub()
    for part in parts:
        _check_part(path, part)
    try:
        with progress.phase("Loading the model"), model_size.limited_weights(stored):
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
        model_size.check_tensors(model)
    except model_size.SizeError as error:
        raise model_size.too_large(path, error) from None
    except Exception as error:
        if models.keras_internals.refuses_code(error):
            raise _code_error(path) from None
        raise _damaged(path) from error
    if needs_keras_hub:
        models.fused.use_fused_ops(model)  # as in training
    model.jit_compile = False  # XLA's convolutions are slower than oneDNN's on a CPU
    return model


def _read_parts(path: Path) -> tuple[list[dict[str, Any]], bool, int]:
    """Return what :func:`_parts` yields for a .keras file, whether it names KerasHub, and its bytes of weights."""
    try:
        with open_regular(path) as opened, zipfile.ZipFile(opened) as file:
            if file.getinfo("config.json").file_size > MAX_CONFIG_BYTES:
                raise model_size.SizeError(f"its description has more than {MAX_CONFIG_BYTES // 1_000_000} MB")
            stored = model_size.check_archive(file, path)
            content = file.read("config.json")
        return list(_parts(json.loads(content))), b"keras_hub" in content, stored
    except model_size.SizeError as error:
        raise model_size.too_large(path, error) from None
    except NotRegularFile as error:
        raise UserError(f"{path} is {error.strerror}, and was not loaded.") from None
    except (OSError, KeyError, ValueError, RecursionError, zipfile.BadZipFile) as error:
        raise _damaged(path) from error


def _parts(config: Any) -> Iterator[dict[str, Any]]:
    """Yield the descriptions of all classes and functions in a description that loading would create or look up."""
    if isinstance(config, dict):
        if "class_name" in config and "config" in config:
            yield config
        for key, value in config.items():
            if key != "compile_config":  # is not loaded
                yield from _parts(value)
    elif isinstance(config, list):
        for value in config:
            yield from _parts(value)


def _check_part(path: Path, part: dict[str, Any]) -> None:
    """Raise a UserError if a class or function is not one of those that a model file may contain."""
    import keras

    name, registered, module = str(part["class_name"]), part.get("registered_name"), part.get("module")
    if name in CODE:
        raise _code_error(path)
    package, *modules = [word for word in str(module or "").split(".") if word != "src"]
    if name.startswith("__") or (isinstance(registered, str) and ">" in registered):
        allowed = name.startswith("__") or keras.saving.get_registered_object(registered) is not None
    elif package == "keras":
        allowed = not modules or modules[0] in KERAS_MODULES
    elif package == "keras_hub":
        allowed = bool(modules) and modules[0] in KERAS_HUB_MODULES
    else:
        allowed = package == "builtins" and name == "function"
    if not allowed or name.endswith(READ_FILES):
        raise UserError(
            f"{path} contains {registered or name}, which is not a layer that dltoolkit loads, so it was not loaded; "
            "give a model of Keras' own layers."
        )


def _code_error(path: Path) -> UserError:
    return UserError(f"{path} contains Python code and was not loaded; only load models that you trust.")


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is damaged or not a Keras model, and was not loaded.")
