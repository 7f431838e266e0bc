"""Cached features: equal to those of the network in inference mode, in any number of copies."""

import keras
import numpy as np
import pytest
from conftest import CLASSES

from dltoolkit.data.image import augment, dataset
from dltoolkit.finetuning import feature_cache


@pytest.fixture(scope="module")
def network() -> keras.Model:
    """Return a convolution, batch normalization with random statistics, a ReLU and dropout, which must be inactive."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    stack = [layers.Conv2D(8, 3, use_bias=False), layers.BatchNormalization(), layers.ReLU(6.0), layers.Dropout(0.5)]
    network = keras.Sequential([keras.Input((16, 16, 3)), *stack, layers.GlobalAveragePooling2D()])
    network.layers[1].set_weights([np.random.default_rng(i).uniform(1, 20, 8) for i in range(4)])
    return network


@pytest.mark.parametrize("max_constant_bytes", [feature_cache.MAX_CONSTANT_BYTES, 0])
def test_compute_returns_the_features_of_inference_mode(network, make_folder, monkeypatch, max_constant_bytes):
    monkeypatch.setattr(feature_cache, "MAX_CONSTANT_BYTES", max_constant_bytes)
    splits = dataset.load(str(make_folder(per_class=20)))
    train, validation = feature_cache.compute(network, splits)
    for cached, rows in ((train, splits.train), (validation, splits.validation)):
        expected = network(splits.images[rows].astype("float32"), training=False)
        np.testing.assert_allclose(cached.values, expected, rtol=2e-3)  # they are stored in float16
        np.testing.assert_array_equal(cached.labels, splits.labels[rows])
    assert train.classes == len(CLASSES)


def test_compute_augments_all_copies_but_the_first(network, make_folder):
    splits = dataset.load(str(make_folder(per_class=20)))
    gentle = augment.default_augmentation(splits.image_shape, flip=True)
    copies, _ = feature_cache.compute(network, splits, augment_copies=2, augment=gentle, seed=1)
    first, second = np.split(np.asarray(copies.values), 2)
    plain, _ = feature_cache.compute(network, splits)
    np.testing.assert_array_equal(first, plain.values)
    assert not np.array_equal(second, first)
    np.testing.assert_array_equal(copies.labels, np.tile(splits.labels[splits.train], 2))


def test_training_batches_weigh_classes_and_continue_from_a_step(network, make_folder):
    splits = dataset.load(str(make_folder(per_class=20)))
    cached, _ = feature_cache.compute(network, splits)
    weights = np.array([1.0, 2.0, 3.0])
    from_start = list(cached.training_batches(8, 0, 0, weights).take(4).as_numpy_iterator())
    continued = list(cached.training_batches(8, 0, 2, weights).take(2).as_numpy_iterator())
    for expected, batch in zip(from_start[2:], continued, strict=True):
        for a, b in zip(expected, batch, strict=True):
            np.testing.assert_array_equal(a, b)
    for _, one_hot, sample_weights in from_start:
        np.testing.assert_allclose(sample_weights, one_hot @ weights)
