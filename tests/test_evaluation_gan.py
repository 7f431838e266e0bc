"""Distances of generated from real features: correct for known distributions, and sensitive to fidelity and variety."""

import re

import numpy as np
import pytest

from dltoolkit.evaluation import gan


def normal(count, mean=0.0, scale=1.0, seed=0, units=6):
    return (np.random.default_rng(seed).standard_normal((count, units)) * scale + mean).astype("float32")


def test_frechet_distance_of_normal_distributions_follows_the_formula():
    one, two = normal(20_000), normal(20_000, mean=2.0, scale=3.0, seed=1)
    assert gan.frechet_distance(one, two) == pytest.approx(6 * (4 + (3 - 1) ** 2), rel=0.05)
    assert gan.frechet_distance(one, one) == pytest.approx(0, abs=1e-6)


def test_kernel_distance_is_the_mean_over_pairs():
    one, two = normal(5), normal(7, mean=1.0, seed=1)

    def kernel(a, b):
        return (float(a @ b) / 6 + 1) ** 3

    expected = (
        np.mean([kernel(one[i], one[j]) for i in range(5) for j in range(5) if i != j])
        + np.mean([kernel(two[i], two[j]) for i in range(7) for j in range(7) if i != j])
        - 2 * np.mean([kernel(a, b) for a in one for b in two])
    )
    assert gan.kernel_distance(one, two) == pytest.approx(expected, rel=1e-4)
    assert abs(gan.kernel_distance(normal(3000), normal(3000, seed=1))) < 0.05


def test_prdc_distinguishes_variety_from_fidelity():
    real = normal(500)
    equal = gan.prdc(real, normal(500, seed=1))
    assert all(value > 0.8 for value in equal.values())
    narrow = gan.prdc(real, normal(500, scale=0.05, seed=1))
    assert narrow["precision"] > 0.95
    assert narrow["coverage"] < 0.3
    assert narrow["recall"] < 0.1
    distant = gan.prdc(real, normal(500, mean=10, seed=1))
    assert max(distant.values()) < 0.05


def test_memorization_rate_counts_copies_of_training_images():
    train, real = normal(2000, seed=2), normal(400, seed=3)
    copies = train[:400] + normal(400, scale=0.01, seed=4)
    assert gan.memorization_rate(copies, real, train) > 0.95
    assert gan.memorization_rate(normal(400, seed=5), real, train) < 0.05


def test_compare_returns_the_distances_of_training_images_as_baseline():
    train, real = normal(2000, seed=2), normal(400, seed=3)
    metrics, baseline = gan.compare(normal(400, seed=5), real, train)
    assert metrics.keys() == {
        *("frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage", "memorization_rate")
    }
    assert baseline.keys() == metrics.keys() - {"memorization_rate"}
    assert baseline["coverage"] > 0.8
    assert metrics["frechet_distance"] == pytest.approx(baseline["frechet_distance"], abs=0.2)
    distant, unchanged = gan.compare(normal(400, mean=1.0, seed=5), real, train)
    assert distant["frechet_distance"] > 5
    assert unchanged == baseline


def test_nearest_returns_rows_and_distances():
    train = normal(1200, seed=1)
    rows, distances = gan.nearest(train[[7, 1100]] + 1e-3, train)
    assert rows.tolist() == [7, 1100]
    assert distances.max() < 0.01


@pytest.mark.parametrize(
    ("coverage", "accuracies", "words"),
    [
        ([0.2, 0.6, 0.5], (0.7, 0.7), None),
        ([0.2, 0.6, 0.29], (0.7, 0.7), "cover 29.0 % .* after 60.0 %"),
        ([0.2, 0.6, 0.6], (1.0, 0.995), "recognizes nearly every generated image"),
        ([0.2, 0.6, 0.6], (1.0, 0.9), None),
    ],
)
def test_find_collapse_warns_of_lost_variety_and_saturation(coverage, accuracies, words):
    rows = [
        {"validation_coverage": value, "real_accuracy": accuracies[0], "fake_accuracy": accuracies[1]}
        for value in coverage
    ]
    warning = gan.find_collapse(rows)
    if words is None:
        assert warning is None
    else:
        assert re.search(words, warning)
