"""The networks of a GAN: sizes of images, and saved generators."""

import numpy as np
import pytest

from dltoolkit.models.gan import gan, networks, sampling
from dltoolkit.models.model_file import load_model


@pytest.mark.parametrize("architecture", gan.ARCHITECTURES)
@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (30, 17, 3), (64, 64, 3)])
def test_networks_generate_and_read_images_of_any_size(architecture, shape):
    labels = np.array([0, 1, 1])
    generator = networks.build_generator(architecture, shape, 2, width=4)
    images = sampling.sample_images(generator, 3, labels=labels)
    assert (images.shape, images.dtype) == ((3, *shape), np.uint8)
    discriminator = networks.build_discriminator(architecture, shape, 2, width=4)
    assert discriminator([images / 255.0, labels]).shape == (3,)


def test_generator_generates_the_same_images_after_loading(tmp_path):
    generator = networks.build_generator("resnet", (8, 8, 3), 2, width=4)
    generator.save(tmp_path / "model.keras")
    labels = np.array([0, 1, 0])
    images = sampling.sample_images(generator, 3, labels=labels)
    loaded = load_model(tmp_path / "model.keras")
    assert np.array_equal(sampling.sample_images(loaded, 3, labels=labels), images)
