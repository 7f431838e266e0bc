"""Baselines that need no neural network: the majority class, and a linear model on pixels.

They put the score of a network into perspective, on the same test split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dltoolkit import progress
from dltoolkit.evaluation import logistic_regression, metrics, significance

MAX_SIDES = {1: 32, 2: 24, 3: 16, 4: 16}  # channels -> longest side for the linear model: about 1,000 features
MAX_VALUES = 48_000_000  # values of the training matrix, 190 MB as float32: 60,000 images of 28 x 28
CHUNK_BYTES = 16 << 20  # bytes of images that are converted to float32 at a time
MAX_ITER = 40  # iterations of L-BFGS; 100 gain 0.1 to 0.2 points on Fashion-MNIST and CIFAR-10, in 2.5 times the time
MAX_TUNED = 10_000  # training images up to which C is tuned; with more images it hardly changes the accuracy
CANDIDATES = (0.3, 0.03, 0.003)  # values of C, the inverse regularization strength, that are compared
DEFAULT_C = 0.01  # value of C for training splits that are too small or too large to tune it


@dataclass(frozen=True)
class Baseline:
    """The predictions of a baseline on the test split, or on a sample of it.

    Attributes:
        rows: Rows of the data set that are classified, int (n,), each once.
        labels: True class indices, int (n,).
        predictions: Predicted class indices, int (n,).
        classes: Number of classes.
        facts: What else ``metrics.json`` says about the baseline, such as a note.
    """

    rows: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray
    classes: int
    facts: dict[str, Any] = field(default_factory=dict)

    def scores(self) -> dict[str, Any]:
        """Return accuracy, balanced_accuracy, both with their intervals, macro_f1 and the facts."""
        scores = metrics.score(self.labels, self.predictions, self.classes)
        return {
            "accuracy": scores["accuracy"],
            "accuracy_ci95": metrics.interval(int((self.predictions == self.labels).sum()), len(self.labels)),
            "balanced_accuracy": scores["balanced_accuracy"],
            "balanced_accuracy_ci95": metrics.balanced_interval(scores["confusion"]),
            "macro_f1": scores["macro_f1"],
            **self.facts,
        }


def compare(
    baselines: Mapping[str, Baseline], rows: np.ndarray, predictions: np.ndarray, test: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return the scores of baselines, each with its ``comparison`` with a network on the same examples.

    Args:
        baselines: Baselines by name.
        rows: Rows of the data set in the test split, int (n,), in the order of ``predictions``.
        predictions: Class indices that the network predicts, int (n,).
        test: Metrics of the network on the test split.
    """
    metric = significance.main_metric(test)
    position = {row: index for index, row in enumerate(np.asarray(rows).tolist())}
    compared = {}
    for name, each in baselines.items():
        own = predictions[[position[row] for row in np.asarray(each.rows).tolist()]]
        compared[name] = {
            **each.scores(),
            "comparison": significance.compare(each.labels, own, each.predictions, metric),
        }
    return compared


def majority(labels: np.ndarray, train: np.ndarray, test: np.ndarray, classes: list[str]) -> Baseline:
    """Predict the most frequent class of the training split for every example of the test split.

    Args:
        labels: Labels, int (n,).
        train: Rows of the training split.
        test: Rows of the test split.
        classes: Label of each class index.
    """
    most = int(np.bincount(np.asarray(labels[train], np.int64), minlength=len(classes)).argmax())
    return Baseline(test, labels[test], np.full(len(test), most), len(classes), {"label": classes[most]})


