"""How generated pictures compare with real ones, measured on features of a small classifier of the same data.

The figures are comparable between runs on the same data only. They are not those of the Inception network that
papers give under similar names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit import models
from dltoolkit.evaluation import feature_extractor

if TYPE_CHECKING:
    import keras

    from dltoolkit.data.image.dataset import ImageSplits
    from dltoolkit.evaluation.feature_extractor import Probe
    from dltoolkit.run import Run

NEIGHBOURS = 5  # of the neighbourhoods in precision, recall, density and coverage
COLLAPSED = 0.5  # of the best coverage so far
SATURATED = 0.99  # of real and of generated pictures, told right by the discriminator
MOST = 5_000  # pictures of each side that are compared


def frechet_distance(one: np.ndarray, two: np.ndarray) -> float:
    """Return the Fréchet distance of two normal distributions fitted to features (n, units) (Heusel et al. 2017)."""
    difference = one.mean(axis=0, dtype=np.float64) - two.mean(axis=0, dtype=np.float64)
    first, second = (np.cov(each.astype(np.float64), rowvar=False) for each in (one, two))
    values, directions = np.linalg.eigh(first)
    root = directions * np.sqrt(np.maximum(values, 0)) @ directions.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ second @ root), 0)).sum()
    return float(max(0.0, difference @ difference + np.trace(first) + np.trace(second) - 2 * shared))


def kernel_distance(one: np.ndarray, two: np.ndarray) -> float:
    """Return the squared maximum mean discrepancy of features (n, units), kernel (x·y / units + 1)³, without bias.

    Binkowski et al. 2018. It may fall a little below zero where there is no difference.
    """

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a.astype(np.float64) @ b.T / a.shape[1] + 1) ** 3

    def within(features: np.ndarray) -> float:
        values, count = kernel(features, features), len(features)
        return (values.sum() - np.trace(values)) / (count * (count - 1))

    return float(within(one) + within(two) - 2 * kernel(one, two).mean())


def neighbourhoods(real: np.ndarray, generated: np.ndarray, neighbours: int = NEIGHBOURS) -> dict[str, float]:
    """Return precision, recall, density and coverage of generated features (n, units) (Naeem et al. 2020).

    Precision: the share of generated pictures within some real picture's neighbourhood, which reaches to its fifth
    nearest real one; recall: the other way round; density: how many such neighbourhoods a generated picture lies in,
    over ``neighbours``; coverage: the share of real pictures with a generated one in their neighbourhood.
    """
    neighbours = min(neighbours, len(real) - 1, len(generated) - 1)
    across = distances(real, generated)

    def reach(features: np.ndarray) -> np.ndarray:
        return np.partition(distances(features, features), neighbours, axis=1)[:, neighbours]

    around_real, around_generated = reach(real)[:, None], reach(generated)[None]
    return {
        "precision": float((across < around_real).any(axis=0).mean()),
        "recall": float((across < around_generated).any(axis=1).mean()),
        "density": float((across < around_real).sum(axis=0).mean() / neighbours),
        "coverage": float((across < around_real).any(axis=1).mean()),
    }


def distances(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Euclidean distances, float32 (len(one), len(two))."""
    squares = (one**2).sum(axis=1)[:, None] + (two**2).sum(axis=1)[None]
    return np.sqrt(np.maximum(squares - 2 * one @ two.T, 0, dtype=np.float32))


def nearest(generated: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each row of generated features its nearest training row's number, and how far that is."""
    found, far = [], []
    for begin in range(0, len(generated), 500):
        block = distances(generated[begin : begin + 500], train)
        found.append(block.argmin(axis=1))
        far.append(block.min(axis=1))
    return np.concatenate(found), np.concatenate(far)


def measure(generated: np.ndarray, real: np.ndarray, train: np.ndarray) -> dict[str, Any]:
    """Compare features of generated pictures with those of real ones that training never saw.

    Args:
        generated, real: float32 (n, units).
        train: of training pictures; what they themselves reach is the floor beside each distance, and what lies
            nearer to one of them than nearly all real pictures do is counted as memorised.
    """
    rng = np.random.default_rng(0)
    generated, real = (each[rng.permutation(len(each))[:MOST]] for each in (generated, real))
    some = train[rng.permutation(len(train))[: len(real)]]
    ours, theirs = nearest(generated, train)[1], nearest(real, train)[1]
    return {
        "frechet_distance": round(frechet_distance(generated, real), 6),
        "frechet_distance_floor": round(frechet_distance(some, real), 6),
        "kernel_distance": round(kernel_distance(generated, real), 6),
        "kernel_distance_floor": round(kernel_distance(some, real), 6),
        **{name: round(value, 6) for name, value in neighbourhoods(real, generated).items()},
        "memorised": round(float((ours < np.quantile(theirs, 0.01)).mean()), 6),
    }


def evaluate(
    run: Run,
    generator: keras.Model,
    splits: ImageSplits,
    extractor: Probe,
    train_features: np.ndarray,
    real: tuple[np.ndarray, np.ndarray],
) -> dict[str, Any]:
    """Compare generated images with real images and labels that training never used.

    Args:
        run: Run of the generator.
        generator: Generator to evaluate.
        splits: Images that the run was trained on.
        extractor: Classifier of the same data, whose features are compared.
        train_features: Features of the training images, float32 (n, units).
        real: Real images uint8 (m, h, w, c) and labels int (m,).
    """
    images, labels = real
    seed = run.config.seed
    generated = models.gan.gan.draw(generator, len(images), labels=labels, seed=seed + 1)
    (generated_features, generated_predictions), (real_features, real_predictions) = (
        extractor.features(generated),
        extractor.features(images),
    )
    metrics = measure(generated_features, real_features, train_features)
    if run.info["conditional"]:
        train_labels = splits.labels[splits.train]
        train_images = models.gan.gan.draw(generator, len(train_labels), labels=train_labels, seed=seed + 2)
        classifier = feature_extractor.train(train_images, train_labels, splits.classes)
        metrics["gan_train_accuracy"] = round(float((classifier.features(images)[1] == labels).mean()), 6)
        metrics["gan_test_accuracy"] = round(float((generated_predictions == labels).mean()), 6)
    if len(splits.classes) > 1:
        metrics["probe_accuracy"] = round(float((real_predictions == labels).mean()), 6)
    return metrics


def collapse(history: Sequence[Mapping[str, float]]) -> str | None:
    """Say what is the matter where the last epoch shows a collapse, or None.

    Args:
        history: rows with validation_coverage, real_accuracy and fake_accuracy, one an epoch.
    """
    last, best = history[-1], max(row["validation_coverage"] for row in history)
    if last["validation_coverage"] < COLLAPSED * best:
        return (
            f"The pictures have become alike: they cover {last['validation_coverage']:.0%} of the validation pictures, "
            f"and covered {best:.0%} before. The best epoch so far is kept."
        )
    if min(last["real_accuracy"], last["fake_accuracy"]) > SATURATED:
        return (
            "The discriminator tells every picture from a real one, so the generator learns little: try a lower "
            "--discriminator-lr, a higher --penalty or --diff-augment."
        )
    return None
