"""Reading Keras models from .keras files of any origin: what a file may contain is a closed list."""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dltoolkit.errors import UserError, machine_error
from dltoolkit.files import NotRegularFile, open_regular
from dltoolkit.models import model_size

if TYPE_CHECKING:
    import keras

MAX_CONFIG_BYTES = 20_000_000  # of config.json, which is read into memory; the largest networks of Keras have 2 MB
MAX_LAYERS = 10_000  # of a network, with those within other layers; the largest networks of Keras have 1,100
CODE = frozenset(["Lambda", "TFSMLayer", "TorchModuleWrapper", "FlaxLayer", "JaxLayer", "__lambda__"])  # hold code
VALUES = frozenset(["__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__"])
# Modules of Keras and KerasHub, without "src", whose classes make up networks
CLASS_MODULES = {
    "keras": frozenset(
        [
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
    ),
    "keras_hub": frozenset(["layers", "models"]),
}
# Modules, without "src", of the functions that layers may apply to a tensor
FUNCTION_MODULES = frozenset(["keras.activations.activations", "keras.ops.nn", "keras.ops.numpy"])
HUB_FUNCTION = "keras_hub.utils.keras_utils.gelu_approximate"
CORE_OPERATIONS = frozenset(  # of keras.ops.core, whose others call functions
    [
        "Cast",
        "ConvertToTensor",
        "SaturateCast",
        "Scatter",
        "ScatterUpdate",
        "Slice",
        "SliceUpdate",
        "StopGradient",
        "Unstack",
    ]
)


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
    try:
        _check_parts(path, parts)
        with progress.phase("Loading the model"), model_size.limited_weights(stored), _without_compilation():
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
        model_size.check_tensors(model)
        _check_values(model)
    except model_size.RefusedError as error:
        raise model_size.refused(path, error) from None
    except UserError:
        raise
    except RecursionError:
        raise _too_deep(path) from None
    except Exception as error:  # layers fail in ways of their own
        raise _damaged(path) from error
    if needs_keras_hub:
        models.fused.use_fused_ops(model)  # as in training
    model.jit_compile = False  # XLA's convolutions are slower than oneDNN's on a CPU
    model.predict_on_batch = _naming(path, model.predict_on_batch)
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
    except model_size.RefusedError as error:
        raise model_size.refused(path, error) from None
    except NotRegularFile as error:
        raise UserError(f"{path} is {error.strerror}, and was not loaded.") from None
    except RecursionError:
        raise _too_deep(path) from None
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
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


def _check_parts(path: Path, parts: list[dict[str, Any]]) -> None:
    """Raise a UserError if a class or function is not one of those that a model file may contain.

    What counts is not how a file names them, but what Keras finds under these names.
    """
    import keras

    from dltoolkit.models import keras_internals

    found: dict[str, Any] = {}
    layers = 0
    for part in parts:
        name, function = str(part["class_name"]), part["config"] if part["class_name"] == "function" else None
        if name in CODE:
            raise _code_error(path)
        if name in VALUES:
            continue
        key = json.dumps([part.get("module"), name, part.get("registered_name"), function])
        if key not in found:
            found[key] = keras_internals.find_part(part)
        if not _is_allowed(found[key]):
            raise UserError(
                f"{path} contains {function or part.get('registered_name') or name}, which is not a layer that "
                "dltoolkit loads, so it was not loaded; give a model of Keras' own layers."
            )
        layers += isinstance(found[key], type) and issubclass(found[key], keras.Operation)
        if layers > MAX_LAYERS:
            raise model_size.refused(path, model_size.SizeError(f"it has more than {MAX_LAYERS:,} layers"))
        calls = part.get("inbound_nodes")
        if isinstance(calls, list) and not all(_reads_tensor(call) for call in calls):
            error = model_size.RefusedError(f"its layer {part.get('name')} computes with constants only")
            raise model_size.refused(path, error)


def _is_allowed(found: Any) -> bool:
    """Return whether a class or function, or None, is one that a model file may contain."""
    import keras

    package, *modules = [word for word in getattr(found, "__module__", "").split(".") if word != "src"]
    if package not in CLASS_MODULES:  # registered by this package or by a recipe
        return any(found is each for each in keras.saving.get_custom_objects().values())
    if not isinstance(found, type):
        module = ".".join([package, *modules])
        return module in FUNCTION_MODULES or f"{module}.{found.__name__}" == HUB_FUNCTION
    if modules[:2] == ["ops", "core"] and found.__name__ not in CORE_OPERATIONS:
        return False
    names = {base.__name__ for base in found.__mro__}
    reads_files = hasattr(found, "load_assets") or "PreprocessingLayer" in names  # the latter of KerasHub
    return bool(modules) and modules[0] in CLASS_MODULES[package] and not reads_files and not names & CODE


def _reads_tensor(call: Any) -> bool:
    """Return whether the description of a layer's call, or a part of it, holds the output of another layer."""
    if isinstance(call, dict):
        name = call.get("class_name")
        return name == "__keras_tensor__" or (name is None and any(_reads_tensor(value) for value in call.values()))
    if isinstance(call, list):
        return any(_reads_tensor(value) or _is_legacy_tensor(value) for value in call)
    return False


def _is_legacy_tensor(value: Any) -> bool:
    """Return whether a value is the output of another layer as Keras 2 describes it: its name and two numbers."""
    return isinstance(value, list) and len(value) >= 3 and isinstance(value[0], str) and isinstance(value[1], int)


def _without_compilation() -> contextlib.AbstractContextManager[None]:
    """Ignore inside the block what models within a model were compiled with, in this thread."""
    import keras

    from dltoolkit.models import keras_internals

    return keras_internals.replaced_method(keras.Model, "compile_from_config", lambda *_: None)


def _check_values(model: keras.Model) -> None:
    """Raise a RefusedError if the outputs of a model are not of floating point, or weights are not finite."""
    import keras

    _check_outputs(model.outputs)
    for weight in model.weights:
        if keras.backend.is_float_dtype(weight.dtype) and not bool(keras.ops.all(keras.ops.isfinite(weight))):
            raise model_size.RefusedError(f"its weights {weight.path} are not finite")


def _check_outputs(outputs: Any) -> None:
    """Raise a RefusedError if tensors or arrays are not of floating-point numbers."""
    import keras

    for output in keras.tree.flatten(outputs):
        if not keras.backend.is_float_dtype(dtype := str(output.dtype)):
            raise model_size.RefusedError(f"its outputs are of type {dtype}, not floating-point numbers")


def _naming(path: Path, predict_on_batch: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that raises a UserError with the model's path if the model cannot compute its outputs."""

    def predict(*args: Any, **options: Any) -> Any:
        try:
            outputs = predict_on_batch(*args, **options)
            _check_outputs(outputs)
            return outputs
        except Exception as error:
            if isinstance(error, UserError) or machine_error(error):
                raise
            reason = error if isinstance(error, model_size.RefusedError) else type(error).__name__
            raise UserError(f"{path} cannot be computed for these inputs ({reason}): give another model.") from error

    return predict


def _code_error(path: Path) -> UserError:
    return UserError(f"{path} contains Python code and was not loaded; only load models that you trust.")


def _too_deep(path: Path) -> UserError:
    reason = "its layers lie within each other, or follow each other, more often than Python can follow"
    return model_size.refused(path, model_size.RefusedError(reason))


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is damaged or not a Keras model, and was not loaded.")
