"""Latents and images sampled from a generator."""

import numpy as np
import pytest

from dltoolkit.models.gan import networks, sampling


def test_sample_images_depends_on_the_seed_and_not_on_the_count():
    generator = networks.build_generator("dcgan", (8, 8, 1), width=4)
    images = sampling.sample_images(generator, 4, seed=7)
    assert np.array_equal(images, sampling.sample_images(generator, 9, seed=7)[:4])
    assert not np.array_equal(images, sampling.sample_images(generator, 4, seed=8))


def test_sample_latents_is_normal_and_can_be_truncated():
    assert sampling.sample_latents(2, -1).shape == (2, sampling.LATENT_DIM)
    normal, truncated = sampling.sample_latents(4000, 1), sampling.sample_latents(4000, 1, truncation=0.8)
    assert normal.std() == pytest.approx(1, abs=0.01)
    assert 0.79 < np.abs(truncated).max() <= 0.8


def test_interpolate_latents_leads_from_each_row_to_the_next():
    latents = sampling.sample_latents(3, 0)
    path = sampling.interpolate_latents(latents, 4)
    assert path.shape == (12, sampling.LATENT_DIM)
    assert path[::4] == pytest.approx(latents, abs=1e-4)
    steps = np.linalg.norm(np.concatenate([path, path[:1]])[1:] - path, axis=1).reshape(3, 4)
    assert (steps.max(axis=1) < 1.5 * steps.min(axis=1)).all()
    assert np.linalg.norm(path, axis=1).min() > 0.9 * np.linalg.norm(latents, axis=1).min()
