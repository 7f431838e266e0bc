"""Pretrained image networks of ``keras.applications`` and KerasHub without their heads.

A backbone is a functional model from raw pixels 0..255 (batch, height, width, channels) to features (batch, units).
"""

from __future__ import annotations

import contextlib
import functools
import sys
import zipfile
from pathlib import Path

import keras

from dltoolkit.errors import UserError
from dltoolkit.models import keras_internals, model_size
from dltoolkit.models.image.layers import ImageNetPixels
from dltoolkit.models.pretrained import keras_applications, keras_hub
from dltoolkit.network import fail_fast

Shape = tuple[int, int, int]  # height, width, channels


def from_application(name: str, image_shape: Shape, weights: str | None = "imagenet") -> keras.Model:
    """Return a network of ``keras.applications`` that scales its inputs as its pretraining did.

    Args:
        name: A key of :data:`keras_applications.APPLICATIONS`.
        image_shape: Height, width and channels of the images. A gray channel is repeated three times.
        weights: "imagenet", the path of a weights file, or None for random weights.

    Raises:
        UserError: If the images are too small, or the weights are missing, damaged or those of another architecture.
    """
    application = keras_applications.APPLICATIONS[name]
    if min(image_shape[:2]) < application.min_image_size:
        raise UserError(
            f"{name} needs images of at least {application.min_image_size} pixels per side, but these have "
            f"{image_shape[0]}x{image_shape[1]}; set --image-size={application.image_size}."
        )
    if weights not in (None, "imagenet"):
        keras_applications.check_weights_file(Path(weights))
        model_size.check_weights_file(Path(weights))
    image, x = _rgb_input(image_shape)
    if application.preprocessing:
        x = ImageNetPixels(application.preprocessing, name="preprocessing")(x)
    build = functools.partial(
        getattr(keras.applications, application.function), include_top=False, **application.options
    )
    network = build(weights=None, input_tensor=x)
    if weights:
        try:
            to_stderr = contextlib.redirect_stdout(sys.stderr)  # Keras prints the progress of a download
            with fail_fast(), to_stderr, keras_internals.strict_weight_loading():
                pretrained = build(weights=weights, input_shape=(*image_shape[:2], 3))
        except Exception as error:  # Keras raises many kinds, and a bare Exception when a download fails
            raise _weights_error(error, name, weights) from error
        network.set_weights(pretrained.get_weights())
    features = keras.layers.GlobalAveragePooling2D(name="features")(network.output)
    return keras.Model(image, features, name=name.lower())


def from_preset(preset: str, image_shape: Shape) -> keras.Model:
    """Return an image network of KerasHub that scales its inputs as its pretraining did.

    Args:
        preset: A preset as :func:`keras_hub.fetch` takes it.
        image_shape: Height, width and channels of the images. A gray channel is repeated three times.

    Raises:
        UserError: If the preset cannot be loaded, or does not read images.
    """
    (network,), converter = keras_hub.fetch(preset, "Backbone"), keras_hub.image_converter(preset)
    if len(network.inputs) != 1 or len(network.input.shape) != 4:
        raise UserError(f"{preset} is not a network for images; give another --backbone.")
    image, x = _rgb_input(image_shape)
    scale, offset = (1.0 if converter.scale is None else converter.scale), converter.offset or 0.0
    # Calling network.call() instead of the network makes its layers part of the model, so that it can be split.
    features = network.call(keras.layers.Rescaling(scale, offset, name="preprocessing")(x))
    if len(features.shape) == 4:
        features = keras.layers.GlobalAveragePooling2D(name="features")(features)
    elif len(features.shape) == 3:  # the patches of a vision transformer
        features = keras.layers.GlobalAveragePooling1D(name="features")(features)
    return keras.Model(image, features, name=network.name)


def _rgb_input(image_shape: Shape) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Return an image input, and the same images with three channels."""
    image = keras.Input(image_shape, name="image")
    return image, keras.layers.Concatenate(name="rgb")([image] * 3) if image_shape[-1] == 1 else image


def _weights_error(error: Exception, name: str, weights: str) -> UserError:
    """Return an error that explains why the weights of an application could not be loaded."""
    if weights == "imagenet":
        folder = Path(keras_internals.keras_home()) / "models"
        if url := keras_internals.failed_url(error):
            return UserError(
                f"The weights of {name} are not on this machine and cannot be downloaded: put "
                f"{url.rpartition('/')[2]} into {folder}, or name a file with --weights."
            )
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return UserError(
            f"The weights of {name} in {folder} are damaged ({reason}): delete them and train again to download them."
        )
    damaged = isinstance(error, OSError | zipfile.BadZipFile)
    problem = "is damaged or not a weights file" if damaged else f"contains the weights of another network than {name}"
    return UserError(f"{weights} {problem}; give a file that was saved without the top of {name}.")
