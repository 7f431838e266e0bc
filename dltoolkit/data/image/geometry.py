"""What resizing does to the images of a data set: sizes, used pixels and warnings about images that lose most."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dltoolkit.data.image.preprocessing import MAX_REMARKABLE_LOSS, Preprocessing, cropped_fractions

MIN_SIDE = 4  # pixels; an image with a shorter side shows hardly anything
MAX_ASPECT_RATIO = 10  # longer to shorter side of an image above which it is a strip
MAX_REDUCTION = 8  # ratio of an image's side to that of the pixels above which most details are lost
MAX_ENLARGEMENT = 8  # ratio of the side of the pixels to that of an image above which the image is a blur


def describe(
    sizes: np.ndarray, names: Sequence[str], preprocessing: Preprocessing, *, is_default: bool
) -> dict[str, Any]:
    """Return ``sizes`` in words, the fraction ``pixels_used``, and ``warnings``.

    Args:
        sizes: Width and height of each image, int (n, 2); 0 for unreadable images.
        names: Names of the images.
        preprocessing: The way from the images to their pixels.
        is_default: Whether the images determined the size of the pixels, instead of an option.
    """
    readable = np.flatnonzero(sizes[:, 0])
    sizes = sizes[readable]
    return {
        "sizes": _in_words(sizes),
        "pixels_used": preprocessing.pixels_used(sizes),
        "warnings": _warnings(sizes, [names[i] for i in readable], preprocessing, is_default),
    }


def _in_words(sizes: np.ndarray) -> str:
    if not len(sizes):
        return ""
    order = np.argsort(sizes.prod(axis=1), kind="stable")
    smallest, largest = (f"{width}x{height}" for width, height in sizes[order[[0, -1]]].tolist())
    return smallest if smallest == largest and (sizes == sizes[0]).all() else f"{smallest} to {largest}"


def _warnings(sizes: np.ndarray, names: Sequence[str], preprocessing: Preprocessing, is_default: bool) -> list[str]:
    height, width, _ = preprocessing.image_shape
    short, long = sizes.min(axis=1), sizes.max(axis=1)
    target = f"{width}x{height}"

    def sentence(mask: np.ndarray, singular: str, plural: str, extreme: np.ndarray, advice: str = "") -> list[str]:
        """Return a sentence about the images of a mask, which names the most extreme one."""
        count = int(mask.sum())
        if not count:
            return []
        index = int(np.where(mask, extreme, -np.inf).argmax())
        example = f"{names[index]} ({sizes[index][0]}x{sizes[index][1]})"
        subject = f"1 image {singular}: {example}" if count == 1 else f"{count:,} images {plural}, such as {example}"
        return [f"{subject}{advice}."]

    lost = 1 - cropped_fractions(sizes, width / height) if preprocessing.resize == "crop" else np.zeros(len(sizes))
    tiny = (short < MIN_SIDE) | (long * MAX_ENLARGEMENT <= min(width, height))
    tiny &= short < min(width, height)
    strips = long > MAX_ASPECT_RATIO * short
    large = short >= MAX_REDUCTION * max(width, height)
    warnings = sentence(
        tiny,
        f"is too small to show much and is enlarged to {target}",
        f"are too small to show much and are enlarged to {target}",
        -short.astype(float),
    )
    warnings += sentence(
        strips & ~(lost > MAX_REMARKABLE_LOSS),
        f"is a strip, which {preprocessing.resize} brings to {target}",
        f"are strips, which {preprocessing.resize} brings to {target}",
        long / short,
    )
    warnings += sentence(
        lost > MAX_REMARKABLE_LOSS,
        "loses more than half of its pixels by cropping",
        "lose more than half of their pixels by cropping",
        lost,
        "; --resize=letterbox or stretch keeps them",
    )
    if is_default and large.mean() < 0.5:  # if most images are large, the size of the pixels says it
        warnings += sentence(
            large,
            f"is reduced to {target}, because most images are small",
            f"are reduced to {target}, because most images are small",
            long.astype(float),
            "; --image-size sets another size",
        )
    return warnings
