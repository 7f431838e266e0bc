"""Explanations of images by what changes when parts of them are taken away; they need no gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage

from dltoolkit.evaluation.prediction import softmax
from dltoolkit.explanation.answering import log_odds

Logits = Callable[[np.ndarray], np.ndarray]  # images uint8 (n, h, w, c) -> logits (n, classes)

SMALL_SIDE = 64  # pixels up to which an image is cheap enough for more positions
POSITIONS_SMALL, POSITIONS = 12, 9  # positions of the patch along a side of a small image and of a larger one
MASKS_SMALL, MASKS = 1000, 300  # random masks of a small image and of a larger one
CELLS = 7  # cells of a side of a random mask
CHUNK = 64  # masked images that are made at a time, which bounds the memory


def blurred(image: np.ndarray) -> np.ndarray:
    """Return an image uint8 (h, w, c) without its details: a Gaussian blur of an eighth of the shorter side."""
    sigma = min(image.shape[:2]) / 8
    smooth = ndimage.gaussian_filter(image.astype(np.float32), (sigma, sigma, 0), mode="nearest", truncate=3.0)
    return np.rint(smooth).astype(np.uint8)


def occlusion(image: np.ndarray, targets: Sequence[int], logits: Logits, *, positions: int | None = None) -> np.ndarray:
    """Return the mean loss of log odds of each class when a patch over a pixel is blurred.

    Zeiler & Fergus, "Visualizing and Understanding Convolutional Networks", 2014; they use gray patches, from which a
    network may see a shape of its own. A patch has a quarter of the side and may reach over the border.

    Args:
        image: uint8 (h, w, c).
        targets: Numbers of the classes.
        logits: Answers images.
        positions: Positions of the patch along a side; by default as many as the size of the image allows in time.

    Returns:
        float32 (targets, h, w).
    """
    height, width = image.shape[:2]
    replacement = blurred(image)
    count = positions or (POSITIONS_SMALL if max(height, width) <= SMALL_SIDE else POSITIONS)
    patch = [max(1, round(side / 4)) for side in (height, width)]
    counts = [min(count, side) for side in (height, width)]
    centers = [(np.arange(n) + 0.5) * side / n for n, side in zip(counts, (height, width), strict=True)]
    boxes = [
        tuple(slice(max(0, round(c - p / 2)), max(1, round(c + p / 2))) for c, p in zip(center, patch, strict=True))
        for center in np.stack(np.meshgrid(*centers, indexing="ij"), axis=-1).reshape(-1, 2)
    ]
    occluded = np.repeat(image[None], len(boxes) + 1, axis=0)  # the last one stays whole
    for each, box in zip(occluded, boxes, strict=False):
        each[box] = replacement[box]
    answers = logits(occluded)
    losses = np.stack([(odds := log_odds(answers, target))[-1] - odds[:-1] for target in targets])
    values, coverage = np.zeros((len(targets), height, width)), np.zeros((height, width))
    for box, loss in zip(boxes, losses.T, strict=True):
        values[:, *box] += loss[:, None, None]
        coverage[box] += 1
    return (values / np.maximum(coverage, 1)).astype(np.float32)


def rise(image: np.ndarray, targets: Sequence[int], logits: Logits) -> np.ndarray:
    """Return the covariance of each class's probability with whether a pixel is seen, over random masks.

    Petsiuk, Das & Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", 2018. Each mask comes
    with its complement, so that the probabilities are centered, which needs fewer masks. What is masked is blurred.

    Args:
        image: uint8 (h, w, c).
        targets: Numbers of the classes.
        logits: Answers images.

    Returns:
        float32 (targets, h, w).
    """
    height, width = image.shape[:2]
    seen, hidden = image.astype(np.float32), blurred(image).astype(np.float32)
    count = MASKS_SMALL if max(height, width) <= SMALL_SIDE else MASKS
    rng = np.random.default_rng(0)
    total = np.zeros((len(targets), height, width))
    for start in range(0, count // 2, CHUNK):
        masks = _random_masks(rng, min(CHUNK, count // 2 - start), height, width)
        both = np.concatenate([masks, 1 - masks])
        mixed = hidden + both[..., None] * (seen - hidden)
        probabilities = softmax(logits(np.rint(mixed).astype(np.uint8)))
        total += np.tensordot(probabilities[:, targets].T, both - 0.5, axes=1)
    return (total / count).astype(np.float32)


def _random_masks(rng: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    """Return smooth random masks float32 (count, height, width) from 0 to 1, shifted by less than a cell each."""
    cells = rng.random((count, CELLS + 1, CELLS + 1)) < 0.5
    offsets = rng.random((count, 2))
    axes = [np.arange(side)[None] / side * CELLS + offsets[:, [axis]] for axis, side in enumerate((height, width))]
    lower = [np.minimum(axis.astype(int), CELLS - 1) for axis in axes]
    weight = [np.clip(axis - low, 0, 1) for axis, low in zip(axes, lower, strict=True)]
    number = np.arange(count)[:, None, None]
    (rows, columns), (down, right) = lower, weight
    masks = np.zeros((count, height, width), np.float32)
    for i, by_row in ((0, 1 - down), (1, down)):
        for j, by_column in ((0, 1 - right), (1, right)):
            picked = cells[number, rows[:, :, None] + i, columns[:, None, :] + j]
            masks += picked * by_row[:, :, None] * by_column[:, None, :]
    return masks
