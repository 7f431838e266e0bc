"""Conversion of image arrays to 8-bit pixels."""

import numpy as np

from dltoolkit.data.image import decode
from dltoolkit.errors import UserError

CHUNK = 1024  # images converted at a time; as float32, all of them would take four times the memory


def to_pixels(array: np.ndarray, name: str) -> np.ndarray:
    """Return images as uint8 (n, height, width, channels) with 1 or 3 channels.

    Args:
        array: (n, height, width), or (n, height, width, channels) with 1, 3 or 4 channels; transparent pixels become
            white. Its values are uint8, bool, uint16, other integers from 0 to 255, or floats from 0 to 1 or to 255.
        name: Name of the array in messages.

    Raises:
        UserError: If the shape or the values are others.
    """
    array = np.asarray(array)
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[-1] not in (1, 3, 4):
        hint = " (move the channels last)" if array.ndim == 4 and array.shape[1] in (1, 3, 4) else ""
        raise UserError(
            f"{name} has the shape {array.shape}, but images are (n, height, width) or (n, height, width, channels) "
            f"with 1, 3 or 4 channels{hint}."
        )
    if 0 in array.shape:
        raise UserError(f"{name} is empty: its shape is {array.shape}.")
    pixels = _to_uint8(array, name)
    if pixels.shape[-1] == 4:
        alpha = pixels[..., 3:].astype(np.uint16)
        pixels = ((pixels[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def _to_uint8(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "iuf":
        raise UserError(f"{name} is of type {array.dtype}, but images are numbers.")
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():
        raise UserError(f"{name} contains values that are not finite (NaN or infinity).")
    unit = array.dtype.kind == "f" and low >= 0 and high <= decode.MAX_UNIT_VALUE
    scale = 255 if unit else 1 / 257 if array.dtype == np.uint16 and high > 255 else 1
    if low < 0 or (high * scale > 255.5 and not unit):
        raise UserError(f"{name} has values from {low:g} to {high:g}, but images have 0 to 255, or floats 0 to 1.")
    pixels = np.empty(array.shape, np.uint8)
    for start in range(0, len(array), CHUNK):
        chunk = array[start : start + CHUNK]
        pixels[start : start + CHUNK] = np.minimum(255, np.round(chunk.astype(np.float32) * scale))
    return pixels
