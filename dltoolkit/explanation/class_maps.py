"""What each class looks at: the mean map of its images, which shows marks that belong to the data, not to the class."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

MIN_IMAGES = 5  # images of a class below which their mean says nothing
MAX_IMAGES = 100  # images of a class, evenly spaced, above which it hardly changes
MAX_CLASSES = 24  # classes, those with the most images first
CORNER, BORDER = 3 / 8, 1 / 4  # side of a corner, and width of a border, as parts of the sides of the image
MAX_SHARE = 0.5  # of what speaks for a class, above which a corner or border is named
Explain = Callable[[np.ndarray, int], np.ndarray]  # an image uint8 (h, w, c) and a class -> map (h, w)


@dataclass(frozen=True)
class ClassMap:
    """The mean map of a class.

    Attributes:
        label: The class.
        images: Number of images.
        values: Mean of what speaks for the class, float (h, w), each image with the sum 1.
        mean_image: The mean image, uint8 (h, w, c).
        region: The corner or border that holds more than half of the values, such as "the top left corner", or None.
        share: The part of the values that it holds.
    """

    label: str
    images: int
    values: np.ndarray
    mean_image: np.ndarray
    region: str | None
    share: float


def measure(
    images: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray,
    classes: Sequence[str],
    explain: Explain,
    *,
    max_seconds: float,
) -> list[ClassMap]:
    """Return the mean map of each class with at least five images, or fewer classes if the time is over.

    Args:
        images: uint8 (n, h, w, c).
        labels: Numbers of their classes, (n,).
        rows: Numbers of the images that are used.
        classes: Names of the classes.
        explain: Returns what speaks for the class of an image.
        max_seconds: Time after which no further image is explained.
    """
    counts = np.bincount(labels[rows], minlength=len(classes))
    shown = [int(i) for i in np.argsort(-counts, kind="stable")[:MAX_CLASSES] if counts[i] >= MIN_IMAGES]
    members = {number: _spread(rows[labels[rows] == number]) for number in sorted(shown)}
    maps: dict[int, list[np.ndarray]] = {number: [] for number in members}
    deadline = time.monotonic() + max_seconds
    for i in range(MAX_IMAGES):
        for number in members:
            if i >= len(members[number]) or time.monotonic() > deadline:
                continue
            values = np.maximum(explain(images[members[number][i]], number), 0)
            if total := values.sum():
                maps[number].append(values / total)
    return [
        _class_map(classes[number], np.mean(maps[number], axis=0), images[members[number]], len(maps[number]))
        for number in members
        if len(maps[number]) >= MIN_IMAGES
    ]


def _spread(rows: np.ndarray) -> np.ndarray:
    """Return at most :data:`MAX_IMAGES` rows in an order whose beginnings are spread evenly, too."""
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MAX_IMAGES)).round().astype(int))]
    return np.random.default_rng(0).permutation(rows)


def _class_map(label: str, values: np.ndarray, images: np.ndarray, count: int) -> ClassMap:
    region, share = largest_region(values)
    mean_image = np.rint(images.mean(axis=0)).astype(np.uint8)
    return ClassMap(label, count, values, mean_image, region if share > MAX_SHARE else None, share)


def largest_region(values: np.ndarray) -> tuple[str, float]:
    """Return the corner or border that holds the largest part of positive values (h, w), and this part.

    A corner is named rather than a border if both hold more than half.
    """
    height, width = values.shape
    rows, columns = round(height * CORNER), round(width * CORNER)
    corners = {
        "the top left corner": values[:rows, :columns],
        "the top right corner": values[:rows, width - columns :],
        "the bottom left corner": values[height - rows :, :columns],
        "the bottom right corner": values[height - rows :, width - columns :],
    }
    rows, columns = round(height * BORDER), round(width * BORDER)
    borders = {
        "the top border": values[:rows],
        "the bottom border": values[height - rows :],
        "the left border": values[:, :columns],
        "the right border": values[:, width - columns :],
    }
    total = values.sum() or 1.0
    name, share = max(((name, part.sum() / total) for name, part in corners.items()), key=lambda each: each[1])
    if share <= MAX_SHARE:
        name, share = max(
            ((name, part.sum() / total) for name, part in (corners | borders).items()), key=lambda each: each[1]
        )
    return name, float(share)
