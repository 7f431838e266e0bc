"""KerasHub's trained networks: fetched, and what went wrong said in one sentence."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

from dltoolkit import lazy
from dltoolkit.errors import UserError, suggestion
from dltoolkit.models.pretrained import downloads

SCHEMES = {"hf://": "https://huggingface.co", "kaggle://": "https://api.kaggle.com"}


def is_preset(name: str) -> bool:
    """Tell whether a backbone's name can only mean a preset: by its scheme, or as a folder with a config.json."""
    return name.startswith(tuple(SCHEMES)) or (Path(name).expanduser() / "config.json").is_file()


def names() -> list[str]:
    """Return the names of KerasHub's presets; none where it is not installed."""
    return list(lazy.keras_hub().models.Backbone.presets) if importlib.util.find_spec("keras_hub") else []


def fetch(preset: str, *parts: str) -> list[Any]:
    """Return parts of a preset, such as its Backbone and its Tokenizer; what is not here is downloaded.

    Args:
        preset: a name, ``hf://…``, ``kaggle://…`` or a local folder, also one of Hugging Face's.
        parts: names of KerasHub's classes that have ``from_preset``.

    Raises:
        UserError: if there is no such preset, it is damaged or incomplete, or it cannot be downloaded.
    """
    hub = lazy.keras_hub()
    if "Tokenizer" in parts:
        _check_tokenizers()
    path = Path(preset).expanduser()
    reachable = path.is_dir() or downloads.answers(SCHEMES["hf://" if preset.startswith("hf://") else "kaggle://"])
    if not reachable and preset.startswith("hf://"):
        from huggingface_hub import constants

        constants.HF_HUB_OFFLINE = True  # what is here is found; it would try for 23 seconds else
    elif not reachable:
        preset = _newest_here(preset)
    places = {"Backbone": hub.models, "Tokenizer": hub.tokenizers, "ImageConverter": hub.layers}
    try:
        with contextlib.nullcontext() if reachable else downloads.cut_off():
            return [getattr(places[part], part).from_preset(str(path) if path.is_dir() else preset) for part in parts]
    except Exception as error:  # KerasHub raises many kinds
        raise _told(error, preset) from error


def _check_tokenizers() -> None:
    """KerasHub only notices in the middle of its work that what its tokenizers need is not there."""
    try:
        import tensorflow_text  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"KerasHub's tokenizers need tensorflow-text, which cannot be imported ({error}): install its version for "
            "your TensorFlow, or use a run of dltoolkit's own as --backbone."
        ) from error


def set_dropout(network: Any, rate: float) -> None:
    """Give all dropout layers within a network this rate."""
    import keras

    for layer in network._flatten_layers():
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = rate


@functools.lru_cache(maxsize=1)
def converter(preset: str) -> Any:
    """Return the ImageConverter of a preset for pictures: their side and scale."""
    (found,) = fetch(preset, "ImageConverter")
    return found


def side(preset: str) -> int | None:
    """The side of the pictures that a preset's network was trained with, or None."""
    size = converter(preset).image_size
    return size[0] if size else None


def _newest_here(preset: str) -> str:
    """Name the newest version that is here of a ``kaggle://`` preset without one, which Kaggle would be asked for."""
    from kagglehub import config

    folder = Path(config.get_cache_folder()) / "models" / preset.removeprefix("kaggle://")
    if not preset.startswith("kaggle://") or not folder.is_dir():
        return preset
    here = [int(version.name) for version in folder.iterdir() if version.name.isdecimal()]
    return f"{preset}/{max(here)}" if here else preset


def _told(error: Exception, preset: str) -> UserError:
    """Say in one sentence why a preset could not be had."""
    import keras_hub

    text = str(error)
    here = Path(preset).expanduser().is_dir()
    if here:
        if isinstance(error, FileNotFoundError):
            missing = text.split("`")[1] if "`" in text else text
            return UserError(f"{preset} has no {missing}, which belongs to a model: fetch all its files again.")
        if isinstance(error, ImportError):
            return UserError(f"{preset} cannot be read without another package ({error}).")
        if isinstance(error, json.JSONDecodeError | OSError) or "Safetensor" in type(error).__name__:
            return UserError(f"{preset} holds a damaged file ({error}): fetch it again.")
    for part, read in {"Tokenizer": "texts", "ImageConverter": "pictures"}.items():
        if f"subclass of {part} " in text:
            return UserError(f"The network in {preset} reads no {read}, which the data are: give another --backbone.")
    if not here and not preset.startswith(tuple(SCHEMES)) and preset not in keras_hub.models.Backbone.presets:
        near = suggestion(preset, keras_hub.models.Backbone.presets)
        return UserError(f"KerasHub has no preset '{preset}'.{near}")
    if here or not re.search("onnect|resol|retries|offline|no config.json|HTTP", f"{type(error).__name__} {text}"):
        return UserError(f"{preset} is no model that KerasHub can read ({text.splitlines()[0]}).")
    cache = "~/.cache/huggingface/hub" if preset.startswith("hf://") else "~/.cache/kagglehub/models"
    return UserError(
        f"The files of {preset} are not on this machine (looked for under {cache}) and cannot be downloaded: check "
        "the connection, or fetch its config.json, weights and tokenizer elsewhere and give their folder as --backbone."
    )
