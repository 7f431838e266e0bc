"""Augmentation: right pixels, right labels, the same seed the same result; XLA compiles it."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from dltoolkit.data.image import augment
from dltoolkit.data.image.augment import Augment

COUNT, CLASSES = 24, 4
EVERY = {
    "move": Augment(flip=True, shift=3),
    "cutout": Augment(cutout=5),
    "colour": Augment(color_jitter=0.3),
    "mixup": Augment(mixup=0.4),
    "cutmix": Augment(cutmix=1.0),
    "all": Augment(flip=True, shift=2, cutout=4, color_jitter=0.1, mixup=0.2, cutmix=1.0),
}


@pytest.fixture(scope="module")
def pictures():
    random = np.random.default_rng(0)
    labels = np.eye(CLASSES, dtype="float32")[np.arange(COUNT) % CLASSES]
    return random.integers(0, 256, (COUNT, 12, 16, 3), dtype="uint8"), labels


def augmented(pictures, options, seed=(1, 2)):
    images, labels = augment.batch(*map(tf.constant, pictures), tf.constant(seed), options)
    return images.numpy(), labels.numpy()


@pytest.mark.parametrize("options", EVERY.values(), ids=EVERY.keys())
def test_the_seed_decides(pictures, options):
    images, labels = augmented(pictures, options)
    assert images.dtype == np.uint8 and images.shape == pictures[0].shape and labels.dtype == np.float32
    assert not np.array_equal(images, pictures[0])
    again, other = augmented(pictures, options), augmented(pictures, options, seed=(1, 3))
    assert np.array_equal(images, again[0]) and np.array_equal(labels, again[1])
    assert not np.array_equal(images, other[0])


def test_xla_compiles_all_of_it(pictures):
    """XLA draws other random numbers, so only the contract is compared, and twice the same seed."""
    compiled = tf.function(lambda x, y, seed: augment.batch(x, y, seed, EVERY["all"]), jit_compile=True)
    images, labels = compiled(*map(tf.constant, pictures), tf.constant((1, 2)))
    assert images.dtype == tf.uint8 and images.shape == pictures[0].shape
    assert not np.array_equal(images, pictures[0])
    np.testing.assert_allclose(tf.reduce_sum(labels, axis=1), 1.0, atol=1e-5)
    again, other = (compiled(*map(tf.constant, pictures), tf.constant(seed))[0] for seed in [(1, 2), (1, 3)])
    assert np.array_equal(images, again) and not np.array_equal(images, other)


def test_nothing_asked_nothing_done(pictures):
    images, labels = augmented(pictures, Augment())
    assert np.array_equal(images, pictures[0]) and np.array_equal(labels, pictures[1])


def test_flip_mirrors_about_half(pictures):
    images, _ = augmented(pictures, Augment(flip=True))
    mirrored = [np.array_equal(new, old[:, ::-1]) for new, old in zip(images, pictures[0])]
    kept = [np.array_equal(new, old) for new, old in zip(images, pictures[0])]
    assert all(m or k for m, k in zip(mirrored, kept))
    assert COUNT // 4 < sum(mirrored) < 3 * COUNT // 4


def test_shift_moves_the_picture_and_reflects_its_edge(pictures):
    images, _ = augmented(pictures, Augment(shift=2))
    moves = set()
    for new, old in zip(images, pictures[0]):
        padded = np.pad(old, [(2, 2), (2, 2), (0, 0)], mode="reflect")
        found = [(y, x) for y in range(5) for x in range(5) if np.array_equal(new, padded[y : y + 12, x : x + 16])]
        assert len(found) == 1
        moves.update(found)
    assert {y for y, _ in moves} == set(range(5)) and {x for _, x in moves} == set(range(5))


def test_cutout_is_a_square_of_the_mean_colour(pictures):
    images, _ = augmented(pictures, Augment(cutout=5))
    areas = []
    for new, old in zip(images, pictures[0]):
        changed = (new != old).any(axis=-1)
        rows, columns = np.nonzero(changed.any(1))[0], np.nonzero(changed.any(0))[0]
        assert np.ptp(rows) < 5 and np.ptp(columns) < 5
        assert np.abs(new[changed] - old.mean(axis=(0, 1))).max() <= 0.5
        areas.append(changed.sum())
    assert max(areas) >= 24 and min(areas) >= 6  # at a corner a quarter of it is inside


def test_colour_leaves_the_picture_recognisable(pictures):
    images, _ = augmented(pictures, Augment(color_jitter=0.2))
    for new, old in zip(images.astype(float), pictures[0].astype(float)):
        assert np.corrcoef(new.ravel(), old.ravel())[0, 1] > 0.9
        assert 0.75 < new.mean() / old.mean() < 1.25


@pytest.mark.parametrize("options", [Augment(mixup=0.4), Augment(cutmix=1.0)], ids=["mixup", "cutmix"])
def test_labels_are_mixed_as_the_pictures_are(options):
    """Picture i is filled with the value 10 * i and the two mixed are neighbours, so its mean tells the share."""
    images = np.repeat(np.arange(COUNT, dtype="uint8") * 10, 20 * 20).reshape(COUNT, 20, 20, 1)
    mixed, labels = augmented((images, np.eye(COUNT, dtype="float32")), options)
    np.testing.assert_allclose(labels.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(mixed.mean(axis=(1, 2, 3)), labels @ (np.arange(COUNT) * 10.0), atol=0.6)
    share = labels.max(axis=1)
    assert share.min() < 0.9 and np.ptp(share) > 0.2


def test_mixing_shares_follow_their_distribution():
    """Beta(alpha, alpha) has mean 1/2 and variance 1 / (4 (2 alpha + 1))."""
    count = 4000
    for alpha in (0.2, 1.0):
        images, one_hot = np.zeros((count, 8, 8, 1), "uint8"), np.eye(2, dtype="float32")[np.arange(count) % 2]
        _, labels = augmented((images, one_hot), Augment(mixup=alpha))
        share = labels[np.arange(count), np.arange(count) % 2]
        assert abs(share.mean() - 0.5) < 0.03
        assert abs(share.var() - 0.25 / (2 * alpha + 1)) < 0.01


def test_defaults_fit_the_pictures():
    small, photograph = augment.for_images((8, 8, 1)), augment.for_images((224, 224, 3))
    assert not small.flip and photograph.flip
    assert small.shift == 1 and photograph.shift > 8
    assert augment.for_images((8, 8, 1), flip=True).flip and not augment.for_images((224, 224, 3), flip=False).flip


def test_a_mirrored_digit_is_no_digit_and_a_mirrored_blob_is_a_blob():
    digits = load_digits()
    assert not augment.mirror_keeps_class(digits.images[..., None], digits.target)
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 300)
    rows = np.array([2, 6, 10])[labels]  # the class is the bright row, wherever along it the light is
    images = random.integers(0, 60, (300, 12, 12, 1), dtype="uint8")
    for image, row in zip(images, rows):
        image[row] += 150
    assert augment.mirror_keeps_class(images, labels)
