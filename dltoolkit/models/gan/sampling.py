"""Sampling of latents, and of images from a generator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.special

from dltoolkit import lazy
from dltoolkit.data import batches

if TYPE_CHECKING:
    import keras

LATENT_DIM = 64  # random numbers that an image is generated from
BATCH_SIZE = 256  # images generated at a time


def sample_images(
    generator: keras.Model,
    count: int,
    *,
    labels: np.ndarray | None = None,
    seed: int = 0,
    truncation: float | None = None,
) -> np.ndarray:
    """Return random images, uint8 (count, h, w, c); see :func:`sample_latents` and :func:`generate_images`."""
    return generate_images(generator, sample_latents(count, seed, truncation), labels)


def sample_latents(count: int, seed: int, truncation: float | None = None) -> np.ndarray:
    """Return normally distributed latents, float32 (count, 64).

    Args:
        count: Number of latents; the first ones do not depend on it.
        seed: Any integer; equal seeds give equal latents.
        truncation: Largest absolute value, from which the distribution is cut off (Brock et al. 2019), or None.
    """
    uniform = np.random.default_rng(seed % 2**31).random((count, LATENT_DIM))
    upper = 1.0 if truncation is None else scipy.special.ndtr(truncation)
    return scipy.special.ndtri((1 - upper) + uniform * (2 * upper - 1)).astype("float32")


def interpolate_latents(latents: np.ndarray, steps: int) -> np.ndarray:
    """Return latents (count * steps, units) that lead from each row to the next, and from the last to the first.

    The interpolation is spherical, so that all latents have the length that is usual for random ones.

    Args:
        latents: Latents (count, units).
        steps: Steps from each row to the next.
    """
    following = np.roll(latents, -1, axis=0)
    lengths = [np.linalg.norm(rows, axis=1, keepdims=True) for rows in (latents, following)]
    start, end = latents / lengths[0], following / lengths[1]
    angle = np.arccos(np.clip((start * end).sum(axis=1, keepdims=True), -1, 1)) + 1e-6
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]  # (1, steps, 1)
    directions = np.sin((1 - t) * angle[:, None]) * start[:, None] + np.sin(t * angle[:, None]) * end[:, None]
    length = (1 - t) * lengths[0][:, None] + t * lengths[1][:, None]
    return (directions / np.sin(angle)[:, None] * length).reshape(-1, latents.shape[1]).astype("float32")


@lazy.quiet_tensorflow()
def generate_images(generator: keras.Model, latents: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
    """Return the images that a generator makes of latents, uint8 (count, h, w, c).

    Args:
        generator: Model of :func:`~dltoolkit.models.gan.networks.build_generator`.
        latents: Latents float32 (count, 64).
        labels: Class numbers int (count,); an unconditional generator ignores them.
    """
    if len(generator.inputs) == 1:
        images = batches.predict_in_batches(lambda rows: generator.predict_on_batch(rows[0]), [latents], BATCH_SIZE)
    else:
        inputs = [latents, np.asarray(labels, "int32")]
        images = batches.predict_in_batches(generator.predict_on_batch, inputs, BATCH_SIZE)
    return np.clip(np.round((images + 1) * 127.5), 0, 255).astype("uint8")
