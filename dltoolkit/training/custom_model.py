"""Models and callbacks that a Python program gives to the ``train`` of a recipe."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dltoolkit import data_object
from dltoolkit.config import RunConfig
from dltoolkit.errors import UserError

if TYPE_CHECKING:
    import keras

    from dltoolkit.data.image.dataset import ImageSplits
    from dltoolkit.data.text.dataset import TextSplits
    from dltoolkit.training.train_spec import TrainSpec

CUSTOM = "custom"  # value of the option ``model`` of a run whose model a program gave
Config = TypeVar("Config", bound=RunConfig)
# Callbacks of Keras that the training loop replaces, and what to use instead
REPLACED = {
    "LearningRateScheduler": "the learning rate follows a schedule of its own; set learning_rate",
    "ReduceLROnPlateau": "the learning rate follows a schedule of its own; set learning_rate",
    "BackupAndRestore": "a run is resumed with dltoolkit.resume",
}


def choose(config: Config, model: Any) -> Config:
    """Return the config of a training, in which ``model`` is "custom" if the program gives a model.

    Args:
        config: The options.
        model: The model or the function that builds it, or None for the family that the options name.

    Raises:
        UserError: If only one of ``model`` and the option says that the model is given, or an option has no effect on
            a given model.
    """
    if model is None:
        if config.model == CUSTOM:
            raise UserError(
                "A custom model is given from Python: pass it as train(config, model=…), or as "
                "dltoolkit.resume(run, model=…) for a run that began with one."
            )
        return config
    if config.model not in (CUSTOM, type(config).model):
        raise UserError(
            f"model '{config.model}' of the config has no effect with train(model=…): leave one of them out."
        )
    config = config.resolve(model=CUSTOM)
    config.refuse_ignored(**vars(config))
    return config


def check_callbacks(callbacks: Sequence[Any]) -> None:
    """Raise a UserError if callbacks are not a sequence of Keras callbacks that the training loop can use."""
    if not isinstance(callbacks, list | tuple):
        raise UserError(f"callbacks must be a list of Keras callbacks, not {data_object.describe(callbacks)}.")
    import keras

    for callback in callbacks:
        if not isinstance(callback, keras.callbacks.Callback):
            raise UserError(f"callbacks must be Keras callbacks, but one is {data_object.describe(callback)}.")
        for name, reason in REPLACED.items():
            if isinstance(callback, getattr(keras.callbacks, name)):
                raise UserError(f"The callback {name} cannot be used, because {reason}.")


def apply(spec: TrainSpec, splits: ImageSplits | TextSplits, model: Any) -> TrainSpec:
    """Return a training specification with the model of :func:`choose`, unless it is None."""
    input_shape = getattr(splits, "image_shape", (None,))
    return spec if model is None else replace(spec, build_model=lambda: build(model, input_shape, len(splits.classes)))


def build(model: Any, input_shape: tuple[int | None, ...], classes: int) -> keras.Model:
    """Return the given model, or the model that the given function builds, after checking it.

    Args:
        model: A functional or Sequential model from raw inputs to logits, or a function from ``input_shape`` and
            ``classes`` to such a model.
        input_shape: Height, width and channels of the images, or (None,) for token IDs.
        classes: Number of logits.

    Raises:
        UserError: If the model does not take such inputs, does not return such logits, or could not be opened again
            after training.
    """
    import keras

    if not isinstance(model, keras.Model):
        if not callable(model):
            raise UserError(f"model must be a keras.Model or a function, not {data_object.describe(model)}.")
        model = model(input_shape, classes)
        if not isinstance(model, keras.Model):
            raise UserError(f"The function of model= must return a keras.Model, not {data_object.describe(model)}.")
    if isinstance(model, keras.Sequential) and not model.built:
        try:
            model.build((None, *input_shape))
        except Exception as error:  # layers raise errors of many types for shapes that do not fit
            shape, reason = _join(input_shape), " ".join(str(error).split())
            raise UserError(f"The model cannot be built for inputs of shape (batch, {shape}): {reason}") from error
    try:
        inputs, outputs = model.inputs, model.outputs
    except AttributeError:
        raise UserError("The model has no symbolic input: build it as a functional or Sequential model.") from None
    if len(inputs) != 1 or len(outputs) != 1:
        raise UserError(f"The model has {len(inputs)} inputs and {len(outputs)} outputs: give one with one of each.")
    actual, expected = tuple(inputs[0].shape[1:]), tuple(input_shape)
    fits = len(actual) == len(expected) and all(a in (None, e) for a, e in zip(actual, expected, strict=True))
    if not fits:
        raise UserError(
            f"The model takes inputs of shape (batch, {_join(actual)}), but the data are (batch, {_join(expected)})."
        )
    if tuple(outputs[0].shape[1:]) != (classes,):
        raise UserError(
            f"The model returns outputs of shape (batch, {_join(outputs[0].shape[1:])}), but {classes} classes need "
            f"logits of shape (batch, {classes})."
        )
    last = model.layers[-1]
    activation = getattr(getattr(last, "activation", None), "__name__", "")
    if isinstance(last, keras.layers.Softmax) or activation in ("softmax", "sigmoid", "log_softmax"):
        raise UserError(
            f"The model returns probabilities, because its last layer has the activation {activation or 'softmax'}: "
            "return logits, without it."
        )
    _check_saving(model)
    if isinstance(model, keras.Sequential):  # which may have been built without being called, so that it has no input
        return keras.Model(inputs[0], outputs[0], name=model.name)
    return model


def _check_saving(model: keras.Model) -> None:
    """Raise a UserError if a model could not be opened again after training."""
    import keras

    from dltoolkit.models import model_file

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        try:
            keras.Model(model.inputs[0], model.outputs[0], name=model.name).save(path)
            model_file.load_model(path)
        except Exception as error:  # layers of other programs fail in ways of their own
            reason = str(error).replace(str(path), "its file").splitlines()[0].partition(";")[0].rstrip(".")
            raise UserError(
                f"The trained model could not be opened again ({reason}): use layers of Keras only."
            ) from None


def _join(shape: Sequence[int | None]) -> str:
    return ", ".join(map(str, shape))
