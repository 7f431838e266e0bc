"""Augmentation: pixels and labels are correct, equal seeds give equal results, and XLA compiles it."""

import numpy as np
import pytest
import tensorflow as tf

from dltoolkit.data.image import augment
from dltoolkit.data.image.augment import Augment

COUNT, CLASSES = 24, 4
EVERY = {
    "move": Augment(flip=True, shift=3),
    "crop": Augment(min_crop_area=0.3),
    "cutout": Augment(cutout=5),
    "color_jitter": Augment(color_jitter=0.3),
    "mixup": Augment(mixup=0.4),
    "cutmix": Augment(cutmix=1.0),
    "all": Augment(flip=True, shift=2, min_crop_area=0.5, cutout=4, color_jitter=0.1, mixup=0.2, cutmix=1.0),
}


@pytest.fixture(scope="module")
def examples():
    random = np.random.default_rng(0)
    labels = np.eye(CLASSES, dtype="float32")[np.arange(COUNT) % CLASSES]
    return random.integers(0, 256, (COUNT, 12, 16, 3), dtype="uint8"), labels


def apply(examples, options, seed=(1, 2)):
    images, labels = augment.augment_batch(*map(tf.constant, examples), tf.constant(seed), options)
    return images.numpy(), labels.numpy()


@pytest.mark.parametrize("options", EVERY.values(), ids=EVERY.keys())
def test_augment_batch_depends_on_the_seed_alone(examples, options):
    images, labels = apply(examples, options)
    assert images.dtype == np.uint8 and images.shape == examples[0].shape and labels.dtype == np.float32
    assert not np.array_equal(images, examples[0])
    again, other = apply(examples, options), apply(examples, options, seed=(1, 3))
    assert np.array_equal(images, again[0]) and np.array_equal(labels, again[1])
    assert not np.array_equal(images, other[0])


def test_augment_batch_compiles_with_xla(examples):
    """XLA draws other random numbers than TensorFlow, so shapes, label sums and seeds are compared, not pixels."""
    compiled = tf.function(lambda x, y, seed: augment.augment_batch(x, y, seed, EVERY["all"]), jit_compile=True)
    images, labels = compiled(*map(tf.constant, examples), tf.constant((1, 2)))
    assert images.dtype == tf.uint8 and images.shape == examples[0].shape
    assert not np.array_equal(images, examples[0])
    np.testing.assert_allclose(tf.reduce_sum(labels, axis=1), 1.0, atol=1e-5)
    again, other = (compiled(*map(tf.constant, examples), tf.constant(seed))[0] for seed in [(1, 2), (1, 3)])
    assert np.array_equal(images, again) and not np.array_equal(images, other)


def test_augment_batch_without_options_changes_nothing(examples):
    images, labels = apply(examples, Augment())
    assert np.array_equal(images, examples[0]) and np.array_equal(labels, examples[1])


def test_flip_mirrors_about_half_of_the_images(examples):
    images, _ = apply(examples, Augment(flip=True))
    mirrored = [np.array_equal(new, old[:, ::-1]) for new, old in zip(images, examples[0])]
    unchanged = [np.array_equal(new, old) for new, old in zip(images, examples[0])]
    assert all(m or u for m, u in zip(mirrored, unchanged))
    assert COUNT // 4 < sum(mirrored) < 3 * COUNT // 4


def test_shift_moves_images_and_reflects_their_edge(examples):
    images, _ = apply(examples, Augment(shift=2))
    moves = set()
    for new, old in zip(images, examples[0]):
        padded = np.pad(old, [(2, 2), (2, 2), (0, 0)], mode="reflect")
        matches = [(y, x) for y in range(5) for x in range(5) if np.array_equal(new, padded[y : y + 12, x : x + 16])]
        assert len(matches) == 1
        moves.update(matches)
    assert {y for y, _ in moves} == set(range(5)) and {x for _, x in moves} == set(range(5))


