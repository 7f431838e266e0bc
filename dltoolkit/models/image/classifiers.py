"""Image classifiers as Keras functional models: raw pixels 0..255 in, logits out, scaling inside.

Every family takes any picture from 8 to 224 pixels and more: the number of halvings follows from the size.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import keras
import numpy as np

from dltoolkit.errors import UserError, suggestion
from dltoolkit.models.image.layers import BatchNorm, Dirac, PatchEmbedding

FAMILIES = ("resnet", "cnn", "alexnet", "mlp", "vit")
SMALLEST = 8  # pixels
PATCH_NUMBERS = 20_000_000  # that the whitening looks at, at most
WHITENED = 24  # directions at most that the resnet's first layer keeps; each gives two channels


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
        family: one of :data:`FAMILIES`.
        input_shape: (height, width, channels) of the pictures, in pixels.
        classes: number of logits.
        widths: units or channels of the layers, smallest first; the family's own by default. What they count is
            said at each family below.
        dropout: share of activations dropped before the logits (in vit: in every block); the family's own by default.

    Returns:
        A functional model named after the family: (batch, height, width, channels) in 0..255 ->
        float32 logits (batch, classes).

    Raises:
        UserError: for an unknown family, a picture below 8 pixels, or values that no network can have.
    """
    families = {"resnet": _resnet, "cnn": _cnn, "alexnet": _alexnet, "mlp": _mlp, "vit": _vit}
    if family not in families:
        near = suggestion(family, FAMILIES)
        raise UserError(f"There is no network family '{family}'; use one of {', '.join(FAMILIES)}.{near}")
    height, width, channels = input_shape
    if min(height, width) < SMALLEST and family != "mlp":
        raise UserError(f"{family} needs at least {SMALLEST} pixels a side, not {height}x{width}; set --image-size.")
    if classes < 2:
        raise UserError(f"A classifier needs at least two classes, not {classes}.")
    if widths is not None and (not widths or min(widths) < 1):
        raise UserError("Widths must be positive numbers, for example --widths 32 --widths 64.")
    if dropout is not None and not 0 <= dropout < 1:
        raise UserError(f"Dropout must be at least 0 and below 1, not {dropout}.")
    inputs = keras.Input((height, width, channels), name="image")
    x = keras.layers.Rescaling(1 / 64, offset=-2.0, name="scale")(inputs)  # 0..255 -> -2..2, of unit size for most
    outputs = families[family](x, classes, widths, dropout, _normalise)
    return keras.Model(inputs, outputs, name=family)


def averaged_with_mirror(model: keras.Model) -> keras.Model:
    """Return a model that answers with the mean of a picture's logits and those of its mirror image.

    It shares the given model's weights and takes twice its time. Same inputs and outputs.
    """
    image = keras.Input(model.input_shape[1:], name="image")
    logits = [model(image), model(keras.ops.flip(image, axis=2))]
    return keras.Model(image, keras.layers.Average(dtype="float32", name="mean")(logits), name=model.name)


