"""The two networks of a GAN as functional models: a generator from latents to images, and a discriminator to logits.

``dcgan`` follows Radford et al. 2016 and ``resnet`` follows Miyato et al. 2018. Both halve or double the sides as often
as it takes to get from the image's sides to a grid of 4 to 7 cells. Other sides are padded by the discriminator and
cropped by the generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import keras

from dltoolkit.models.gan.sampling import LATENT_DIM
from dltoolkit.models.image.layers import BatchNorm, ClassProjection, UpConv2D


def initial_grid(height: int, width: int) -> tuple[int, int, int]:
    """Return the number of doublings up to an image of this size, and the rows and columns of the initial grid."""
    doublings = max(1, int(math.log2(min(height, width) / 4)))
    return doublings, -(-height // 2**doublings), -(-width // 2**doublings)


def _margins(height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the rows above and below, and the columns left and right, by which the grid exceeds the image."""
    doublings, rows, columns = initial_grid(height, width)
    extra_rows, extra_columns = rows * 2**doublings - height, columns * 2**doublings - width
    return (extra_rows // 2, -(-extra_rows // 2)), (extra_columns // 2, -(-extra_columns // 2))


def build_generator(
    architecture: str, image_shape: tuple[int, int, int], classes: int = 0, *, width: int = 32
) -> keras.Model:
    """Return a generator.

    Args:
        architecture: "dcgan" or "resnet".
        image_shape: Height, width and channels.
        classes: Number of classes; 0 for an unconditional generator.
        width: Channels at the full size of the image.

    Returns:
        Model from latents float (batch, 64), and class numbers int (batch,) if there are classes, to images
        (batch, h, w, c) in -1..1.
    """
    doublings, rows, columns = initial_grid(*image_shape[:2])
    latents = keras.Input((LATENT_DIM,), name="latents")
    inputs, x = [latents], latents
    if classes:
        label = keras.Input((), dtype="int32", name="label")
        inputs.append(label)
        embedding = keras.layers.Embedding(classes, LATENT_DIM, embeddings_initializer=_normal(1.0), name="class")
        x = keras.layers.Concatenate(name="condition")([x, embedding(label)])
    channels = width * 2**doublings
    x = keras.layers.Dense(rows * columns * channels, use_bias=False, name="dense")(x)
    x = keras.layers.Reshape((rows, columns, channels), name="reshape")(x)
    if architecture == "dcgan":
        x = keras.layers.ReLU(name="relu")(_batch_norm("norm")(x))
    for number in range(1, doublings + 1):
        channels //= 2
        x = (_up if architecture == "dcgan" else _residual_up)(x, channels, f"up{number}")
    if architecture == "resnet":
        x = keras.layers.ReLU(name="last_relu")(_batch_norm("last_norm")(x))
    x = keras.layers.Conv2D(image_shape[2], 3, padding="same", activation="tanh", name="image", dtype="float32")(x)
    margins = _margins(*image_shape[:2])
    if margins != ((0, 0), (0, 0)):
        x = keras.layers.Cropping2D(margins, name="crop")(x)
    return keras.Model(inputs if classes else latents, x, name="generator")


def build_discriminator(
    architecture: str,
    image_shape: tuple[int, int, int],
    classes: int = 0,
    *,
    width: int = 32,
    spectral_norm: bool = False,
) -> keras.Model:
    """Return a discriminator, which is conditional by projection (Miyato & Koyama 2018).

    Args:
        architecture: "dcgan" or "resnet".
        image_shape: Height, width and channels.
        classes: Number of classes; 0 for an unconditional discriminator.
        width: Channels at the full size of the image.
        spectral_norm: Whether to normalize the layers by their largest singular value (Miyato et al. 2018).

    Returns:
        Model from images (batch, h, w, c) in -1..1, and class numbers int (batch,) if there are classes, to logits
        (batch,).
    """
    doublings = initial_grid(*image_shape[:2])[0]
    normalize = keras.layers.SpectralNormalization if spectral_norm else lambda layer: layer
    image = keras.Input(image_shape, name="image")
    inputs, x = [image], image
    margins = _margins(*image_shape[:2])
    if margins != ((0, 0), (0, 0)):
        x = keras.layers.ZeroPadding2D(margins, name="pad")(x)
    channels = width
    x = normalize(keras.layers.Conv2D(channels, 3, padding="same", kernel_initializer="he_normal", name="first"))(x)
    x = keras.layers.LeakyReLU(0.2, name="first_relu")(x)
    for number in range(1, doublings + 1):
        channels *= 2
        x = (_down if architecture == "dcgan" else _residual_down)(x, channels, f"down{number}", normalize)
    x = keras.layers.Flatten(name="features")(x)
    logit = normalize(keras.layers.Dense(1, name="logit"))(x)
    if classes:
        label = keras.Input((), dtype="int32", name="label")
        inputs.append(label)
        projection = ClassProjection(classes, name="projection")([x, label])
        logit = keras.layers.Add(name="sum")([logit, projection])
    logit = keras.layers.Reshape((), name="flat", dtype="float32")(logit)
    return keras.Model(inputs if classes else image, logit, name="discriminator")


def _normal(stddev: float) -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=stddev)


def _batch_norm(name: str) -> keras.layers.Layer:
    return BatchNorm(momentum=0.9, epsilon=1e-5, name=name)


def _up(x, channels: int, name: str):
    """Double the sides: upsampling without checkerboards (Odena 2016), a convolution, batch normalization, ReLU."""
    x = UpConv2D(channels, name=name)(x)
    return keras.layers.ReLU(name=f"{name}_relu")(_batch_norm(f"{name}_norm")(x))


def _down(x, channels: int, name: str, normalize: Callable):
    """Halve the sides: a strided convolution, leaky ReLU."""
    layer = keras.layers.Conv2D(channels, 4, strides=2, padding="same", kernel_initializer="he_normal", name=name)
    return keras.layers.LeakyReLU(0.2, name=f"{name}_relu")(normalize(layer)(x))


def _residual_up(x, channels: int, name: str):
    """Double the sides with a pre-activation residual block."""
    skip = keras.layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_skip")(x)
    skip = keras.layers.UpSampling2D(name=f"{name}_double_skip")(skip)
    x = keras.layers.ReLU(name=f"{name}_relu1")(_batch_norm(f"{name}_norm1")(x))
    x = UpConv2D(channels, name=f"{name}_1")(x)
    x = keras.layers.ReLU(name=f"{name}_relu2")(_batch_norm(f"{name}_norm2")(x))
    x = keras.layers.Conv2D(
        channels, 3, padding="same", use_bias=False, kernel_initializer="he_normal", name=f"{name}_2"
    )(x)
    return keras.layers.Add(name=f"{name}_add")([x, skip])


def _residual_down(x, channels: int, name: str, normalize: Callable):
    """Halve the sides with a residual block."""

    def conv(channels: int, size: int, name: str):
        layer = keras.layers.Conv2D(channels, size, padding="same", kernel_initializer="he_normal", name=name)
        return normalize(layer)

    skip = keras.layers.AveragePooling2D(2, name=f"{name}_halve_skip")(x)
    skip = conv(channels, 1, f"{name}_skip")(skip)
    x = keras.layers.LeakyReLU(0.2, name=f"{name}_relu1")(conv(x.shape[-1], 3, f"{name}_1")(x))
    x = conv(channels, 3, f"{name}_2")(x)
    x = keras.layers.AveragePooling2D(2, name=f"{name}_halve")(x)
    return keras.layers.LeakyReLU(0.2, name=f"{name}_relu2")(keras.layers.Add(name=f"{name}_add")([x, skip]))
