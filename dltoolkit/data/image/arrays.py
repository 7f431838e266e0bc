"""Conversion of image arrays to 8-bit pixels."""

import numpy as np

from dltoolkit.data.image.scale import USUAL_RANGES, Scale, ValueStatistics, is_8_bit
from dltoolkit.errors import UserError

CHUNK = 1024  # images converted at a time; as float32, all of them would take four times the memory


def with_channels(array: np.ndarray, name: str = "the array") -> np.ndarray:
    """Return images as (n, height, width, channels) with 1, 3 or 4 channels, and check shape and type.

    Args:
        array: (n, height, width), or (n, height, width, channels) with 1, 3 or 4 channels.
        name: Name of the array in messages.

    Raises:
        UserError: If the shape is another one, or the values are not numbers.
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
    if array.dtype.kind not in "iufb":
        raise UserError(f"{name} is of type {array.dtype}, but images are numbers.")
    return array


def one_with_channels(array: np.ndarray) -> np.ndarray:
    """Return one image as (height, width, channels) with 1, 3 or 4 channels, and check its shape.

    Args:
        array: (height, width), or (height, width, channels) with 1, 3 or 4 channels.

    Raises:
        UserError: If the shape is another one; the message is a short reason.
    """
    if not array.size:
        raise UserError(f"an empty array of shape {array.shape}")
    image = array[..., None] if array.ndim == 2 else array
    if image.ndim != 3 or image.shape[-1] not in (1, 3, 4):
        hint = ": move the channels last" if image.ndim == 3 and image.shape[0] in (1, 3, 4) else ""
        raise UserError(f"an array of shape {array.shape} is not one image{hint}")
    return image


def rows_not_finite(array: np.ndarray) -> np.ndarray:
    """Return which images of an array (n, h, w, c) have a value that is NaN or infinite, as row numbers int64."""
    if array.dtype.kind != "f":
        return np.empty(0, np.int64)
    chunks = (array[start : start + CHUNK] for start in range(0, len(array), CHUNK))
    return np.flatnonzero(np.concatenate([~np.isfinite(chunk).all(axis=(1, 2, 3)) for chunk in chunks]))


def statistics(array: np.ndarray) -> ValueStatistics:
    """Return range and outliers of all images of an array (n, h, w, c); a fourth channel is opacity and is left out.

    Raises:
        UserError: If a value is NaN or infinite; the message is a short reason.
    """
    starts = range(0, len(array), CHUNK)
    result = ValueStatistics(len(starts))
    for position, start in enumerate(starts):
        result.add(position, array[start : start + CHUNK, ..., :3])
    return result


def to_pixels(array: np.ndarray, scale: Scale) -> np.ndarray:
    """Return images as uint8 (n, height, width, channels) with 1 or 3 channels; transparent pixels become white.

    Args:
        array: (n, height, width, channels) with 1, 3 or 4 channels.
        scale: The scale of the values.

    Raises:
        UserError: If the values are not finite or do not fit; the message is a short reason.
    """
    color = array[..., :3]
    if is_8_bit(array):
        pixels = scale.to_pixels(color)
    else:
        pixels = np.empty(color.shape, np.uint8)
        for start in range(0, len(array), CHUNK):
            pixels[start : start + CHUNK] = scale.to_pixels(color[start : start + CHUNK])
    if array.shape[-1] == 4:
        opacity = _opacity(array[..., 3:]).astype(np.uint16)
        pixels = ((pixels * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def _opacity(values: np.ndarray) -> np.ndarray:
    """Return the fourth channel as uint8; its greatest value lies in the usual range that it has."""
    if is_8_bit(values):
        return Scale().to_pixels(values)
    highest = float(values.max())
    opaque = next((high for low, high in USUAL_RANGES if low == 0 and highest <= high), highest)
    return Scale(0.0, opaque, 0.0, opaque).to_pixels(values)
