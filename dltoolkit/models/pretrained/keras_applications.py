"""Trained networks to go on from: those of ``keras.applications``, an own run's or a .keras file's, without their head.

A backbone is a functional model from raw pixels 0..255 (batch, h, w, c) to features (batch, units). :func:`cut` finds
where one can be parted, so that what is frozen need be computed only once.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import keras

from dltoolkit.errors import UserError, suggestion
from dltoolkit.models.image.layers import ImageNetPixels
from dltoolkit.models.pretrained import architectures, downloads
from dltoolkit.models.pretrained import keras_hub as hub


def find(name: str) -> str | None:
    """Return the name in :data:`architectures.KNOWN` that is meant, or None."""
    return next((known for known in architectures.KNOWN if _folded(known) == _folded(name)), None)


def application(name: str, image_shape: tuple[int, int, int], weights: str | None = "imagenet") -> keras.Model:
    """Return one of ``keras.applications`` with the scaling of pixels that it was trained with.

    Args:
        name: a key of :data:`architectures.KNOWN`.
        image_shape: (height, width, channels) of the pictures; grey ones are shown as colour.
        weights: "imagenet", the path of a weights file, or None for random ones.

    Raises:
        UserError: for pictures too small, or weights that are not there, damaged or of another architecture.
    """
    known = architectures.KNOWN[name]
    if min(image_shape[:2]) < known.smallest:
        raise UserError(
            f"{name} needs pictures of at least {known.smallest} pixels a side, not {image_shape[0]}x{image_shape[1]}; "
            f"set --image-size {known.side}."
        )
    if weights not in (None, "imagenet"):
        check_file(Path(weights))
    image, x = _in_colour(image_shape)
    if known.scaling:
        x = ImageNetPixels(known.scaling, name="pixels")(x)
    make = functools.partial(getattr(keras.applications, known.function), include_top=False, **known.options)
    base = make(weights=None, input_tensor=x)
    if weights:
        try:
            shown = contextlib.redirect_stdout(sys.stderr)  # a download's progress
            with downloads.asked_first(), shown, warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="`input_shape` is undefined or non-square")
                warnings.filterwarnings("error", message="Skipping nested container")  # and leaving it random
                trained = make(weights=weights, input_shape=(*image_shape[:2], 3))
        except Exception as error:  # Keras raises many kinds, and a bare Exception when a download fails
            raise _told(error, name, weights) from error
        base.set_weights(trained.get_weights())
    pooled = keras.layers.GlobalAveragePooling2D(name="features")(base.output)
    return keras.Model(image, pooled, name=name.lower())


def check_file(weights: Path) -> None:
    """Check a file of weights, before it is opened, as far as can be: its kind, and its hash where one is given.

    Hashes are read as ``sha256sum`` writes them, from ``SHA256SUMS`` or ``FILE.sha256`` in the same folder.

    Raises:
        UserError: if it is not there, is no file of weights, or its hash is another.
    """
    if not weights.is_file():
        raise UserError(f"There is no weights file {weights}.")
    if weights.suffix not in (".h5", ".keras"):
        raise UserError(f"{weights} is no weights file of Keras (.h5), and nothing else is opened: it might run code.")
    for sums in (weights.with_name("SHA256SUMS"), weights.with_name(f"{weights.name}.sha256")):
        for line in sums.read_text(encoding="utf-8").splitlines() if sums.is_file() else ():
            wanted, _, name = line.partition(" ")
            if name.lstrip(" *").removeprefix("./") == weights.name and wanted.lower() != sha256(weights):
                raise UserError(f"{weights} is damaged: its hash is not what {sums} says; fetch it again.")


def sha256(path: Path) -> str:
    """Return a file's hash in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def of_hub(preset: str, image_shape: tuple[int, int, int]) -> keras.Model:
    """Return one of KerasHub's networks for pictures with the scaling of pixels that it was trained with.

    Args:
        preset: what ``hub.fetch`` takes.
        image_shape: (height, width, channels) of the pictures; grey ones are shown as colour.

    Raises:
        UserError: if it cannot be had, or reads no pictures.
    """
    (network,), converter = hub.fetch(preset, "Backbone"), hub.converter(preset)
    if len(network.inputs) != 1 or len(network.input.shape) != 4:
        raise UserError(f"{preset} is no network for pictures.")
    image, x = _in_colour(image_shape)
    scale, offset = (1.0 if converter.scale is None else converter.scale), converter.offset or 0.0
    # call(), not the network as one layer: so it can be parted within
    vectors = network.call(keras.layers.Rescaling(scale, offset, name="pixels")(x))
    if len(vectors.shape) == 4:
        vectors = keras.layers.GlobalAveragePooling2D(name="features")(vectors)
    elif len(vectors.shape) == 3:  # a vision transformer's patches
        vectors = keras.layers.GlobalAveragePooling1D(name="features")(vectors)
    return keras.Model(image, vectors, name=network.name)


def _in_colour(image_shape: tuple[int, int, int]) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """An input of pictures, and the same in three channels where it has one."""
    image = keras.Input(image_shape, name="image")
    return image, keras.layers.Concatenate(name="colour")([image] * 3) if image_shape[-1] == 1 else image