@progress.phase("Fitting the linear baseline")
def linear(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    classes: list[str],
    *,
    seed: int = 0,
    train_rows: np.ndarray | None = None,
    test_rows: np.ndarray | None = None,
) -> Baseline:
    """Classify by multinomial logistic regression on standardized pixels, trained on the same training split.

    Large images are downsampled first (see ``pixels``), and of a very large training split a random subset is used,
    so that the fit takes about ten seconds on two cores and at most 400 MB; the note says which.

    Args:
        train_x: Images (n, height, width, channels) with values 0 to 255, in memory or an ``np.memmap``, or the
            output of ``pixels``, float32 (n, features). It is not modified.
        train_y: Labels of the training rows, int.
        test_x: Images or features of the test split, likewise.
        test_y: Labels of the test rows, int.
        classes: Label of each class index.
        seed: Draws the subset of a very large training split, and the held-out fifth that C is tuned on.
        train_rows: Rows of ``train_x`` that form the training split; by default all.
        test_rows: Rows of ``test_x`` that form the test split; by default all.

    Returns:
        The predictions for ``test_rows``, and a note on the training.
    """
    train_y, test_y = np.asarray(train_y, np.int64), np.asarray(test_y, np.int64)
    train_rows = np.arange(len(train_x)) if train_rows is None else np.asarray(train_rows)
    test_rows = np.arange(len(test_x)) if test_rows is None else np.asarray(test_rows)
    rng = np.random.default_rng(seed)

    features = int(np.prod(_feature_shape(train_x)))
    cost_of_classes = max(1.0, (len(classes) + 80) / 90)  # an iteration with 100 classes takes twice one with 10
    max_rows = max(1, int(MAX_VALUES / cost_of_classes / features))
    subset = ""
    if len(train_y) > max_rows:
        selected = np.sort(rng.choice(len(train_y), max_rows, replace=False))
        subset = f", on {max_rows:,} of the {len(train_y):,} training images"
        train_rows, train_y = train_rows[selected], train_y[selected]

    x = _to_matrix(train_x, train_rows)
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1.0  # plus one gray level: a constant pixel is not blown up
    x -= mean
    x /= scale
    C = DEFAULT_C
    if len(np.unique(train_y)) > 1:
        if len(train_y) <= MAX_TUNED:
            C = logistic_regression.search_held_out(
                CANDIDATES,
                lambda fitted, predicted, C: _fit(x[fitted], train_y[fitted], C).predict(x[predicted]),
                train_y,
                rng,
                default=DEFAULT_C,
            )
        model = _fit(x, train_y, C)
        del x
        chunks = np.array_split(test_rows, len(test_rows) // 10_000 + 1)  # limits the memory
        predictions = np.concatenate([model.predict((_to_matrix(test_x, rows) - mean) / scale) for rows in chunks])
    else:
        predictions = np.full(len(test_y), train_y[0])

    shape = _feature_shape(train_x)
    description = f"pixels downsampled to {shape[1]}×{shape[0]}" if shape != train_x.shape[1:] else "pixels"
    note = f"logistic regression (C = {C:g}) on standardized {description}{subset}"
    return Baseline(test_rows, test_y, predictions, len(classes), {"note": note})


def pixels(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Read images in chunks, downsample large ones, and return one row of features for each.

    Args:
        images: Images uint8 (n, height, width, channels), in memory or an ``np.memmap``.
        rows: Rows to read, int (m,), in this order.

    Returns:
        float32 (m, features), values 0 to 255. No side is longer than 32 (grayscale) or 16 (color) pixels; each
        pixel is the mean of the area that it covers.
    """
    height, width, channels = _feature_shape(images)
    vertical, horizontal = _area_weights(images.shape[1], height), _area_weights(images.shape[2], width)
    matrix = np.empty((len(rows), height * width * channels), np.float32)
    chunk_size = max(1, CHUNK_BYTES // (4 * int(np.prod(images.shape[1:]))))
    for start in range(0, len(rows), chunk_size):
        chunk = np.asarray(images[rows[start : start + chunk_size]], np.float32)  # (chunk, h, w, c)
        if chunk.shape[1:] != (height, width, channels):
            chunk = np.einsum("hH,nHWc->nhWc", vertical, chunk, optimize=True)
            chunk = np.einsum("wW,nhWc->nhwc", horizontal, chunk, optimize=True)
        matrix[start : start + chunk_size] = chunk.reshape(len(chunk), -1)
    return matrix


def _fit(x: np.ndarray, y: np.ndarray, C: float):
    return logistic_regression.fit(x, y, C, max_iter=MAX_ITER)


def _to_matrix(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the rows as a new float32 matrix (rows, features)."""
    return np.asarray(x[rows], np.float32) if x.ndim == 2 else pixels(x, rows)


def _feature_shape(x: np.ndarray) -> tuple[int, ...]:
    """Return the shape of an image as the linear model reads it, (height, width, channels) or (features,)."""
    if x.ndim == 2:
        return x.shape[1:]
    height, width, channels = x.shape[1:]
    side = MAX_SIDES.get(channels, 16)
    return min(height, side), min(width, side), channels


def _area_weights(size: int, smaller: int) -> np.ndarray:
    """Return the matrix (smaller, size) that averages ``size`` pixels into ``smaller`` ones, by covered area."""
    edges = np.linspace(0, size, smaller + 1)
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(size)
    covered = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None)
    return (covered * smaller / size).astype(np.float32)
