"""Temperature scaling."""

import keras
import numpy as np
import pytest

from dltoolkit.evaluation import calibration


def test_fit_temperature_corrects_overconfidence():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 2000)
    logits = rng.normal(size=(2000, 3)) + 1.5 * np.eye(3)[labels]
    optimum = calibration.fit_temperature(logits, labels)
    assert calibration.fit_temperature(3 * logits, labels) == pytest.approx(3 * optimum, rel=0.02)


def test_fit_temperature_stays_away_from_zero_without_mistakes():
    assert calibration.fit_temperature(np.eye(3)[[0, 1, 2] * 5], np.array([0, 1, 2] * 5)) > 0.15


@pytest.mark.parametrize("kind", ["logits", "nested", "head", "frozen", "tanh"])
def test_divide_logits_divides_the_output_of_any_classifier(kind):
    inputs, name = keras.Input((4,)), "head" if kind == "head" else "logits"
    options = {"trainable": kind != "frozen", "activation": "tanh" if kind == "tanh" else None}
    model = keras.Model(inputs, keras.layers.Dense(3, name=name, bias_initializer="ones", **options)(inputs))
    if kind == "nested":
        model = keras.Model(outer := keras.Input((4,)), model(outer))
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    before = model.predict_on_batch(x)
    assert calibration.divide_logits(model, 2.0).predict_on_batch(x) == pytest.approx(before / 2, rel=1e-5)
