"""Image augmentation for tf.data: stateless, on a whole batch of uint8 pixels, compilable with XLA.

Flips, shifts and cutout are index arithmetic on bytes and take little time next to a training step; crops and color
jitter are computed in float32; mixup and CutMix also mix the labels. Equal seeds give equal images, but XLA draws other
random numbers than TensorFlow's kernels do.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import tensorflow as tf

from dltoolkit import plan

STRONG_CROP_AREA = 0.35  # smallest area of a crop with --augment strong; 0.08 as for ImageNet loses small objects
STRONG_COLOR_JITTER = 0.4  # strength with --augment strong
MAX_CROP_RATIO = 4 / 3  # aspect ratio of a crop, or its inverse


@dataclass(frozen=True)
class Augment:
    """Augmentation of training images.

    Args:
        flip: Whether to flip half of the images left to right; see :func:`dltoolkit.data.image.flips.resolve`.
        shift: Maximum shift in pixels in each direction; the edge is filled by reflection.
        min_crop_area: Smallest area of a random crop, relative to the image, that is resized to the size of the image
            (random resized crop, Szegedy et al. 2015), with an aspect ratio from 3/4 to 4/3; 0 for no crops.
        cutout: Side in pixels of a square that is filled with the image's mean color (DeVries & Taylor 2017); 0 for
            none.
        color_jitter: Strength of random brightness, contrast and, for three channels, saturation; 0.2 means up to
            20 %.
        mixup: Alpha of the Beta distribution that mixes images and labels (Zhang et al. 2017); 0 for none.
        cutmix: Alpha of the Beta distribution of the area pasted from another image (Yun et al. 2019); 0 for none.
            With both mixup and CutMix, each batch uses one of the two at random.
        flip_reason: Why the images are flipped or not, in words.
    """

    flip: bool = False
    shift: int = 0
    min_crop_area: float = 0.0
    cutout: int = 0
    color_jitter: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    flip_reason: str = ""

    def describe(self) -> str:
        """Return the augmentation in words, such as "flip (mirror images keep their labels), shift 2"."""
        changes = {name: value for name, value in asdict(self).items() if name not in ("flip", "flip_reason")}
        parts = [] if plan.settings(changes) == "none" else [plan.settings(changes)]
        reason = f" ({self.flip_reason})" if self.flip_reason else ""
        return ", ".join([f"flip{reason}", *parts] if self.flip else [*parts, f"no flip{reason}"])


def default_augmentation(
    image_shape: tuple[int, int, int], *, flip: bool, flip_reason: str = "", strength: Literal[True, "strong"] = True
) -> Augment:
    """Return the default augmentation: flips on request and shifts by up to a sixteenth of the shorter side.

    Args:
        image_shape: Height, width and channels.
        flip: Whether to flip images; see :func:`dltoolkit.data.image.flips.resolve`.
        flip_reason: Why, in words.
        strength: Value of ``--augment``; ``strong`` replaces shifts by random resized crops and color jitter.
    """
    if strength == "strong":
        strong = {"min_crop_area": STRONG_CROP_AREA, "color_jitter": STRONG_COLOR_JITTER}
        return Augment(flip=flip, flip_reason=flip_reason, **strong)
    return Augment(flip=flip, flip_reason=flip_reason, shift=max(1, round(min(image_shape[:2]) / 16)))


def resolve_tta(requested: bool | None, augment: Augment | None) -> bool:
    """Return whether predictions are averaged over the image and its mirror image, by default if training flips.

    Args:
        requested: Value of ``--tta``, or None.
        augment: Augmentation of the training images, or None.
    """
    return bool(augment and augment.flip) if requested is None else requested


def augment_batch(
    images: tf.Tensor, one_hot: tf.Tensor, seed: tf.Tensor, options: Augment
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return an augmented copy of a batch.

    Args:
        images: Images uint8 (batch, height, width, channels).
        one_hot: Labels float (batch, classes).
        seed: Two integers; equal seeds give equal results.
        options: The augmentation.

    Returns:
        The images, uint8, and the labels, which mixup and CutMix change.
    """
    seeds = tf.unstack(tf.random.split(tf.cast(seed, tf.int32), 5))
    if options.flip or options.shift:
        images = _flip_and_shift(images, seeds[0], options)
    if options.min_crop_area:
        images = _random_resized_crop(images, tf.random.split(seeds[0], 2)[1], options.min_crop_area)
    if options.color_jitter:
        images = _color_jitter(images, seeds[1], options.color_jitter)
    if options.cutout:
        images = _cutout(images, seeds[2], options.cutout)
    if options.mixup and options.cutmix:
        mixed = _mixup(images, one_hot, seeds[3], options.mixup)
        pasted = _cutmix(images, one_hot, seeds[3], options.cutmix)
        use_mixup = tf.random.stateless_uniform((), seeds[4]) < 0.5
        return tf.where(use_mixup, mixed[0], pasted[0]), tf.where(use_mixup, mixed[1], pasted[1])
    if options.mixup:
        return _mixup(images, one_hot, seeds[3], options.mixup)
    if options.cutmix:
        return _cutmix(images, one_hot, seeds[3], options.cutmix)
    return images, one_hot