def headless(model: keras.Model, said: str) -> keras.Model:
    """Return a trained classifier's network up to what its last layer reads.

    Raises:
        UserError: if it does not end in a dense layer.
    """
    inner = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    if len(inner) == 1:  # a network whose answers for a picture and its mirror image are averaged
        model = inner[0]
    head = model.layers[-1]
    if not isinstance(head, keras.layers.Dense) or len(head.input.shape) != 2:
        raise UserError(f"{said} does not end in a dense layer that could be replaced; give a classifier.")
    return keras.Model(model.input, head.input, name=model.name)


def cuts(model: keras.Model) -> list[keras.KerasTensor]:
    """Return the tensors through which all must pass, from the input on; the last is the output."""
    nodes = _nodes(model)
    place = {id(tensor): i for i, node in enumerate(nodes) for tensor in node.outputs}
    last_reader = list(range(len(nodes)))
    for i, node in enumerate(nodes):
        for tensor in node.input_tensors:
            last_reader[place[id(tensor)]] = i
    found, pending = [], 0
    for i, node in enumerate(nodes):
        if pending <= i:
            found.append(node.outputs[0])
        pending = max(pending, last_reader[i])
    return found


def cut(model: keras.Model, share: float) -> keras.KerasTensor:
    """Return the first tensor through which all must pass and after which no more is trained than was asked for.

    Args:
        model: features out.
        share: of the layers that can be trained, how many may come after, counted from the end.
    """
    nodes = _nodes(model)
    weighted = [i for i, node in enumerate(nodes) if getattr(node.operation, "trainable_weights", [])]
    place = {id(node.outputs[0]): i for i, node in enumerate(nodes)}
    most = round(share * len(weighted))
    return next(tensor for tensor in cuts(model) if sum(i > place[id(tensor)] for i in weighted) <= most)


def _nodes(model: keras.Model) -> list[Any]:
    """The calls of a network's layers, each after those that it reads from."""
    return [node for depth in sorted(model._nodes_by_depth, reverse=True) for node in model._nodes_by_depth[depth]]


def freeze_statistics(model: keras.Model) -> None:
    """Keep batch normalisation as it was trained: a few pictures would only spoil its means (inference mode)."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def leaves(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers of a network from the input on, those of a network within it in its place."""
    return [leaf for layer in model.layers for leaf in (leaves(layer) if isinstance(layer, keras.Model) else [layer])]


def freeze_below(model: keras.Model, share: float | None) -> None:
    """Freeze all but so large a share of the layers that have weights, counted from the end; the last always learns.

    Args:
        model: logits out.
        share: 0 to 1, of all but the head. Tables of vectors (embeddings) are frozen too: each step shows a few of
            their rows only. None for no freezing at all.
    """
    if share is None:
        return
    *below, _ = [layer for layer in leaves(model) if layer.trainable_weights]
    for layer in below:
        if "Embedding" in type(layer).__name__:
            layer.trainable = False
    hidden = [layer for layer in below if layer.trainable]
    for layer in hidden[: len(hidden) - round(share * len(hidden))]:
        layer.trainable = False


def low_rank(model: keras.Model, rank: int) -> None:
    """Freeze all but the head, and add matrices of low rank that are trained (LoRA, Hu et al. 2021).

    They are added to all dense layers and convolutions that Keras can add to.

    Args:
        model: logits out.
        rank: of the matrices.

    Raises:
        UserError: if it has no layer of these kinds.
    """
    *below, _ = [layer for layer in leaves(model) if layer.trainable_weights]
    inner = [part for layer in below for part in layer._flatten_layers() if hasattr(part, "enable_lora")]
    chosen = [part for part in inner if not isinstance(part, keras.layers.Embedding)]
    if not chosen:
        raise UserError(f"{model.name} has no layers that --method lora can add to; use --method full or head.")
    for layer in below:
        layer.trainable = False
    for part in chosen:
        part.trainable = True
        part.enable_lora(rank)


def unknown(name: str) -> UserError:
    """What to say where ``--backbone`` is nothing that is known."""
    near = suggestion(name, [*architectures.KNOWN, *hub.names()])
    return UserError(
        f"There is no backbone '{name}': give a name of 'dltoolkit list backbones', a KerasHub preset, a run or a "
        f".keras file.{near}"
    )


def _folded(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.lower())


def _told(error: Exception, name: str, weights: str) -> UserError:
    """Say in one sentence why a network could not be had with its weights."""
    url = re.search(r"https?://\S+/([^/\s:]+)", str(error))
    folder = Path(os.environ.get("KERAS_HOME", "~/.keras")) / "models"
    if weights == "imagenet" and url:
        return UserError(
            f"The weights of {name} are not on this machine and cannot be downloaded: put {url[1]} into {folder}, or "
            "name a file with --weights."
        )
    if weights == "imagenet":
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return UserError(f"The weights of {name} in {folder} are damaged ({reason}): delete them, to fetch them again.")
    damaged = isinstance(error, OSError | zipfile.BadZipFile)
    what = "is damaged or no weights file" if damaged else f"holds weights of another network than {name}"
    return UserError(f"{weights} {what}; give one saved without the top of {name}.")
