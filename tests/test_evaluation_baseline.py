"""Baselines that need no network."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from dltoolkit.evaluation import baseline

CLASSES = [str(digit) for digit in range(10)]


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return images uint8 (1797, 8, 8, 1), labels, and rows of a training and a test split."""
    bunch = load_digits()
    images = np.minimum(bunch.images * 16, 255).astype(np.uint8)[..., None]
    order = np.random.default_rng(0).permutation(len(images))
    return images, bunch.target, order[:1300], order[1300:]


def colored(count: int, side: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy images (count, side, side, 3) that are reddish (label 0) or bluish (label 1)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    images = rng.integers(60, 140, (count, side, side, 3))
    images[labels == 0, ..., 0] += 60
    images[labels == 1, ..., 2] += 60
    return images.astype(np.uint8), labels


def test_majority_counts_train_and_scores_test():
    labels = np.array([1, 1, 0, 0, 0, 1, 2])
    scores = baseline.majority(labels, np.arange(3), np.arange(3, 7), ["a", "b", "c"]).scores()
    # "b" is correct once in four; its F1 is 2 * 1 / (1 + 4), and that of "a" and "c" is 0
    assert (scores["accuracy"], scores["macro_f1"], scores["label"]) == (0.25, pytest.approx(0.4 / 3), "b")
    assert scores["balanced_accuracy"] == pytest.approx(1 / 3)


def test_linear_classifies_digits(digits):
    images, labels, train, test = digits
    scores = baseline.linear(images[train], labels[train], images[test], labels[test], CLASSES).scores()
    assert 0.95 <= scores["accuracy"] <= 0.99
    assert scores["macro_f1"] == pytest.approx(scores["accuracy"], abs=0.02)
    assert scores["accuracy_ci95"][0] < scores["accuracy"] < scores["accuracy_ci95"][1]
    assert scores["note"].startswith("logistic regression")


def test_linear_learns_from_the_training_rows_only(digits):
    images, labels, train, test = digits
    shuffled = np.random.default_rng(0).permutation(labels[train])
    scores = baseline.linear(images, shuffled, images, labels[test], CLASSES, train_rows=train, test_rows=test).scores()
    assert scores["accuracy"] < 0.25


def test_linear_reads_large_images_from_disk_and_does_not_modify_them(tmp_path):
    images, labels = colored(60, 50)
    on_disk = np.memmap(tmp_path / "images", np.uint8, "w+", shape=images.shape)
    on_disk[:] = images
    rows = {"train_rows": np.arange(40), "test_rows": np.arange(40, 60)}
    scores = baseline.linear(on_disk, labels[:40], on_disk, labels[40:], ["red", "blue"], **rows).scores()
    assert scores["accuracy"] == 1.0
    assert "downsampled to 16×16" in scores["note"]
    assert (on_disk == images).all()


def test_linear_takes_rows_of_images_and_the_output_of_pixels(digits):
    images, labels, train, test = digits
    train = train[:300]
    scores = baseline.linear(images[train], labels[train], images[test], labels[test], CLASSES).scores()
    rows = {"train_rows": train, "test_rows": test}
    assert scores == baseline.linear(images, labels[train], images, labels[test], CLASSES, **rows).scores()
    x, test_x = baseline.pixels(images, train), baseline.pixels(images, test)
    before = x.copy()
    assert scores == baseline.linear(x, labels[train], test_x, labels[test], CLASSES).scores()
    assert (x == before).all()


def test_linear_notes_the_use_of_a_subset(digits, monkeypatch):
    images, labels, train, test = digits
    monkeypatch.setattr(baseline, "MAX_VALUES", 64 * 500)
    scores = baseline.linear(images[train], labels[train], images[test], labels[test], CLASSES).scores()
    assert "on 500 of the 1,300 training images" in scores["note"]
    assert 0.9 <= scores["accuracy"] <= 0.98


def test_linear_takes_a_single_class_and_a_class_absent_from_training():
    images, labels = colored(40, 8)
    single = baseline.linear(images[:20], np.ones(20, int), images[20:], labels[20:], ["red", "blue", "green"]).scores()
    assert single["accuracy"] == pytest.approx((labels[20:] == 1).mean())
    with_green = np.where(np.arange(20) < 5, 2, labels[20:])
    scores = baseline.linear(images[:20], labels[:20], images[20:], with_green, ["red", "blue", "green"]).scores()
    assert scores["accuracy"] == 0.75


def test_pixels_keeps_small_images_and_averages_large_ones(monkeypatch):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (5, 8, 6, 3), dtype=np.uint8)
    assert baseline.pixels(small, np.array([3, 1])).tolist() == small[[3, 1]].reshape(2, -1).tolist()

    large = rng.integers(0, 256, (7, 64, 48, 3), dtype=np.uint8)
    monkeypatch.setattr(baseline, "CHUNK_BYTES", 2 * 4 * 64 * 48 * 3)  # two images at a time
    blocks = large.reshape(7, 16, 4, 16, 3, 3).mean(axis=(2, 4))
    assert baseline.pixels(large, np.arange(7)) == pytest.approx(blocks.reshape(7, -1), abs=1e-2)

    uneven = rng.integers(0, 256, (2, 45, 33, 1), dtype=np.uint8)
    scores = baseline.pixels(uneven, np.arange(2))
    assert scores.shape == (2, 32 * 32)
    assert scores.mean(axis=1) == pytest.approx(uneven.mean(axis=(1, 2, 3)), abs=1e-2)  # equal weights
