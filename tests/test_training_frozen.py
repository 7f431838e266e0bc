"""Features are those of the network in inference mode, however it was prepared, and a head on them is the best one."""

import keras
import numpy as np
import pytest
from conftest import CLASSES
from sklearn.linear_model import LogisticRegression

from dltoolkit.data.image import dataset as images
from dltoolkit.finetuning import feature_cache as frozen


@pytest.fixture(scope="module")
def network() -> keras.Model:
    """A convolution, its normalisation with statistics of its own, a ReLU, and dropout, which must not act."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    stack = [layers.Conv2D(8, 3, use_bias=False), layers.BatchNormalization(), layers.ReLU(6.0), layers.Dropout(0.5)]
    network = keras.Sequential([keras.Input((16, 16, 3)), *stack, layers.GlobalAveragePooling2D()])
    norm = network.layers[1]
    norm.set_weights([np.random.default_rng(i).uniform(1, 20, 8) for i in range(4)])
    return network


@pytest.mark.parametrize("most", [frozen.MOST_CONSTANTS, 0])
def test_features_are_those_of_the_network(network, make_folder, monkeypatch, most):
    monkeypatch.setattr(frozen, "MOST_CONSTANTS", most)
    pictures = images.load(str(make_folder(per_class=20)))
    train, validation = frozen.computed(network, pictures)
    for cached, rows in ((train, pictures.train), (validation, pictures.validation)):
        expected = network(pictures.images[rows].astype("float32"), training=False)
        np.testing.assert_allclose(cached.values, expected, rtol=2e-3)  # they are kept in float16
        np.testing.assert_array_equal(cached.labels, pictures.labels[rows])
    assert train.classes == len(CLASSES)


@pytest.mark.parametrize("units", [5, 200])
def test_a_head_is_the_best_logistic_regression(units):
    """With more units than examples it is found in the space that these span, which must make no difference."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    features = rng.normal(size=(90, units)) * 3 + 7
    features[:, :3] += 2 * np.eye(3)[labels]
    kernel, bias, strength = frozen.linear_head((features[:60], labels[:60]), (features[60:], labels[60:]), 3)
    mean, spread = features[:60].mean(axis=0), features[:60].var(axis=0)
    spread = np.sqrt(spread + spread.mean())
    plain = LogisticRegression(C=strength, max_iter=2000, tol=1e-6).fit((features[:60] - mean) / spread, labels[:60])
    expected = plain.predict_proba((features[60:] - mean) / spread)
    logits = features[60:] @ kernel + bias
    found = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(found / found.sum(axis=1, keepdims=True), expected, atol=2e-2)