def _flip_and_shift(images, seed, options: Augment):
    """Flip and shift images by gathering their rows and columns."""
    count, height, width, _ = _shape(images)
    draw = tf.random.stateless_uniform((3, count, 1), seed)
    steps = 2 * options.shift + 1
    down, right = (tf.cast(draw[i] * steps, tf.int32) - options.shift for i in (0, 1))  # (batch, 1)
    columns = tf.range(width)[None] + right
    if options.flip:
        columns = tf.where(draw[2] < 0.5, columns, width - 1 - columns)
    if options.shift:
        images = tf.gather(images, _reflect(tf.range(height)[None] + down, height), axis=1, batch_dims=1)
    return _gather_columns(images, _reflect(columns, width))


def _gather_columns(images, columns):
    """Return images (batch, height, width, channels) whose columns are those at the indices (batch, width)."""
    transposed = tf.transpose(images, (0, 2, 1, 3))
    return tf.transpose(tf.gather(transposed, columns, axis=1, batch_dims=1), (0, 2, 1, 3))


def _reflect(index, size):
    """Return indices within 0..size-1, reflected at both edges without repeating the edge pixel."""
    index = tf.abs(index)
    return tf.clip_by_value(tf.minimum(index, 2 * (size - 1) - index), 0, size - 1)


def _random_resized_crop(images, seed, min_area):
    """Resize a random box of each image to the size of the image."""
    count, height, width, _ = _shape(images)
    draw = tf.random.stateless_uniform((4, count, 1), seed)
    area = min_area + (1.0 - min_area) * draw[0]
    aspect_ratio = tf.exp((2.0 * draw[1] - 1.0) * np.log(MAX_CROP_RATIO).astype("float32"))
    box_height = tf.minimum(tf.sqrt(area / aspect_ratio), 1.0)  # relative to the image
    box_width = tf.minimum(tf.sqrt(area * aspect_ratio), 1.0)
    x = _resample_rows(tf.cast(images, tf.float32), draw[2] * (1.0 - box_height), box_height, height)
    x = tf.transpose(x, (0, 2, 1, 3))
    x = _resample_rows(x, draw[3] * (1.0 - box_width), box_width, width)
    return _to_uint8(tf.transpose(x, (0, 2, 1, 3)))


def _resample_rows(x, start, length, size):
    """Return a part of the rows of images (batch, size, …), resized to ``size`` rows by linear interpolation.

    Args:
        x: Images, float (batch, size, …, …).
        start: Beginning of the part, relative to ``size``, (batch, 1).
        length: Length of the part, relative to ``size``, (batch, 1).
        size: Number of rows.
    """
    size = tf.cast(size, tf.float32)
    positions = start * size + (tf.range(size)[None] + 0.5) * length - 0.5  # of the centers of the rows
    positions = tf.clip_by_value(positions, 0.0, size - 1.0)
    lower = tf.floor(positions)
    weight = (positions - lower)[:, :, None, None]
    lower = tf.cast(lower, tf.int32)
    upper = tf.minimum(lower + 1, tf.cast(size, tf.int32) - 1)
    first, second = (tf.gather(x, rows, axis=1, batch_dims=1) for rows in (lower, upper))
    return first + weight * (second - first)


