"""Differentiable augmentation: images vary one by one, and gradients flow through."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from dltoolkit.models.gan import diff_augment


@pytest.mark.parametrize("kinds", [*diff_augment.KINDS, ",".join(diff_augment.KINDS)])
def test_diff_augment_varies_each_image_and_passes_gradients(kinds):
    image = np.linspace(-0.9, 0.9, 16 * 16 * 3).reshape(1, 16, 16, 3)
    images = tf.Variable(np.tile(image, (8, 1, 1, 1)), dtype="float32")
    augment = diff_augment.DiffAugment(kinds)
    with tf.GradientTape() as tape:
        augmented = augment(images)
        total = tf.reduce_sum(augmented)
    assert augmented.shape == images.shape
    differ = [not np.allclose(a, b) for a, b in itertools.combinations(augmented.numpy(), 2)]
    assert sum(differ) > len(differ) / 2  # there are 25 translations only, so that some images are translated alike
    assert np.abs(tape.gradient(total, images)).sum() > 0


def test_translation_moves_images_by_up_to_an_eighth_of_the_side():
    images = np.zeros((60, 16, 16, 1), "float32")
    images[:, 8, 8] = 1
    translated = diff_augment.DiffAugment("translation")(tf.constant(images)).numpy()
    positions = set()
    for image in translated:
        assert np.sort(image.ravel())[-2:] == pytest.approx([0, 1])
        positions.add(np.unravel_index(image.argmax(), image.shape)[:2])
    assert {row for row, _ in positions} == {column for _, column in positions} == set(range(6, 11))