def test_random_resized_crop_enlarges_boxes_of_the_images():
    """The pixels of a ramp tell which box was enlarged, and that nothing was distorted."""
    size, count = 64, 200
    ramp = np.broadcast_to(np.arange(size) * 255 / (size - 1), (size, size))
    images = np.repeat(np.stack([ramp.T, ramp, ramp], axis=-1)[None], count, axis=0).round().astype(np.uint8)
    cropped, _ = apply((images, np.ones((count, 1), "float32")), Augment(min_crop_area=0.3))
    rows, columns = cropped[:, :, size // 2, 0] / 255, cropped[:, size // 2, :, 1] / 255
    height, width = (np.ptp(values, axis=1) * (1 - 1 / size) + 1 / size for values in (rows, columns))
    assert 0.27 < (height * width).min() < 0.4
    assert (height * width).max() > 0.9
    inside = (height < 0.97) & (width < 0.97)
    ratios = (width / height)[inside]
    assert 0.72 < ratios.min() < 0.85
    assert 1.18 < ratios.max() < 1.39
    for values in (rows, columns):
        line = np.linspace(values[:, 0], values[:, -1], size, axis=1)
        assert np.abs(values - line).max() < 0.03  # edges are repeated where a box touches the border
    assert rows[:, 0].min() < 0.03 and rows[:, 0].max() > 0.25  # boxes lie everywhere


def test_cutout_fills_a_square_with_the_mean_color(examples):
    images, _ = apply(examples, Augment(cutout=5))
    areas = []
    for new, old in zip(images, examples[0]):
        changed = (new != old).any(axis=-1)
        rows, columns = np.nonzero(changed.any(1))[0], np.nonzero(changed.any(0))[0]
        assert np.ptp(rows) < 5 and np.ptp(columns) < 5
        assert np.abs(new[changed] - old.mean(axis=(0, 1))).max() <= 0.5
        areas.append(changed.sum())
    assert max(areas) >= 24 and min(areas) >= 6  # at a corner only a quarter of the square is inside the image


def test_color_jitter_keeps_images_recognizable(examples):
    images, _ = apply(examples, Augment(color_jitter=0.2))
    for new, old in zip(images.astype(float), examples[0].astype(float)):
        assert np.corrcoef(new.ravel(), old.ravel())[0, 1] > 0.9
        assert 0.75 < new.mean() / old.mean() < 1.25


@pytest.mark.parametrize("options", [Augment(mixup=0.4), Augment(cutmix=1.0)], ids=["mixup", "cutmix"])
def test_mixing_changes_labels_as_it_changes_images(options):
    """Image i has the value 10 * i everywhere and is mixed with its neighbor, so its mean reveals the proportion."""
    images = np.repeat(np.arange(COUNT, dtype="uint8") * 10, 20 * 20).reshape(COUNT, 20, 20, 1)
    mixed, labels = apply((images, np.eye(COUNT, dtype="float32")), options)
    np.testing.assert_allclose(labels.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(mixed.mean(axis=(1, 2, 3)), labels @ (np.arange(COUNT) * 10.0), atol=0.6)
    lam = labels.max(axis=1)
    assert lam.min() < 0.9 and np.ptp(lam) > 0.2


def test_mixup_draws_from_its_beta_distribution():
    """Beta(alpha, alpha) has mean 1/2 and variance 1 / (4 (2 alpha + 1))."""
    count = 4000
    for alpha in (0.2, 1.0):
        images, one_hot = np.zeros((count, 8, 8, 1), "uint8"), np.eye(2, dtype="float32")[np.arange(count) % 2]
        _, labels = apply((images, one_hot), Augment(mixup=alpha))
        lam = labels[np.arange(count), np.arange(count) % 2]
        assert abs(lam.mean() - 0.5) < 0.03
        assert abs(lam.var() - 0.25 / (2 * alpha + 1)) < 0.01


def test_default_augmentation_shifts_by_a_sixteenth_of_the_side():
    small = augment.default_augmentation((8, 8, 1), flip=False)
    large = augment.default_augmentation((224, 320, 3), flip=True, flip_reason="yes")
    assert small == Augment(flip=False, shift=1)
    assert large == Augment(flip=True, shift=14, flip_reason="yes")


def test_default_augmentation_with_strength_crops_and_changes_colors():
    strong = augment.default_augmentation((32, 32, 3), flip=True, flip_reason="as requested", strength="strong")
    assert strong == Augment(flip=True, flip_reason="as requested", min_crop_area=0.35, color_jitter=0.4)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (Augment(flip=True, shift=2, flip_reason="as requested"), "flip (as requested), shift 2"),
        (Augment(mixup=0.2, flip_reason="as requested"), "mixup 0.2, no flip (as requested)"),
        (Augment(), "no flip"),
    ],
)
def test_augmentation_in_words_says_why_images_are_flipped_or_not(options, text):
    assert options.describe() == text


@pytest.mark.parametrize("augmentation", [None, Augment(), Augment(flip=True)])
def test_resolve_tta_follows_the_option_and_the_training_flips_otherwise(augmentation):
    assert augment.resolve_tta(None, augmentation) is bool(augmentation and augmentation.flip)
    assert augment.resolve_tta(True, augmentation) and not augment.resolve_tta(False, augmentation)
