"""Comparison of generated with real images, on features of a small classifier of the same data.

The metrics are comparable between runs on the same data only, and not with those that papers compute under the same
names on features of an Inception network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit import progress
from dltoolkit.evaluation import feature_extractor, image_classification
from dltoolkit.formatting import percent
from dltoolkit.models.gan import sampling

if TYPE_CHECKING:
    import keras

    from dltoolkit.data.image.dataset import ImageSplits
    from dltoolkit.data.options import ImageReadOptions
    from dltoolkit.evaluation.feature_extractor import FeatureExtractor
    from dltoolkit.run import Run

NEIGHBORS = 5  # a neighborhood reaches to the fifth nearest image, as Naeem et al. recommend
MAX_COMPARED = 5_000  # real and generated images that are compared; the distances are quadratic in time and memory
EVAL_IMAGES = 2_000  # images generated for the validation of each epoch, which takes about a second
COLLAPSED_COVERAGE = 0.5  # ratio to the best coverage of earlier epochs, below which variety has collapsed
SATURATED = 0.99  # accuracy of the discriminator on real and generated images, above which training has collapsed
MEMORIZATION_QUANTILE = 0.01  # quantile of the real images' distances below which an image counts as memorized
CHUNK_SIZE = 500  # rows whose distances are computed at a time


def frechet_distance(features: np.ndarray, other: np.ndarray) -> float:
    """Return the Fréchet distance of normal distributions fitted to features (n, units) (Heusel et al. 2017)."""
    difference = features.mean(axis=0, dtype=np.float64) - other.mean(axis=0, dtype=np.float64)
    covariance, other_covariance = (np.cov(rows.astype(np.float64), rowvar=False) for rows in (features, other))
    values, directions = np.linalg.eigh(covariance)
    root = directions * np.sqrt(np.maximum(values, 0)) @ directions.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ other_covariance @ root), 0)).sum()
    return float(max(0.0, difference @ difference + np.trace(covariance) + np.trace(other_covariance) - 2 * shared))


def kernel_distance(features: np.ndarray, other: np.ndarray) -> float:
    """Return the kernel distance of features (n, units) (Binkowski et al. 2018).

    It is the unbiased estimate of the squared maximum mean discrepancy with the kernel (x·y / units + 1)³, which is
    slightly negative at times if the distributions are equal.
    """

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a.astype(np.float64) @ b.T / a.shape[1] + 1) ** 3

    def mean_within(rows: np.ndarray) -> float:
        values, count = kernel(rows, rows), len(rows)
        return (values.sum() - np.trace(values)) / (count * (count - 1))

    return float(mean_within(features) + mean_within(other) - 2 * kernel(features, other).mean())


def prdc(real: np.ndarray, generated: np.ndarray, neighbors: int = NEIGHBORS) -> dict[str, float]:
    """Return precision, recall, density and coverage of generated features (Naeem et al. 2020).

    The neighborhood of a real image reaches to its k-th nearest real image, and that of a generated image to its k-th
    nearest generated image; k is ``neighbors``.

    Args:
        real: Features of real images (n, units).
        generated: Features of generated images (m, units).
        neighbors: Size of the neighborhoods.

    Returns:
        Precision, the fraction of generated images in the neighborhood of a real one; recall, the fraction of real
        images in the neighborhood of a generated one; density, the mean number of real neighborhoods that contain a
        generated image, divided by ``neighbors``; and coverage, the fraction of real images whose neighborhood contains
        a generated one.
    """
    neighbors = min(neighbors, len(real) - 1, len(generated) - 1)
    distances = pairwise_distances(real, generated)

    def radius(features: np.ndarray) -> np.ndarray:
        return np.partition(pairwise_distances(features, features), neighbors, axis=1)[:, neighbors]

    real_radius, generated_radius = radius(real)[:, None], radius(generated)[None]
    return {
        "precision": float((distances < real_radius).any(axis=0).mean()),
        "recall": float((distances < generated_radius).any(axis=1).mean()),
        "density": float((distances < real_radius).sum(axis=0).mean() / neighbors),
        "coverage": float((distances < real_radius).any(axis=1).mean()),
    }


def pairwise_distances(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return Euclidean distances, float32 (len(rows), len(others))."""
    squares = (rows**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)[None]
    return np.sqrt(np.maximum(squares - 2 * rows @ others.T, 0, dtype=np.float32))


