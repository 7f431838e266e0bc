"""How faithful maps of images are: what happens to the probability when pixels are taken away in their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dltoolkit.evaluation.prediction import softmax
from dltoolkit.explanation.image_perturbation import Logits, blurred

STEPS_SMALL, STEPS = 16, 6  # parts into which the pixels of a small image, and of a larger one, are divided
SMALL_PIXELS = 64 * 64


def _mean_color(image: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.rint(image.mean(axis=(0, 1))).astype(np.uint8), image.shape)


REPLACEMENTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"mean color": _mean_color, "blur": blurred}


def measure(
    images: Sequence[np.ndarray], maps: Sequence[np.ndarray], targets: Sequence[int], logits: Logits
) -> dict[str, np.ndarray]:
    """Return the insertion area minus the deletion area of each image, for each replacement, and their mean as "score".

    Petsiuk, Das & Saenko, "RISE", 2018: the area under the probability of the class while the pixels with the largest
    values are put into an empty image, or taken out of the whole image, first. 0 is what random values give; a map
    that finds what the model looks at comes near to 1. An order of methods may turn with the replacement, so there are
    two.

    Args:
        images: Each uint8 (h, w, c).
        maps: Each float (h, w).
        targets: Number of the class of each.
        logits: Answers images.
    """
    rows = []
    for image, values, target in zip(images, maps, targets, strict=True):
        rows.append([_difference(image, values, target, logits, replace) for replace in REPLACEMENTS.values()])
    figures = dict(zip(REPLACEMENTS, np.array(rows).T, strict=True))
    return {**figures, "score": np.mean(list(figures.values()), axis=0)}


def _difference(
    image: np.ndarray, values: np.ndarray, target: int, logits: Logits, replace: Callable[[np.ndarray], np.ndarray]
) -> float:
    """Return the insertion area minus the deletion area of a map, -1 to 1.

    The ends of the two curves are the whole and the empty image, whose parts of the areas cancel each other.
    """
    pixels, empty = image.reshape(-1, image.shape[-1]), replace(image).reshape(-1, image.shape[-1])
    steps = STEPS_SMALL if len(pixels) <= SMALL_PIXELS else STEPS
    rank = np.empty(len(pixels), np.int64)
    rank[np.argsort(-values.ravel(), kind="stable")] = np.arange(len(pixels))
    first = rank < np.rint(np.linspace(0, len(pixels), steps + 1))[1:-1, None]  # (steps - 1, pixels)
    inserted, deleted = (np.where(each[..., None], pixels, empty) for each in (first, ~first))
    batch = np.concatenate([inserted, deleted]).reshape(-1, *image.shape)
    insertion, deletion = np.split(softmax(logits(batch))[:, target], 2)
    return float((insertion - deletion).sum() / steps)
