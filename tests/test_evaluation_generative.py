"""Distances of generated from real features: right where the answer is known, and apart where it should be."""

import re

import numpy as np
import pytest

from dltoolkit.evaluation import gan as generative


def normal(count, mean=0.0, scale=1.0, seed=0, units=6):
    return (np.random.default_rng(seed).standard_normal((count, units)) * scale + mean).astype("float32")


def test_frechet_distance_of_normal_distributions_is_the_formula():
    one, two = normal(20_000), normal(20_000, mean=2.0, scale=3.0, seed=1)
    assert generative.frechet_distance(one, two) == pytest.approx(6 * (4 + (3 - 1) ** 2), rel=0.05)
    assert generative.frechet_distance(one, one) == pytest.approx(0, abs=1e-6)


def test_kernel_distance_is_the_mean_over_pairs():
    one, two = normal(5), normal(7, mean=1.0, seed=1)

    def kernel(a, b):
        return (float(a @ b) / 6 + 1) ** 3

    expected = (
        np.mean([kernel(one[i], one[j]) for i in range(5) for j in range(5) if i != j])
        + np.mean([kernel(two[i], two[j]) for i in range(7) for j in range(7) if i != j])
        - 2 * np.mean([kernel(a, b) for a in one for b in two])
    )
    assert generative.kernel_distance(one, two) == pytest.approx(expected, rel=1e-4)
    assert abs(generative.kernel_distance(normal(3000), normal(3000, seed=1))) < 0.05


def test_neighbourhoods_tell_variety_from_truth():
    real = normal(500)
    same = generative.neighbourhoods(real, normal(500, seed=1))
    assert all(value > 0.8 for value in same.values())
    alike = generative.neighbourhoods(real, normal(500, scale=0.05, seed=1))
    assert alike["precision"] > 0.95
    assert alike["coverage"] < 0.3
    assert alike["recall"] < 0.1
    elsewhere = generative.neighbourhoods(real, normal(500, mean=10, seed=1))
    assert max(elsewhere.values()) < 0.05


def test_pictures_learnt_by_heart_are_counted():
    train, real = normal(2000, seed=2), normal(400, seed=3)
    copied = train[:400] + normal(400, scale=0.01, seed=4)
    assert generative.measure(copied, real, train)["memorised"] > 0.95
    honest = generative.measure(normal(400, seed=5), real, train)
    assert honest["memorised"] < 0.05
    assert honest["frechet_distance"] == pytest.approx(honest["frechet_distance_floor"], abs=0.2)


def test_nearest_finds_the_nearest():
    train = normal(1200, seed=1)
    rows, far = generative.nearest(train[[7, 1100]] + 1e-3, train)
    assert rows.tolist() == [7, 1100]
    assert far.max() < 0.01


@pytest.mark.parametrize(
    ("coverage", "accuracies", "words"),
    [
        ([0.2, 0.6, 0.5], (0.7, 0.7), None),
        ([0.2, 0.6, 0.29], (0.7, 0.7), "cover 29% .* covered 60%"),
        ([0.2, 0.6, 0.6], (1.0, 0.995), "tells every picture"),
        ([0.2, 0.6, 0.6], (1.0, 0.9), None),
    ],
)
def test_a_collapse_is_seen(coverage, accuracies, words):
    rows = [
        {"validation_coverage": each, "real_accuracy": accuracies[0], "fake_accuracy": accuracies[1]}
        for each in coverage
    ]
    said = generative.collapse(rows)
    if words is None:
        assert said is None
    else:
        assert re.search(words, said)
