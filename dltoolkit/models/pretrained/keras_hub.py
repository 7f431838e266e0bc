"""Presets of KerasHub: which ones exist, how they are downloaded, and why one cannot be loaded."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dltoolkit import lazy, strict_json
from dltoolkit.errors import UserError, did_you_mean, machine_error, root_cause
from dltoolkit.files import refuse_special_files, user_path
from dltoolkit.models import model_size
from dltoolkit.network import answers, offline

UNREADABLE = (json.JSONDecodeError, strict_json.InvalidJSON)  # errors of files that are not JSON
SCHEMES = {"hf://": "https://huggingface.co", "kaggle://": "https://api.kaggle.com"}  # each with its server


def is_preset(name: str) -> bool:
    """Return whether a name can only be a preset, because it has a scheme or is a folder with a config.json."""
    return name.startswith(tuple(SCHEMES)) or os.path.isfile(user_path(name) / "config.json")


def preset_names() -> list[str]:
    """Return the names of the presets of KerasHub, or an empty list if it is not installed."""
    return list(lazy.keras_hub().models.Backbone.presets) if importlib.util.find_spec("keras_hub") else []


def fetch(preset: str, *class_names: str) -> list[Any]:
    """Return parts of a preset, such as its Backbone and its Tokenizer, downloading missing files.

    Args:
        preset: A name, ``hf://…``, ``kaggle://…`` or a local folder, which may be one of Hugging Face.
        class_names: The parts: "Backbone", "Tokenizer" or "ImageConverter".

    Raises:
        UserError: If the preset does not exist, is damaged or incomplete, holds a pipe, a device or a link to another
            place, or cannot be downloaded.
    """
    folder = user_path(preset)
    if folder.is_dir():
        refuse_special_files(folder, link_targets=_link_targets(folder))
    hub = lazy.keras_hub()
    if "Tokenizer" in class_names:
        _check_tensorflow_text()
    modules = {"Backbone": hub.models, "Tokenizer": hub.tokenizers, "ImageConverter": hub.layers}
    classes = [getattr(modules[name], name) for name in class_names]
    try:
        if folder.is_dir():
            with model_size.limited_to_folder(folder):
                return [part.from_preset(str(folder)) for part in classes]
        with _cached_if_unreachable(preset) as source:
            return [part.from_preset(source) for part in classes]
    except UserError:
        raise
    except Exception as error:  # KerasHub raises many kinds
        if machine_error(error) and not isinstance(error, OSError):  # too little memory
            raise
        raise _preset_error(error, preset) from error


def _link_targets(folder: Path) -> list[Path]:
    """Return the folders that links in a preset may point into: itself, and the files of its Hugging Face cache."""
    folder = folder.resolve()
    return [folder, folder.parent.parent / "blobs"] if folder.parent.name == "snapshots" else [folder]


@contextlib.contextmanager
def _cached_if_unreachable(preset: str) -> Iterator[str]:
    """Restrict downloads to the caches of this machine if the server of a preset does not answer.

    Yields:
        The preset to load, which names a cached version if the server would have to be asked for the newest one.
    """
    scheme = "hf://" if preset.startswith("hf://") else "kaggle://"
    if answers(SCHEMES[scheme]):
        yield preset
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(offline())
        if scheme == "hf://":
            stack.enter_context(_hugging_face_offline())
        yield preset if scheme == "hf://" else _newest_cached_version(preset)


@contextlib.contextmanager
def _hugging_face_offline() -> Iterator[None]:
    """Let huggingface_hub read its cache only; it would retry for 23 seconds otherwise.

    The environment variable ``HF_HUB_OFFLINE`` is read when huggingface_hub is imported, the constant at each call.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _newest_cached_version(preset: str) -> str:
    """Return a ``kaggle://`` preset with the newest version in the cache, because Kaggle is asked for it otherwise."""
    from kagglehub import config

    folder = Path(config.get_cache_folder()) / "models" / preset.removeprefix("kaggle://")
    if not preset.startswith("kaggle://") or not folder.is_dir():
        return preset
    versions = [int(version.name) for version in folder.iterdir() if version.name.isdecimal()]
    return f"{preset}/{max(versions)}" if versions else preset