def _color_jitter(images, seed, strength):
    count = _shape(images)[0]
    factors = 1.0 + strength * (2.0 * tf.random.stateless_uniform((3, count, 1, 1, 1), seed) - 1.0)
    x = tf.cast(images, tf.float32)
    if images.shape[-1] == 3:
        gray = tf.reduce_mean(x, axis=-1, keepdims=True)
        x = gray + (x - gray) * factors[0]
    mean = tf.reduce_mean(x, axis=(1, 2, 3), keepdims=True)
    x = ((x - mean) * factors[1] + mean) * factors[2]
    return _to_uint8(x)


def _cutout(images, seed, side):
    count, height, width, _ = _shape(images)
    draw = tf.random.stateless_uniform((2, count, 1), seed)
    image_height, image_width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    inside = _box_mask(draw[0] * image_height, draw[1] * image_width, side, side, height, width)
    mean = _to_uint8(tf.reduce_mean(tf.cast(images, tf.float32), axis=(1, 2), keepdims=True))
    return tf.where(inside[..., None], mean, images)


def _mixup(images, one_hot, seed, alpha):
    lam = _beta(_shape(images)[0], alpha, seed)  # (batch,)
    image_lam = lam[:, None, None, None]
    first, second = tf.cast(images, tf.float32), tf.cast(tf.roll(images, 1, 0), tf.float32)
    labels = lam[:, None] * one_hot + (1.0 - lam[:, None]) * tf.roll(one_hot, 1, 0)
    return _to_uint8(image_lam * first + (1.0 - image_lam) * second), labels


def _cutmix(images, one_hot, seed, alpha):
    count, height, width, _ = _shape(images)
    seeds = tf.unstack(tf.random.split(seed, 2))
    side = tf.sqrt(1.0 - _beta(count, alpha, seeds[0]))[:, None]  # (batch, 1), relative to the image's sides
    draw = tf.random.stateless_uniform((2, count, 1), seeds[1])
    image_height, image_width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    box_height, box_width = side * image_height, side * image_width
    inside = _box_mask(draw[0] * image_height, draw[1] * image_width, box_height, box_width, height, width)
    lam = 1.0 - tf.reduce_mean(tf.cast(inside, tf.float32), axis=(1, 2))[:, None]  # after clipping at the edges
    labels = lam * one_hot + (1.0 - lam) * tf.roll(one_hot, 1, 0)
    return tf.where(inside[..., None], tf.roll(images, 1, 0), images), labels


def _box_mask(center_y, center_x, box_height, box_width, height, width):
    """Return masks (batch, height, width) that are True inside a box, which the edges of the image may clip.

    Args:
        center_y, center_x: Centers of the boxes in pixels, (batch, 1).
        box_height, box_width: Sides of the boxes in pixels, (batch, 1) or a number.
        height, width: Sides of the image.
    """

    def span(center, length, size):
        start = tf.round(center - length / 2)
        positions = tf.cast(tf.range(size), tf.float32)[None]
        return (positions >= start) & (positions < start + tf.round(tf.cast(length, tf.float32)))

    return span(center_y, box_height, height)[:, :, None] & span(center_x, box_width, width)[:, None, :]


def _beta(count, alpha, seed):
    """Return (count,) samples of Beta(alpha, alpha) from a table of quantiles; on a CPU, XLA has no gamma sampler."""
    table = np.sort(np.random.default_rng(0).beta(alpha, alpha, 1 << 16))[8::16].astype("float32")
    return tf.gather(table, tf.cast(tf.random.stateless_uniform((count,), seed) * len(table), tf.int32))


def _to_uint8(x):
    return tf.cast(tf.clip_by_value(tf.round(x), 0.0, 255.0), tf.uint8)


def _shape(images):
    dynamic = tf.shape(images)
    return [dynamic[i] if side is None else side for i, side in enumerate(images.shape)]