def nearest(generated: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each row of generated features the row number of the nearest training features, and the distance."""
    rows, distances = [], []
    for start in range(0, len(generated), CHUNK_SIZE):
        chunk = pairwise_distances(generated[start : start + CHUNK_SIZE], train)
        rows.append(chunk.argmin(axis=1))
        distances.append(chunk.min(axis=1))
    return np.concatenate(rows), np.concatenate(distances)


def memorization_rate(generated: np.ndarray, real: np.ndarray, train: np.ndarray) -> float:
    """Return the fraction of generated images that are nearer to a training image than 99 % of other real images."""
    distances, real_distances = nearest(generated, train)[1], nearest(real, train)[1]
    return float((distances < np.quantile(real_distances, MEMORIZATION_QUANTILE)).mean())


def compare(generated: np.ndarray, real: np.ndarray, train: np.ndarray) -> tuple[dict[str, float], dict[str, float]]:
    """Compare features of generated images with those of real images that training never used.

    Args:
        generated: Features of generated images, float32 (n, units).
        real: Features of real images, float32 (m, units).
        train: Features of the training images, float32 (k, units).

    Returns:
        The metrics; and the real-vs-real baseline: distances, precision, recall, density and coverage of as many
        training images as there are real ones.
    """
    rng = np.random.default_rng(0)
    generated, real = (rows[rng.permutation(len(rows))[:MAX_COMPARED]] for rows in (generated, real))
    train_sample = train[rng.permutation(len(train))[: len(real)]]
    metrics, baseline = (
        {
            "frechet_distance": frechet_distance(rows, real),
            "kernel_distance": kernel_distance(rows, real),
            **prdc(real, rows),
        }
        for rows in (generated, train_sample)
    )
    metrics["memorization_rate"] = memorization_rate(generated, real, train)
    return _rounded(metrics), _rounded(baseline)


@progress.phase("Comparing generated with real images")
def evaluate(
    run: Run,
    generator: keras.Model,
    splits: ImageSplits,
    extractor: FeatureExtractor,
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

    Returns:
        The metrics, and under "baseline" the same metrics of training images and, if there are classes, the accuracy
        on real images of the classifier trained on real images.
    """
    images, labels = real
    seed = run.config.seed
    generated = sampling.sample_images(generator, len(images), labels=labels, seed=seed + 1)
    (generated_features, generated_predictions), (real_features, real_predictions) = (
        extractor.features(generated),
        extractor.features(images),
    )
    metrics, baseline = compare(generated_features, real_features, train_features)
    if run.info["conditional"]:
        # a classifier whose training is shortened sees a part of the images only
        steps = extractor.limited_steps
        stride = -(-len(splits.train) // (steps * feature_extractor.BATCH_SIZE)) if steps else 1
        train_labels = splits.labels[splits.train[::stride]]
        train_images = sampling.sample_images(generator, len(train_labels), labels=train_labels, seed=seed + 2)
        classifier = feature_extractor.train(train_images, train_labels, splits.classes, max_steps=steps)
        metrics["gan_train_accuracy"] = _accuracy(classifier.features(images)[1], labels)
        metrics["gan_test_accuracy"] = _accuracy(generated_predictions, labels)
    if len(splits.classes) > 1:
        baseline["classifier_accuracy"] = _accuracy(real_predictions, labels)
    return {**metrics, "baseline": {"real_vs_real": baseline}}


def evaluate_run(run: Run, splits: ImageSplits, other: str | None, read: ImageReadOptions) -> dict[str, Any]:
    """Evaluate the generator of a run on its test split or on other images; see :func:`evaluate`.

    Args:
        run: Run of a generator.
        splits: Images that the run was trained on.
        other: Other labeled images, as ``--data`` takes them, or None.
        read: Options for reading them.

    Raises:
        UserError: If the data of the run have changed, or the run does not have a class of the other images.
    """
    run.check_data(splits.describe())
    real = splits.images[splits.test], splits.labels[splits.test]
    if other is None:
        progress.note(splits.describe_evaluated())
    else:
        real = image_classification.read_labeled(run, other, read)
    extractor = feature_extractor.for_run(run, splits)
    train_features, _ = extractor.features(splits.images[splits.train])
    return evaluate(run, run.model, splits, extractor, train_features, real)


def validation_metrics(splits: ImageSplits, extractor: FeatureExtractor) -> Callable[[keras.Model], dict[str, float]]:
    """Return a function that compares a generator's images with the validation split."""
    rows = splits.validation[:: -(-len(splits.validation) // EVAL_IMAGES)]
    labels = splits.labels[rows][np.arange(EVAL_IMAGES) % len(rows)]
    real, _ = extractor.features(splits.images[rows])

    def eval_fn(generator: keras.Model) -> dict[str, float]:
        images = sampling.sample_images(generator, EVAL_IMAGES, labels=labels, seed=0)
        generated, _ = extractor.features(images)
        return {
            "kernel_distance": kernel_distance(generated, real),
            "coverage": prdc(real, generated[: len(rows)])["coverage"],
        }

    return eval_fn


def find_collapse(history: Sequence[Mapping[str, float]]) -> str | None:
    """Return a warning if training has collapsed in the last epoch, otherwise None.

    Args:
        history: Rows of the epochs, with validation_coverage, real_accuracy and fake_accuracy.
    """
    last, best = history[-1], max(row["validation_coverage"] for row in history)
    if last["validation_coverage"] < COLLAPSED_COVERAGE * best:
        return (
            f"The variety of the images has collapsed: they cover {percent(last['validation_coverage'])} of the "
            f"validation images, after {percent(best)} in an earlier epoch. The best epoch so far is kept."
        )
    if min(last["real_accuracy"], last["fake_accuracy"]) > SATURATED:
        return (
            "The discriminator recognizes nearly every generated image, so the generator learns little: try a lower "
            "--discriminator-lr, a higher --gradient-penalty, or --diff-augment."
        )
    return None


def _accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    return round(float((predictions == labels).mean()), 6)


def _rounded(metrics: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in metrics.items()}