def tokenizer_settings(preset: str) -> dict[str, Any]:
    """Return the settings of the tokenizer of a Hugging Face preset; empty for other presets.

    Args:
        preset: The preset, which :func:`fetch` has loaded.

    Returns:
        The content of tokenizer_config.json.
    """
    path = user_path(preset) / "tokenizer_config.json"
    if preset.startswith("hf://"):
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(preset.removeprefix("hf://"), "tokenizer_config.json")
        path = Path(cached) if isinstance(cached, str) else path
    try:
        settings = strict_json.loads(path.read_text(encoding="utf-8"), nan=True) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise _preset_error(error, preset) from error
    return settings if isinstance(settings, dict) else {}


def _check_tensorflow_text() -> None:
    """Raise a UserError if tensorflow-text is missing, which KerasHub would notice only while it loads a tokenizer."""
    try:
        import tensorflow_text  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"The tokenizers of KerasHub need tensorflow-text, which cannot be imported ({error}): install the version "
            "for your TensorFlow, or give a run of dltoolkit as --backbone."
        ) from error


def set_dropout(network: Any, rate: float) -> None:
    """Set the rate of all dropout layers within a network."""
    import keras

    from dltoolkit.models import keras_internals

    for layer in keras_internals.all_layers(network):
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = rate


@functools.lru_cache(maxsize=1)
def image_converter(preset: str) -> Any:
    """Return the ImageConverter of a preset for images, which has their size and scaling."""
    (converter,) = fetch(preset, "ImageConverter")
    return converter


def image_size(preset: str) -> int | None:
    """Return the side in pixels of the images that a preset was trained on, or None if it has none."""
    size = image_converter(preset).image_size
    return size[0] if size else None


def _preset_error(error: Exception, preset: str) -> UserError:
    """Return an error that explains why a preset could not be loaded."""
    import keras_hub

    from dltoolkit.models import keras_internals

    message = str(error)
    is_folder = os.path.isdir(user_path(preset))
    if is_folder:
        if isinstance(error, FileNotFoundError):
            missing = message.split("`")[1] if "`" in message else message
            return UserError(f"{preset} has no {missing}, which a model needs: download all of its files again.")
        if isinstance(error, ImportError):
            return UserError(f"{preset} cannot be read without another package ({error}).")
        if isinstance(error, (*UNREADABLE, OSError)) or "Safetensor" in type(error).__name__:
            return UserError(f"{preset} contains a damaged file ({error}): download it again.")
    for class_name, inputs in {"Tokenizer": "texts", "ImageConverter": "images"}.items():
        if keras_internals.preset_lacks(error, class_name):
            return UserError(f"The network in {preset} does not read {inputs}: give another --backbone.")
    has_scheme = preset.startswith(tuple(SCHEMES))
    if not is_folder and not has_scheme and preset not in keras_hub.models.Backbone.presets:
        near = did_you_mean(preset, keras_hub.models.Backbone.presets)
        return UserError(f"KerasHub has no preset '{preset}'.{near}")
    unreachable = re.search("onnect|resol|retries|offline|no config.json|HTTP", f"{type(error).__name__} {message}")
    if is_folder or not unreachable:
        return UserError(f"KerasHub cannot read {preset} as a model ({root_cause(error)}).")
    cache = "~/.cache/huggingface/hub" if preset.startswith("hf://") else "~/.cache/kagglehub/models"
    return UserError(
        f"The files of {preset} are not on this machine (looked for under {cache}) and cannot be downloaded: check the "
        "connection, or download its config.json, weights and tokenizer elsewhere and give their folder as --backbone."
    )
