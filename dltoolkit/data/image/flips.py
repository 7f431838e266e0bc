"""The decision whether training may flip images left to right without changing what their labels mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tensorflow as tf

from dltoolkit import progress

if TYPE_CHECKING:
    from dltoolkit.data.image.dataset import ImageSplits

SAMPLE_SIZE = 2_000  # training images that decide about flips; the features of more take seconds
COARSE_SIDE = 16  # pixels; blocks of pixels are averaged so that the shorter side has 16 to 31
FILTERS = 128  # patches of the images that the features are made of
RESPONSE = 0.2  # correlation with a patch below which a place does not count
NOISE = 100.0  # variance of pixels 0..255 that counts as noise, so that flat patches are not amplified
REGULARIZATION = 0.1  # of the ridge classifier, relative to the number of images
FOLDS = 5
ABOVE_CHANCE = 2.0  # standard errors
MIN_PRESERVED = 1 / 2  # of the accuracy above chance; flipped digits keep 1/3, clothes 3/4, photographs all of it
CONFUSED, MIN_CONFUSED = 3.0, 0.1  # standard errors and fraction of a class that flips make indistinguishable
UNDECIDED = "a test of the images does not tell whether mirror images keep their labels; --flip if they do"
CHUNK = 250  # images processed at a time


class FlipDecision(NamedTuple):
    """Whether training flips images, and why, in words."""

    flip: bool
    reason: str


def resolve(requested: bool | None, splits: ImageSplits) -> FlipDecision:
    """Return whether training flips images left to right, and why.

    Args:
        requested: Value of ``--flip``. None decides from the data: labeled images are flipped if their flipped copies
            keep their labels (see :func:`decide`), and unlabeled images are flipped if they have three channels,
            because these are mostly photographs.
        splits: Images, of which only the training split decides.
    """
    if requested is not None:
        return FlipDecision(requested, "as requested")
    if len(splits.classes) < 2:
        return FlipDecision(splits.image_shape[-1] == 3, "by default for unlabeled images in color only")
    rows = np.sort(np.random.default_rng(0).permutation(splits.train)[:SAMPLE_SIZE])
    with progress.phase("Testing whether mirrored images keep their labels"):
        return decide(_coarse(splits.images, rows), splits.labels[rows])


def decide(images: np.ndarray, labels: np.ndarray) -> FlipDecision:
    """Return whether flipped images keep their labels.

    A linear classifier on the responses to patches of the images (similar to Coates & Ng 2011) is cross-validated
    three times. Images are flipped if

    1. it is clearly better than chance, because otherwise it cannot tell: most often with fewer than about 100 images
       of photographs, where flips gain little, but would ruin classes that are mirror images of each other;
    2. it recognizes flipped images nearly as well, unlike digits and letters, most of which resemble another one or
       none when they are flipped;
    3. features that are equal for an image and its mirror image serve as well for each class, unlike arrows to the
       left and to the right.

    Args:
        images: Training images (n, height, width, channels), values 0..255, of :data:`COARSE_SIDE` or more pixels.
        labels: Class numbers of shape (n,).
    """
    rng = np.random.default_rng(0)
    order = rng.permutation(len(images))
    images, (_, labels) = images[order].astype("float32"), np.unique(np.asarray(labels)[order], return_inverse=True)
    patches = _patches(images, rng)
    plain, flipped = _features(images, patches), _features(images[:, :, ::-1], patches)
    symmetric = plain + flipped
    counts = np.bincount(labels)
    folds = np.arange(len(labels)) % FOLDS
    correct = np.zeros((3, len(labels)), bool)
    for fold in range(FOLDS):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        if not len(train) or not len(test):
            continue
        classify = _fit(plain[train], labels[train], len(counts))
        correct[0, test] = classify(plain[test]) == labels[test]
        correct[1, test] = classify(flipped[test]) == labels[test]
        correct[2, test] = _fit(symmetric[train], labels[train], len(counts))(symmetric[test]) == labels[test]
    recall = np.stack([np.bincount(labels, row) / counts for row in correct])  # (3, classes)
    chance = 1 / len(counts)
    error = np.sqrt(chance * (1 - chance) * (1 / counts).sum()) / len(counts)
    above = recall.mean(axis=1) - chance  # balanced accuracies
    if above[0] < ABOVE_CHANCE * error:
        return FlipDecision(False, UNDECIDED)
    if above[1] < MIN_PRESERVED * above[0]:
        lost, gained = ((correct[i] & ~correct[1 - i]).sum() for i in (0, 1))
        is_clear = lost - gained > ABOVE_CHANCE * np.sqrt(lost + gained)  # not by chance, as with a few dozen images
        return FlipDecision(False, "mirror images do not keep their labels" if is_clear else UNDECIDED)
    lost = np.bincount(labels, correct[0] & ~correct[2])
    gained = np.bincount(labels, correct[2] & ~correct[0])
    confused = (lost - gained > CONFUSED * np.sqrt(lost + gained)) & (lost - gained > MIN_CONFUSED * counts)
    if confused.any():
        return FlipDecision(False, "some classes are mirror images of each other")
    return FlipDecision(True, "mirror images keep their labels")


def _coarse(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the means of square blocks of pixels, float32 (len(rows), height, width, channels)."""
    height, width = images.shape[1:3]
    step = max(1, min(height, width) // COARSE_SIDE)
    result = []
    for start in range(0, len(rows), CHUNK):  # the images may be mapped from a large file
        x = images[rows[start : start + CHUNK], : height // step * step, : width // step * step]
        blocks = x.reshape(len(x), height // step, step, width // step, step, -1)
        result.append(blocks.mean(axis=(2, 4), dtype=np.float32))
    return np.concatenate(result)


def _patches(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return random square patches of the images, normalized, float32 (side, side, channels, filters)."""
    height, width = images.shape[1:3]
    side = max(1, min(height, width) // 2)
    corners = zip(
        rng.integers(0, len(images), FILTERS),
        rng.integers(0, height - side + 1, FILTERS),
        rng.integers(0, width - side + 1, FILTERS),
        strict=True,
    )
    patches = np.stack([images[i, y : y + side, x : x + side] for i, y, x in corners], axis=-1)
    patches = patches - patches.mean(axis=(0, 1, 2))
    return patches / np.sqrt((patches**2).mean(axis=(0, 1, 2)) + NOISE)


def _features(images: np.ndarray, patches: np.ndarray) -> np.ndarray:
    """Return the greatest correlation with each patch in each quarter of the images, and the mean color, float32."""
    side, result = patches.shape[0], []
    for start in range(0, len(images), CHUNK):
        x = tf.constant(images[start : start + CHUNK])
        mean, square = (tf.reduce_mean(values, axis=-1, keepdims=True) for values in (x, x * x))
        mean, square = (tf.nn.avg_pool2d(values, side, 1, "VALID") for values in (mean, square))
        products = tf.nn.conv2d(x, patches, 1, "VALID") / (side * side * x.shape[-1])
        responses = tf.nn.relu(products / tf.sqrt(tf.maximum(square - mean * mean, 0.0) + NOISE) - RESPONSE)
        rows, columns = (size // 2 for size in responses.shape[1:3])
        height, width = responses.shape[1:3]
        quarters = [  # a middle row or column belongs to both sides
            responses[:, top:bottom, left:right]
            for top, bottom in ((0, height - rows), (rows, height))
            for left, right in ((0, width - columns), (columns, width))
        ]
        cells = [tf.reduce_max(quarter, axis=(1, 2)) for quarter in quarters]
        result.append(tf.concat([*cells, tf.reduce_mean(x, axis=(1, 2)) / 255], axis=1).numpy())
    return np.concatenate(result)


def _fit(features: np.ndarray, labels: np.ndarray, classes: int):
    """Return a function from features to class numbers: ridge regression in which all classes weigh the same."""
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
    counts = np.bincount(labels, minlength=classes)
    weight = np.sqrt(len(labels) / (np.count_nonzero(counts) * counts[labels]))[:, None]
    x = np.concatenate([(features - mean) / deviation, np.ones((len(features), 1))], axis=1) * weight
    y = np.eye(classes)[labels] * weight
    penalty = REGULARIZATION * len(labels)
    if x.shape[1] <= len(x):
        kernel = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)
    else:
        kernel = x.T @ np.linalg.solve(x @ x.T + penalty * np.eye(len(x)), y)
    return lambda values: ((values - mean) / deviation @ kernel[:-1] + kernel[-1]).argmax(axis=1)