def whiten(model: keras.Model, images: np.ndarray) -> None:
    """Make the frozen first layer of a resnet a whitening of its training pictures' patches; call before training.

    Its filters become the principal directions of small patches, each divided by its standard deviation and each in
    both signs, for ReLU would lose one (Page 2019, Jordan 2024). Other families have no such layer and stay as they
    are.

    Args:
        model: as :func:`build` made it.
        images: some training pictures, uint8 (n, height, width, channels); a few hundred will do.
    """
    layer = next((layer for layer in model.layers if layer.name == "whiten"), None)
    if layer is None:
        return
    size, stride, (_, _, channels, filters) = layer.kernel_size[0], layer.strides[0], layer.kernel.shape
    most = max(50, PATCH_NUMBERS // (256 * size * size * channels))
    some = images[:: -(-len(images) // most)]
    every = max(stride, min(some.shape[1:3]) // 16)
    windows = np.lib.stride_tricks.sliding_window_view(some, (size, size), (1, 2))[:, ::every, ::every]
    patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, size * size * channels)  # (patches, numbers)
    patches = patches.astype("float32") / 64
    patches -= patches.mean(axis=0)
    variance, directions = np.linalg.eigh(patches.T @ patches / len(patches))
    largest = np.abs(directions).argmax(axis=0)
    directions *= np.sign(directions[largest, np.arange(len(largest))])  # eigh leaves the sign to the machine
    kept = slice(-1, -1 - filters // 2, -1)  # the largest first
    kernel = (directions / np.sqrt(variance + 5e-4))[:, kept].reshape(size, size, channels, filters // 2)
    layer.set_weights([np.concatenate([kernel, -kernel], axis=-1)])


_normalise = functools.partial(BatchNorm, momentum=0.9, epsilon=1e-5)


def _conv(x, units, name, norm, *, size=3, stride=1, pool=0, initializer="he_normal"):
    """Convolution, max-pooling (before the normalisation, which is then cheaper), normalisation and ReLU."""
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


def _resnet(x, classes, widths, dropout, norm):
    """A shallow, wide residual network made for short trainings, after ResNet-9 (Page 2019) and airbench (Jordan 2024).

    A frozen layer whitens small patches (see ``whiten``). Each stage is a convolution with max-pooling, which begins
    as the identity as far as it goes, and a residual convolution. ``widths``: channels of each stage. A large picture
    is first reduced to at most 64 pixels by the whitening layer's stride.
    """
    stride = 1
    while _side(x) / stride > 64:
        stride *= 2
    size = {1: 3 if x.shape[-1] == 1 else 2, 2: 4, 4: 8}.get(stride, stride)
    x = keras.layers.Conv2D(
        2 * min(WHITENED, size * size * x.shape[-1]),
        size,
        stride,
        padding="valid" if _side(x) >= 24 else "same",  # the row less makes every later stage cheaper
        use_bias=False,
        kernel_initializer="orthogonal",
        trainable=False,
        name="whiten",
    )(x)
    x = keras.layers.ReLU(name="whiten_relu")(x)
    norm = functools.partial(norm, scale=False)  # ReLU and the next normalisation would undo a scale
    for number, units in enumerate(widths or (32, 128, 128), 1):
        x = _conv(x, units, f"stage{number}_down", norm, pool=2 if _side(x) >= 4 else 0, initializer=Dirac())
        x = keras.layers.Add(name=f"stage{number}_add")([x, _conv(x, units, f"stage{number}", norm)])
    x = keras.layers.GlobalMaxPooling2D(name="pool")(x)
    x = keras.layers.Rescaling(1 / 9, name="temper")(x)  # small logits at the start
    return _logits(x, classes, dropout)


def _cnn(x, classes, widths, dropout, norm):
    """A plain stack in the manner of VGG (Simonyan & Zisserman 2014): two convolutions, then halve.

    ``widths``: channels of each stage.
    """
    for number, units in enumerate(widths or (32, 64, 128), 1):
        x = _conv(x, units, f"stage{number}_a", norm)
        x = _conv(x, units, f"stage{number}_b", norm, pool=2 if _side(x) >= 4 else 0)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return _logits(x, classes, 0.2 if dropout is None else dropout)


def _alexnet(x, classes, widths, dropout, norm):
    """AlexNet (Krizhevsky, Sutskever & Hinton 2012): five convolutions, overlapping max-poolings, two dense layers.

    At 128 pixels and more the first convolution is the paper's 11x11 with stride 4; below, 5x5 (with stride 2 from
    64 on), and a pooling is left out where nothing would be left to pool. Batch normalisation stands in
    for the paper's local response normalisation. ``widths``: five numbers of channels, then two of dense units;
    the paper's own (96, 256, 384, 384, 256, 4096, 4096) from 128 pixels on, a quarter of them below.
    """
    side = _side(x)
    paper = (96, 256, 384, 384, 256, 4096, 4096)
    widths = tuple(widths or (paper if side >= 128 else (w // 4 for w in paper)))
    if len(widths) != 7:
        raise UserError(f"alexnet has seven widths (five convolutions, two dense layers), not {len(widths)}.")
    size, stride = (11, 4) if side >= 128 else (5, 2 if side >= 64 else 1)
    sizes, pooled = (size, 5, 3, 3, 3), (True, True, False, False, True)
    for number in range(5):
        x = _conv(x, widths[number], f"layer{number + 1}", norm, size=sizes[number], stride=1 if number else stride)
        if pooled[number] and _side(x) >= 4:
            x = keras.layers.MaxPooling2D(3, 2, padding="valid", name=f"layer{number + 1}_pool")(x)
    x = keras.layers.Flatten(name="flat")(x)
    rate = 0.5 if dropout is None else dropout
    for number in (6, 7):
        if rate:
            x = keras.layers.Dropout(rate, name=f"layer{number}_dropout")(x)
        x = keras.layers.Dense(widths[number - 1], "relu", kernel_initializer="he_normal", name=f"layer{number}")(x)
    return _logits(x, classes, 0)


def _mlp(x, classes, widths, dropout, norm):
    """Dense layers on the flat pixels. ``widths``: units of each hidden layer."""
    x = keras.layers.Flatten(name="flat")(x)
    rate = 0.2 if dropout is None else dropout
    for number, units in enumerate(widths or (512, 256), 1):
        x = keras.layers.Dense(units, "relu", kernel_initializer="he_normal", name=f"dense{number}")(x)
        x = keras.layers.Dropout(rate, name=f"dropout{number}")(x) if rate else x
    return _logits(x, classes, 0)


def _vit(x, classes, widths, dropout, norm):
    """A small vision transformer (Dosovitskiy et al. 2020), normalisation first, averaged over patches at the end.

    Pictures are cut into about 8x8 patches. ``widths``: one number a block, all equal, a multiple of 32 (one
    attention head for each 32).
    """
    widths = tuple(widths or (128,) * 6)
    units, rate = widths[0], 0.0 if dropout is None else dropout
    if set(widths) != {units} or units % 32:
        raise UserError("vit's widths, one a block, must be equal and a multiple of 32: --widths 128 --widths 128.")
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
