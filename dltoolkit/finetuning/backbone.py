"""Where fine-tuning goes on from: what a backbone's name means, and the network without its head.

The functions take a configuration with ``backbone``, ``weights``, ``out_dir``, ``seed``, ``max_length``, ``dropout``.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Literal

import keras

from dltoolkit import data, evaluation, models
from dltoolkit import run as runs
from dltoolkit.errors import UserError
from dltoolkit.models.model_file import load_model
from dltoolkit.run import Run

OWN = "digits-half"  # a small network, trained here on half of the digits' classes: what there is without a download


def origin(config: Any) -> Literal["digits", "named", "preset", "file", "run"]:
    """What kind of backbone is meant.

    Raises:
        UserError: if there is none of this name.
    """
    name = config.backbone
    if name in (None, OWN):
        return "digits"
    if models.pretrained.keras_applications.find(name):
        return "named"
    if models.pretrained.keras_hub.is_preset(name):
        return "preset"
    if name.endswith(".keras"):
        return "file"
    if Path(name).expanduser().is_file():
        raise UserError(f"{name} is no .keras file, and nothing else is opened: a pickle, say, can run code.")
    with contextlib.suppress(UserError):
        runs.load(name, config.out_dir)
        return "run"
    if name in models.pretrained.keras_hub.names():
        return "preset"
    raise models.pretrained.keras_applications.unknown(name)


def side(config: Any) -> int | None:
    """The pictures' side that the backbone wants, or None."""
    found, name = origin(config), config.backbone
    if config.weights and found != "named":
        raise UserError(f"--weights is for a backbone of 'dltoolkit list backbones', not for {name or OWN}.")
    if found == "named":
        return models.pretrained.architectures.KNOWN[models.pretrained.keras_applications.find(name)].side
    if found == "preset":
        return models.pretrained.keras_hub.side(name)
    if found == "file":
        return load_model(Path(name).expanduser()).input_shape[1]
    return earlier(config).info["model"]["input_shape"][0] if found == "run" else None


def pictures(config: Any, image_shape: tuple[int, int, int]) -> keras.Model:
    """Raw pixels in, features (batch, units) out."""
    name, found = config.backbone or OWN, origin(config)
    if found == "named":
        backbone = models.pretrained.keras_applications.application(
            models.pretrained.keras_applications.find(name), image_shape, config.weights or "imagenet"
        )
    elif found == "preset":
        backbone = models.pretrained.keras_applications.of_hub(name, image_shape)
    else:
        own = {
            "digits": lambda: half_of_the_digits(config.seed),
            "file": lambda: load_model(Path(name).expanduser()),
            "run": lambda: earlier(config).model,
        }
        backbone = models.pretrained.keras_applications.headless(own[found](), name)
    if backbone.input_shape[1:] != image_shape:
        wanted, there = ("x".join(map(str, shape)) for shape in (backbone.input_shape[1:], image_shape))
        raise UserError(f"{name} reads pictures of {wanted}, and those of {config.data} are {there}.")
    return backbone


def texts(config: Any) -> models.pretrained.text_backbones.TextBackbone:
    """Numbers of tokens in, features (batch, units) out; and what makes texts these numbers."""
    name, found = config.backbone, origin(config)
    if found == "preset":
        return models.pretrained.text_backbones.of_hub(name, config.max_length, config.dropout)
    if found != "run":
        raise UserError(
            f"{config.data} holds texts{f', which {name} cannot read' if name else ''}: give --backbone a KerasHub "
            "preset or its folder, or a run of sentiment-analyzer or text-generator."
        )
    run = earlier(config)
    return models.pretrained.text_backbones.of_run(run.model, run.path, name, config.max_length)


def check_unchanged(run: Run, config: Any) -> None:
    """Note the hash of the file that the weights come from, where there is one, or compare it with what was noted.

    Raises:
        UserError: if a run that goes on would do so from another network than it began with.
    """
    found = origin(config)
    if found == "run":
        path = earlier(config).path / "model.keras"
    elif config.weights or found == "file":
        path = Path(config.weights or config.backbone).expanduser()
    else:
        return
    digest = models.pretrained.keras_applications.sha256(path)
    if run.info.get("backbone_sha256", digest) != digest:
        raise UserError(f"{path} has changed since {run.path.name} began, which cannot go on from it: train a new run.")
    run.update(backbone_sha256=digest)


def earlier(config: Any) -> Run:
    """The run that ``--backbone`` names."""
    return runs.load(config.backbone, config.out_dir)


def half_of_the_digits(seed: int) -> keras.Model:
    """A small classifier of the training digits 0 to 4."""
    digits = data.image.dataset.load("digits", seed=seed)
    rows = digits.train[digits.labels[digits.train] < 5]
    return evaluation.feature_extractor.train(
        digits.images[rows], digits.labels[rows], digits.classes[:5], seed=seed
    ).model
