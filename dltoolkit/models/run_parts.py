"""Whether the parts of a run fit each other: the model, the names of its classes, the images and the vocabulary."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dltoolkit import run_schema
from dltoolkit.data.language import tokenizers
from dltoolkit.data.text import encoders
from dltoolkit.errors import UserError
from dltoolkit.models import model_size

if TYPE_CHECKING:
    import keras


def check(path: Path, info: Mapping[str, Any], model: keras.Model) -> None:
    """Raise a UserError if the model of a run does not fit its run.json, or its labels.json does not.

    Args:
        path: The run.
        info: Contents of run.json.
        model: The model of a run of an installed recipe: a classifier, a text generator or a generator of images.
    """
    data = info.get("data") or {}
    classes, shape = data.get("classes") or [], data.get("image_shape")
    if len(set(classes)) < len(classes):
        raise _unfit(path, "run.json names a class twice")
    labels = path / "labels.json"
    if os.path.lexists(labels) and run_schema.read(labels, run_schema.LABELS) != classes:
        raise _unfit(path, "labels.json and run.json name other classes")
    if "conditional" in info:
        _compare(path, "model.keras generates images of {}, but run.json says {}", model.output_shape[1:], shape)
        inputs = 2 if info["conditional"] else 1  # latents, and class numbers
        _compare(path, "model.keras has {} inputs, but run.json says {}", [len(model.inputs)], [inputs])
        if info["conditional"] and len(classes) not in _embeddings(model):
            raise _unfit(path, f"model.keras does not generate the {len(classes)} classes that run.json names")
        return
    _check_vocabulary(path, info, model)
    _check_context(path, info, model)
    if "resolved" not in info and classes:
        outputs = "model.keras has {} outputs, but run.json names {} classes"
        _compare(path, outputs, model.output_shape[-1:], [len(classes)])
        if shape:
            _compare(path, "model.keras takes images of {}, but run.json says {}", model.input_shape[1:], shape)
            if None in model.input_shape[1:]:
                _check_size(path, model, shape)


def _check_size(path: Path, model: keras.Model, shape: list[int]) -> None:
    """Raise a UserError if a model that leaves the size of its images open needs too much memory for those of a run."""
    try:
        model_size.check_tensors(model, shape)
    except model_size.RefusedError as error:
        raise model_size.refused(path / "model.keras", error) from None


def _check_vocabulary(path: Path, info: Mapping[str, Any], model: keras.Model) -> None:
    """Raise a UserError if the vocabulary of a run has another size than its model.

    A model that a program gave, which config.model calls "custom", may have embeddings of any size or none, and so may
    a model that was fine-tuned from it, as long as they are not too few.
    """
    if info.get("config", {}).get("model") == "custom":
        return
    words, tokens = path / encoders.VOCABULARY_FILE, path / encoders.TOKENIZER_FILE
    if os.path.lexists(words):
        size = len(encoders.load(path, None).vocabulary)
    elif os.path.lexists(tokens):
        size = tokenizers.load(tokens).vocab_size
    else:  # images, or a network of KerasHub, which may have more embeddings than tokens
        return
    sizes = model.output_shape[-1:] if "resolved" in info else _embeddings(model)
    if size not in sizes and not ("task" in info and max(sizes, default=size) >= size):
        raise _unfit(path, f"the vocabulary has {size:,} entries, for which model.keras was not trained")


def _check_context(path: Path, info: Mapping[str, Any], model: keras.Model) -> None:
    """Raise a UserError if a language model has learned fewer positions than its context has tokens."""
    from dltoolkit.models import keras_internals

    length = info.get("resolved", {}).get("context_length", 0)
    for layer in keras_internals.all_layers(model):
        positions = getattr(layer, "sequence_length", None)
        if isinstance(positions, int) and positions < length:
            raise _unfit(path, f"model.keras reads {positions:,} tokens, but run.json says {length:,}")


def _embeddings(model: keras.Model) -> list[int]:
    """Return the number of rows of each embedding in a model."""
    from dltoolkit.models import keras_internals

    layers = keras_internals.all_layers(model)
    return [getattr(layer, name) for layer in layers for name in ("input_dim", "vocab_size") if hasattr(layer, name)]


def _compare(path: Path, sentence: str, actual: Any, expected: Any) -> None:
    """Raise a UserError, whose reason is a sentence with both sizes, if they differ; None fits any size."""
    actual, expected = list(actual), list(expected or [])
    if len(actual) != len(expected) or any(a not in (None, b) for a, b in zip(actual, expected, strict=True)):
        raise _unfit(path, sentence.format(*(" x ".join(map(str, each)) or "no size" for each in (actual, expected))))


def _unfit(path: Path, reason: str) -> UserError:
    return UserError(f"The files of {path} do not belong together: {reason}. Restore them, or train a new run.")
