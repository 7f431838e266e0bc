"""Maps over images, in colors that people with any color vision tell apart."""

from __future__ import annotations

import numpy as np
from PIL import Image

from dltoolkit.report import image_grids

SIDE = 224  # pixels of the longer side of a map that a page shows
FOR, AGAINST = (230, 97, 0), (60, 80, 200)  # orange and blue: red-green and blue-yellow blindness keep them apart
MAX_OPACITY = 0.8  # of the strongest color, through which the image can still be seen
QUANTILE = 99.5  # percentile of the absolute values with the strongest color, so that no single pixel fades the rest


def png(image: np.ndarray, values: np.ndarray, scale: float | None = None) -> bytes:
    """Return a PNG of an image in gray with a map over it: orange speaks for the class, and blue against it.

    Args:
        image: uint8 (h, w, c).
        values: Map float (h, w).
        scale: The absolute value with the strongest color; None for that of the map.
    """
    return image_grids.png(draw(image, values, scale))


def draw(image: np.ndarray, values: np.ndarray, scale: float | None = None) -> np.ndarray:
    """Return the image of :func:`png`, uint8 (h, w, 3), with a longer side of at least 224 pixels."""
    base = np.asarray(image_grids.fit(image, SIDE).convert("L"), np.float32)[..., None] * 0.6 + 70
    size = base.shape[1::-1]
    large = np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    strength = np.clip(large / (scale or strongest(values) or 1), -1, 1)[..., None]
    color = np.where(strength > 0, np.array(FOR, np.float32), np.array(AGAINST, np.float32))
    opacity = MAX_OPACITY * np.abs(strength)
    return np.rint(base * (1 - opacity) + color * opacity).astype(np.uint8)


def strongest(*maps: np.ndarray) -> float:
    """Return the absolute value that gets the strongest color in maps that share a scale."""
    return float(np.percentile(np.abs(np.concatenate([values.ravel() for values in maps])), QUANTILE))
