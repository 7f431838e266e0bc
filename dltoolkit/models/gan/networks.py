"""The two networks of a GAN as Keras functional models: noise in, pictures out; pictures in, a logit out.

``dcgan`` is in the manner of Radford et al. 2016, ``resnet`` of Miyato et al. 2018: as many halvings and doublings as
lead from the picture's side to between 4 and 7 pixels. Other sides are padded for the discriminator and cropped by
the generator.
"""

from __future__ import annotations

import math

import keras

from dltoolkit.models.image.layers import BatchNorm, ClassProjection, UpConv2D

LATENT = 64  # numbers that a picture is made from


def stages(height: int, width: int) -> tuple[int, int, int]:
    """Return (doublings, rows, columns): what a picture of this size begins with, and how often that doubles."""
    doublings = max(1, int(math.log2(min(height, width) / 4)))
    return doublings, -(-height // 2**doublings), -(-width // 2**doublings)


def _margins(height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    doublings, rows, columns = stages(height, width)
    below, right = rows * 2**doublings - height, columns * 2**doublings - width
    return (below // 2, -(-below // 2)), (right // 2, -(-right // 2))


def generator(
    architecture: str, image_shape: tuple[int, int, int], classes: int = 0, *, width: int = 32
) -> keras.Model:
    """Noise float (batch, 64), and class numbers int (batch,) where there are any, in; pictures -1..1 out."""
    doublings, rows, columns = stages(*image_shape[:2])
    noise = keras.Input((LATENT,), name="noise")
    inputs, x = [noise], noise
    if classes:
        label = keras.Input((), dtype="int32", name="label")
        inputs.append(label)
        x = keras.layers.Concatenate(name="condition")(
            [x, keras.layers.Embedding(classes, LATENT, embeddings_initializer=_normal(1.0), name="class")(label)]
        )
    units = width * 2**doublings
    x = keras.layers.Dense(rows * columns * units, use_bias=False, name="dense")(x)
    x = keras.layers.Reshape((rows, columns, units), name="reshape")(x)
    if architecture == "dcgan":
        x = keras.layers.ReLU(name="relu")(_norm("norm")(x))
    for number in range(1, doublings + 1):
        units //= 2
        x = (_up if architecture == "dcgan" else _residual_up)(x, units, f"up{number}")
    if architecture == "resnet":
        x = keras.layers.ReLU(name="last_relu")(_norm("last_norm")(x))
    x = keras.layers.Conv2D(image_shape[2], 3, padding="same", activation="tanh", name="picture", dtype="float32")(x)
    margins = _margins(*image_shape[:2])
    if margins != ((0, 0), (0, 0)):
        x = keras.layers.Cropping2D(margins, name="crop")(x)
    return keras.Model(inputs, x, name="generator")


def discriminator(
    architecture: str,
    image_shape: tuple[int, int, int],
    classes: int = 0,
    *,
    width: int = 32,
    spectral_norm: bool = False,
) -> keras.Model:
    """Pictures -1..1 in (and class numbers, by projection: Miyato & Koyama 2018), a logit each (batch,) out."""
    doublings = stages(*image_shape[:2])[0]
    normed = keras.layers.SpectralNormalization if spectral_norm else lambda layer: layer
    picture = keras.Input(image_shape, name="picture")
    inputs, x = [picture], picture
    margins = _margins(*image_shape[:2])
    if margins != ((0, 0), (0, 0)):
        x = keras.layers.ZeroPadding2D(margins, name="pad")(x)
    units = width
    x = normed(keras.layers.Conv2D(units, 3, padding="same", kernel_initializer="he_normal", name="first"))(x)
    x = keras.layers.LeakyReLU(0.2, name="first_relu")(x)
    for number in range(1, doublings + 1):
        units *= 2
        x = (_down if architecture == "dcgan" else _residual_down)(x, units, f"down{number}", normed)
    x = keras.layers.Flatten(name="features")(x)
    logit = normed(keras.layers.Dense(1, name="logit"))(x)
    if classes:
        label = keras.Input((), dtype="int32", name="label")
        inputs.append(label)
        match = ClassProjection(classes, name="match")([x, label])
        logit = keras.layers.Add(name="sum")([logit, match])
    logit = keras.layers.Reshape((), name="flat", dtype="float32")(logit)
    return keras.Model(inputs, logit, name="discriminator")


def _normal(stddev: float) -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=stddev)


def _norm(name: str) -> keras.layers.Layer:
    return BatchNorm(momentum=0.9, epsilon=1e-5, name=name)


def _up(x, units: int, name: str):
    """Double the sides: repeated pixels (no checkerboard: Odena 2016), a convolution, batch normalisation, ReLU."""
    x = UpConv2D(units, name=name)(x)
    return keras.layers.ReLU(name=f"{name}_relu")(_norm(f"{name}_norm")(x))


def _down(x, units: int, name: str, normed):
    """Halve the sides: a strided convolution, leaky ReLU."""
    layer = keras.layers.Conv2D(units, 4, strides=2, padding="same", kernel_initializer="he_normal", name=name)
    return keras.layers.LeakyReLU(0.2, name=f"{name}_relu")(normed(layer)(x))


def _residual_up(x, units: int, name: str):
    same = keras.layers.Conv2D(units, 1, use_bias=False, name=f"{name}_same")(x)
    same = keras.layers.UpSampling2D(name=f"{name}_double")(same)
    x = keras.layers.ReLU(name=f"{name}_relu1")(_norm(f"{name}_norm1")(x))
    x = UpConv2D(units, name=f"{name}_1")(x)
    x = keras.layers.ReLU(name=f"{name}_relu2")(_norm(f"{name}_norm2")(x))
    x = keras.layers.Conv2D(units, 3, padding="same", use_bias=False, kernel_initializer="he_normal", name=f"{name}_2")(
        x
    )
    return keras.layers.Add(name=f"{name}_add")([x, same])


def _residual_down(x, units: int, name: str, normed):
    def conv(units, size, name):
        return normed(keras.layers.Conv2D(units, size, padding="same", kernel_initializer="he_normal", name=name))

    same = keras.layers.AveragePooling2D(2, name=f"{name}_halve_same")(x)
    same = conv(units, 1, f"{name}_same")(same)
    x = keras.layers.LeakyReLU(0.2, name=f"{name}_relu1")(conv(x.shape[-1], 3, f"{name}_1")(x))
    x = conv(units, 3, f"{name}_2")(x)
    x = keras.layers.AveragePooling2D(2, name=f"{name}_halve")(x)
    return keras.layers.LeakyReLU(0.2, name=f"{name}_relu2")(keras.layers.Add(name=f"{name}_add")([x, same]))
