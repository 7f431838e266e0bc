"""The decision about flips: mirror images of digits and arrows change their labels, those of photographs do not."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from dltoolkit.data.image import flips
from dltoolkit.data.image.dataset import ImageSplits


def rows_with_light(count=300, side=12, channels=1):
    """Return images and labels: the class is the bright row, and light appears anywhere along it."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, count)
    images = rng.integers(0, 60, (count, side, side, channels), dtype="uint8")
    for image, row in zip(images, np.array([2, 6, 10])[labels]):
        image[row] += 150
    return images, labels


def arrows(count=160, side=12):
    """Return noisy images of arrow heads anywhere, ">" of class 0 and "<" of class 1."""
    rng = np.random.default_rng(0)
    labels, head = rng.integers(0, 2, count), np.zeros((7, 7), bool)
    head[range(7), [0, 1, 2, 3, 2, 1, 0]] = head[range(7), [1, 2, 3, 4, 3, 2, 1]] = True
    images = rng.integers(0, 60, (count, side, side, 1), dtype="uint8")
    for image, label, (y, x) in zip(images, labels, rng.integers(0, side - 7, (count, 2)), strict=True):
        image[y : y + 7, x : x + 7, 0][head[:, ::-1] if label else head] += 150
    return images, labels


def test_images_are_flipped_if_their_mirror_images_keep_their_labels():
    decision = flips.decide(*rows_with_light())
    assert decision == (True, "mirror images keep their labels")


def test_digits_are_not_flipped():
    digits = load_digits()
    decision = flips.decide(digits.images[:300, ..., None] * 16, digits.target[:300])
    assert decision == (False, "mirror images do not keep their labels")


def test_two_classes_that_are_mirror_images_are_not_flipped():
    assert flips.decide(*arrows()) == (False, "mirror images do not keep their labels")


def test_two_mirror_classes_among_others_forbid_flips():
    (bars, rows), (heads, directions) = rows_with_light(count=150, channels=1), arrows(150)
    decision = flips.decide(np.concatenate([bars, heads]), np.concatenate([rows, 3 + directions]))
    assert decision == (False, "some classes are mirror images of each other")


def test_images_without_visible_classes_are_not_flipped():
    images, labels = rows_with_light()
    decision = flips.decide(images, np.random.default_rng(1).permutation(labels))
    assert decision == (False, flips.UNDECIDED)
    assert "does not tell" in flips.UNDECIDED


def test_a_few_images_are_not_said_to_change_their_labels():
    def halves(alike, mirrored, side=12):
        """Return images of two bright halves: upper and lower, which flips keep, and left and right."""
        labels = np.arange(2 * (alike + mirrored)) % 2
        images = np.random.default_rng(0).integers(0, 30, (len(labels), side, side, 1), dtype="uint8")
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            bright = slice(side // 2, None) if label else slice(side // 2)
            image[bright if number < 2 * alike else (slice(None), bright)] += 150
        return images, labels

    assert flips.decide(*halves(6, 3)) == (False, flips.UNDECIDED), "a few mistakes can be chance"
    assert flips.decide(*halves(40, 20)) == (False, "mirror images do not keep their labels")


def test_resolve_obeys_the_option_and_asks_the_training_images_otherwise():
    splits = ImageSplits.for_training(*rows_with_light(), list("abc"))
    splits.train = splits.train[:200]
    splits.images[200:] = 0  # images that are not trained on do not decide
    assert flips.resolve(None, splits).flip
    assert [flips.resolve(flip, splits) for flip in (True, False)] == [(True, "as requested"), (False, "as requested")]


@pytest.mark.parametrize(("channels", "flip"), [(1, False), (3, True)])
def test_resolve_of_unlabeled_images_depends_on_their_channels(channels, flip):
    images, labels = rows_with_light(channels=channels)
    assert flips.resolve(None, ImageSplits.for_training(images, labels * 0, ["images"])).flip is flip
