"""Explanations of images by the gradient of a class's log odds with respect to the pixels."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dltoolkit.explanation.image_perturbation import SMALL_SIDE, blurred

MAX_PIXELS = 1 << 19  # pixels of a batch whose gradient is computed together
MAX_BATCH = 128  # images of such a batch
NOISY_COPIES = 32  # images with noise whose gradients SmoothGrad averages
NOISE = 0.15  # standard deviation of the noise as a part of the range of the pixels
MIN_STEPS, MAX_STEPS, MAX_STEPS_LARGE = 16, 256, 32  # points between a baseline and the image, and a larger image
COMPLETENESS = 0.01  # error, as a part of the difference to be explained, at which the steps are enough


def log_odds(logits: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Return the logarithm of p / (1 - p) of a class, float32 (n,), for logits (n, classes)."""
    logits = tf.cast(logits, tf.float32)
    others = tf.where(tf.range(tf.shape(logits)[1]) == target, -np.inf, logits)
    return logits[:, target] - tf.reduce_logsumexp(others, axis=1)


class PixelGradients:
    """The gradients of a classifier's log odds with respect to the pixels of images, compiled once.

    Args:
        model: Pixels 0..255 (batch, h, w, c) in, logits out.
    """

    def __init__(self, model: keras.Model):
        shape = model.inputs[0].shape[1:]

        @tf.function(input_signature=[tf.TensorSpec((None, *shape)), tf.TensorSpec((), tf.int32)])
        def compute(images: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            with tf.GradientTape() as tape:
                tape.watch(images)
                odds = log_odds(model(images, training=False), target)
            return odds, tape.gradient(odds, images, unconnected_gradients="zero")

        self._compute = compute

    def __call__(self, images: np.ndarray, target: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the log odds of a class, (n,), and their gradients, (n, h, w, c), for images float32 (n, h, w, c)."""
        size = max(4, min(MAX_BATCH, MAX_PIXELS // (images.shape[1] * images.shape[2])))
        target = tf.constant(target)
        parts = [self._compute(tf.constant(images[i : i + size]), target) for i in range(0, len(images), size)]
        odds, gradients = zip(*parts, strict=True)
        return np.concatenate(odds).astype(np.float64), np.concatenate(gradients)


def gradient_x_input(image: np.ndarray, targets: Sequence[int], gradients: PixelGradients) -> np.ndarray:
    """Return the gradient times the pixels' difference from their mean color, summed over the channels.

    Shrikumar et al., "Not Just a Black Box: Learning Important Features Through Propagating Activation Differences",
    2016, with the mean color in place of black.

    Args:
        image: uint8 (h, w, c).
        targets: Numbers of the classes.
        gradients: Of the model.

    Returns:
        float32 (targets, h, w).
    """
    pixels = image.astype(np.float32)
    difference = pixels - pixels.mean(axis=(0, 1))
    return np.stack([(gradients(pixels[None], target)[1][0] * difference).sum(axis=-1) for target in targets])


def smooth_grad(image: np.ndarray, targets: Sequence[int], gradients: PixelGradients) -> np.ndarray:
    """Return the absolute value of the mean gradient over copies of an image with noise, summed over the channels.

    Smilkov et al., "SmoothGrad: removing noise by adding noise", 2017. Arguments and result are those of
    :func:`gradient_x_input`.
    """
    pixels = image.astype(np.float32)
    noise = np.random.default_rng(0).normal(0, NOISE * np.ptp(pixels), (NOISY_COPIES, *image.shape))
    noisy = (pixels + noise).astype(np.float32)
    return np.stack([np.abs(gradients(noisy, target)[1].mean(axis=0)).sum(axis=-1) for target in targets])


def integrated_gradients(image: np.ndarray, targets: Sequence[int], gradients: PixelGradients) -> np.ndarray:
    """Return the gradients along straight lines from four baselines to an image, times the way, summed over channels.

    Sundararajan, Taly & Yan, "Axiomatic Attribution for Deep Networks", 2017; the mean over several baselines is that
    of Sturmfels, Lundberg & Lee, "Visualizing the Impact of Feature Attribution Baselines", 2020. The values add up to
    the log odds of the image minus the mean of those of the baselines. The number of steps is doubled until they do so
    to 1 %, or until there are 256, or 32 for an image of more than 64 pixels. Arguments and result are those of
    :func:`gradient_x_input`.
    """
    pixels = image.astype(np.float32)
    return np.stack([_integrated(pixels, baselines(image), target, gradients) for target in targets])


def baselines(image: np.ndarray) -> np.ndarray:
    """Return black, white, the mean color and the blurred image, float32 (4, h, w, c)."""
    mean = np.broadcast_to(image.mean(axis=(0, 1)), image.shape)
    return np.stack([np.zeros(image.shape), np.full(image.shape, 255), mean, blurred(image)]).astype(np.float32)


def _integrated(pixels: np.ndarray, starts: np.ndarray, target: int, gradients: PixelGradients) -> np.ndarray:
    ends, _ = gradients(np.concatenate([pixels[None], starts]), target)
    expected = ends[0] - ends[1:].mean()
    steps, max_steps = MIN_STEPS, MAX_STEPS if max(pixels.shape) <= SMALL_SIDE else MAX_STEPS_LARGE
    while True:
        points = (np.arange(steps, dtype=np.float32) + 0.5) / steps
        values = np.zeros(pixels.shape, np.float64)
        for start in starts:
            way = pixels - start
            _, slopes = gradients(start + points[:, None, None, None] * way, target)
            values += slopes.mean(axis=0, dtype=np.float64) * way / len(starts)
        error = abs(values.sum() - expected)
        if error <= COMPLETENESS * abs(expected) or steps >= max_steps:
            return values.sum(axis=-1).astype(np.float32)
        steps *= 2


def pixel_methods(model: keras.Model) -> dict[str, Callable[[np.ndarray, Sequence[int]], np.ndarray]]:
    """Return the methods of this module for a model; none if it reads whole numbers, which have no gradient."""
    if not keras.backend.is_float_dtype(model.inputs[0].dtype) or None in model.inputs[0].shape[1:]:
        return {}
    gradients = PixelGradients(model)
    functions: dict[str, Any] = {
        "integrated-gradients": integrated_gradients,
        "smooth-grad": smooth_grad,
        "gradient-x-input": gradient_x_input,
    }
    return {name: functools.partial(function, gradients=gradients) for name, function in functions.items()}
