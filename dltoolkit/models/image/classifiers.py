"""Image classifiers as Keras functional models: raw pixels 0..255 in, logits out, with the scaling inside.

Every family accepts images from 8 to 224 pixels and more; the number of downsampling steps follows from the size.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import keras
import numpy as np

from dltoolkit.errors import UserError, did_you_mean
from dltoolkit.models.image.layers import BatchNorm, Dirac, PatchEmbedding

FAMILIES = ("resnet", "cnn", "alexnet", "mlp", "vit")
MIN_IMAGE_SIZE = 8  # pixels per side that convolutions, poolings and patches need
MAX_PATCH_VALUES = 20_000_000  # values of all patches that the whitening is computed from, which bounds its memory
# Maximum number of principal directions that the first layer of the resnet keeps. Each gives two channels.
MAX_WHITENING_DIRECTIONS = 24


def build(
    family: str,
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    widths: Sequence[int] | None = None,
    dropout: float | None = None,
) -> keras.Model:
    """Return an untrained classifier.

    Args:
        family: One of :data:`FAMILIES`.
        input_shape: Height, width and channels of the images.
        classes: Number of logits.
        widths: Units or channels of the layers, from the input on; each family below describes its own. None for the
            defaults of the family.
        dropout: Dropout rate before the logits, or in every block of the vit. None for the default of the family.

    Returns:
        A functional model named after the family: pixels 0..255 (batch, height, width, channels) -> float32 logits
        (batch, classes).

    Raises:
        UserError: If the family is unknown, the images are too small, or the widths or the dropout are invalid.
    """
    families = {"resnet": _resnet, "cnn": _cnn, "alexnet": _alexnet, "mlp": _mlp, "vit": _vit}
    if family not in families:
        near = did_you_mean(family, FAMILIES)
        raise UserError(f"There is no network family '{family}'; use one of {', '.join(FAMILIES)}.{near}")
    height, width, channels = input_shape
    if min(height, width) < MIN_IMAGE_SIZE and family != "mlp":
        raise UserError(
            f"{family} needs images of at least {MIN_IMAGE_SIZE} pixels per side, not {height}x{width}; "
            "set --image-size."
        )
    if classes < 2:
        raise UserError(f"A classifier needs at least two classes, not {classes}.")
    if widths is not None and (not widths or min(widths) < 1):
        raise UserError("Widths must be positive integers, for example --widths=32,64.")
    if dropout is not None and not 0 <= dropout < 1:
        raise UserError(f"Dropout must be at least 0 and below 1, not {dropout}.")
    inputs = keras.Input((height, width, channels), name="image")
    x = keras.layers.Rescaling(1 / 64, offset=-2.0, name="scale")(inputs)  # 0..255 -> -2..2, about unit variance
    outputs = families[family](x, classes, widths, dropout)
    return keras.Model(inputs, outputs, name=family)


def with_flip_tta(model: keras.Model) -> keras.Model:
    """Return a model with flip test-time augmentation: the mean of the logits of an image and of its mirror image.

    It has the inputs, outputs and weights of the given model, and takes twice its time.
    """
    model = keras.Model(model.input, model.output, name=model.name)  # training may have changed the class of the model
    image = keras.Input(model.input_shape[1:], name="image")
    logits = [model(image), model(keras.ops.flip(image, axis=2))]
    return keras.Model(image, keras.layers.Average(dtype="float32", name="mean")(logits), name=model.name)


def whiten(model: keras.Model, images: np.ndarray) -> None:
    """Set the frozen first layer of a resnet to whiten the patches of its training images; call it before training.

    The filters become the principal directions of small patches, each divided by its standard deviation and each in
    both signs, because ReLU discards one of them (Page 2019, Jordan 2024). Other families have no such layer and are
    not changed.

    Args:
        model: A model of :func:`build`.
        images: A few hundred training images, uint8 (n, height, width, channels).
    """
    layer = next((layer for layer in model.layers if layer.name == "whiten"), None)
    if layer is None:
        return
    size, stride, (_, _, channels, filters) = layer.kernel_size[0], layer.strides[0], layer.kernel.shape
    max_images = max(50, MAX_PATCH_VALUES // (256 * size * size * channels))
    images = images[:: -(-len(images) // max_images)]
    step = max(stride, min(images.shape[1:3]) // 16)  # pixels between two patches: about 16x16 per image
    windows = np.lib.stride_tricks.sliding_window_view(images, (size, size), (1, 2))[:, ::step, ::step]
    patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, size * size * channels)  # (patches, values)
    patches = patches.astype("float32") / 64
    patches -= patches.mean(axis=0)
    variance, directions = np.linalg.eigh(patches.T @ patches / len(patches))
    largest = np.abs(directions).argmax(axis=0)
    directions *= np.sign(directions[largest, np.arange(len(largest))])  # the sign that eigh returns is arbitrary
    by_variance = slice(-1, -1 - filters // 2, -1)  # largest first
    kernel = (directions / np.sqrt(variance + 5e-4))[:, by_variance].reshape(size, size, channels, filters // 2)
    layer.set_weights([np.concatenate([kernel, -kernel], axis=-1)])


_batch_norm = functools.partial(BatchNorm, momentum=0.9, epsilon=1e-5)


def _conv(x, units, name, *, size=3, stride=1, pool=0, initializer="he_normal", norm=_batch_norm):
    """Apply a convolution, max pooling, batch normalization and ReLU; pooling first makes normalization cheaper."""
    x = keras.layers.Conv2D(
        units, size, stride, padding="same", use_bias=False, kernel_initializer=initializer, name=f"{name}_conv"
    )(x)
    if pool:
        x = keras.layers.MaxPooling2D(pool, name=f"{name}_pool")(x)
    x = norm(name=f"{name}_norm")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def _logits(x, classes, dropout):
    if dropout:
        x = keras.layers.Dropout(dropout, name="dropout")(x)
    return keras.layers.Dense(classes, dtype="float32", name="logits")(x)


def _side(x) -> int:
    return min(x.shape[1:3])


def _resnet(x, classes, widths, dropout):
    """Return logits of a shallow, wide residual network, after ResNet-9 (Page 2019) and airbench (Jordan 2024).

    A frozen layer whitens small patches (see ``whiten``). Each stage consists of a convolution with max pooling, which
    is initialized to copy its input channels, and a residual convolution. ``widths``: channels of each stage. The
    stride of the whitening layer reduces large images to at most 64 pixels per side.
    """
    stride = 1
    while _side(x) / stride > 64:
        stride *= 2
    size = {1: 3 if x.shape[-1] == 1 else 2, 2: 4, 4: 8}.get(stride, stride)
    x = keras.layers.Conv2D(
        2 * min(MAX_WHITENING_DIRECTIONS, size * size * x.shape[-1]),
        size,
        stride,
        padding="valid" if _side(x) >= 24 else "same",  # one row less makes every later stage cheaper
        use_bias=False,
        kernel_initializer="orthogonal",
        trainable=False,
        name="whiten",
    )(x)
    x = keras.layers.ReLU(name="whiten_relu")(x)
    norm = functools.partial(_batch_norm, scale=False)  # ReLU and the next normalization would undo a scale
    for number, units in enumerate(widths or (32, 128, 128), 1):
        x = _conv(x, units, f"stage{number}_down", pool=2 if _side(x) >= 4 else 0, initializer=Dirac(), norm=norm)
        x = keras.layers.Add(name=f"stage{number}_add")([x, _conv(x, units, f"stage{number}", norm=norm)])
    x = keras.layers.GlobalMaxPooling2D(name="pool")(x)
    x = keras.layers.Rescaling(1 / 9, name="temper")(x)  # makes the initial logits small
    return _logits(x, classes, dropout)


def _cnn(x, classes, widths, dropout):
    """Return logits of a network like VGG (Simonyan & Zisserman 2014): two convolutions and a pooling per stage.

    ``widths``: channels of each stage.
    """
    for number, units in enumerate(widths or (32, 64, 128), 1):
        x = _conv(x, units, f"stage{number}_a")
        x = _conv(x, units, f"stage{number}_b", pool=2 if _side(x) >= 4 else 0)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return _logits(x, classes, 0.2 if dropout is None else dropout)


def _alexnet(x, classes, widths, dropout):
    """Return logits of AlexNet (Krizhevsky, Sutskever & Hinton 2012).

    It has five convolutions with overlapping max pooling, and two dense layers before the logits. For images of 128
    pixels and more, the first convolution is the paper's 11x11 with stride 4. For smaller ones it is 5x5, with stride 2
    from 64 pixels on, and a pooling is omitted if fewer than 4 pixels are left. Batch normalization replaces the
    paper's local response normalization. ``widths``: channels of the five convolutions and units of the two dense
    layers, by default (96, 256, 384, 384, 256, 4096, 4096) as in the paper, or a quarter of these below 128 pixels.
    """
    side = _side(x)
    paper = (96, 256, 384, 384, 256, 4096, 4096)
    widths = tuple(widths or (paper if side >= 128 else (w // 4 for w in paper)))
    if len(widths) != 7:
        raise UserError(f"alexnet needs seven widths (five convolutions, two dense layers), not {len(widths)}.")
    size, stride = (11, 4) if side >= 128 else (5, 2 if side >= 64 else 1)
    sizes, pooled = (size, 5, 3, 3, 3), (True, True, False, False, True)
    for number in range(5):
        x = _conv(x, widths[number], f"layer{number + 1}", size=sizes[number], stride=1 if number else stride)
        if pooled[number] and _side(x) >= 4:
            x = keras.layers.MaxPooling2D(3, 2, padding="valid", name=f"layer{number + 1}_pool")(x)
    x = keras.layers.Flatten(name="flat")(x)
    rate = 0.5 if dropout is None else dropout
    for number in (6, 7):
        if rate:
            x = keras.layers.Dropout(rate, name=f"layer{number}_dropout")(x)
        x = keras.layers.Dense(widths[number - 1], "relu", kernel_initializer="he_normal", name=f"layer{number}")(x)
    return _logits(x, classes, 0)


def _mlp(x, classes, widths, dropout):
    """Return logits of dense layers on the flattened pixels. ``widths``: units of each hidden layer."""
    x = keras.layers.Flatten(name="flat")(x)
    rate = 0.2 if dropout is None else dropout
    for number, units in enumerate(widths or (512, 256), 1):
        x = keras.layers.Dense(units, "relu", kernel_initializer="he_normal", name=f"dense{number}")(x)
        x = keras.layers.Dropout(rate, name=f"dropout{number}")(x) if rate else x
    return _logits(x, classes, 0)


def _vit(x, classes, widths, dropout):
    """Return logits of a small vision transformer (Dosovitskiy et al. 2020) with pre-normalization and mean pooling.

    Images are divided into about 8x8 patches. ``widths``: units of each block, all equal and a multiple of 32, because
    each attention head has 32.
    """
    widths = tuple(widths or (128,) * 6)
    units, rate = widths[0], 0.0 if dropout is None else dropout
    if set(widths) != {units} or units % 32:
        raise UserError(
            "The widths of vit, one per block, must be equal and a multiple of 32, for example --widths=128,128."
        )
    x = PatchEmbedding(max(1, round(_side(x) / 8)), units, name="patches")(x)  # (batch, patches, units)
    for number in range(1, len(widths) + 1):
        y = keras.layers.LayerNormalization(epsilon=1e-6, name=f"block{number}_norm1")(x)
        y = keras.layers.MultiHeadAttention(units // 32, 32, dropout=rate, name=f"block{number}_attention")(y, y)
        x = keras.layers.Add(name=f"block{number}_add1")([x, y])
        y = keras.layers.LayerNormalization(epsilon=1e-6, name=f"block{number}_norm2")(x)
        y = keras.layers.Dense(2 * units, "gelu", name=f"block{number}_expand")(y)
        y = keras.layers.Dense(units, name=f"block{number}_reduce")(y)
        y = keras.layers.Dropout(rate, name=f"block{number}_dropout")(y) if rate else y
        x = keras.layers.Add(name=f"block{number}_add2")([x, y])
    x = keras.layers.LayerNormalization(epsilon=1e-6, name="norm")(x)
    x = keras.layers.GlobalAveragePooling1D(name="pool")(x)
    return _logits(x, classes, 0)
