"""Tests of optimizers and of the learning rate schedule against their definitions."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from dltoolkit.config import OptimizerOptions
from dltoolkit.training import muon, optimizer
from dltoolkit.training.muon import Muon


def network() -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(16, 3, name="first")(inputs)
    x = keras.layers.Conv2D(16, 3, name="second")(x)
    x = keras.layers.Dense(32, name="dense")(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.Dense(4, name="logits")(x))


def test_muon_updates_matrices_by_orthogonal_steps():
    model = network()
    rule = Muon(learning_rate=0.5, weight_decay=None, adam_weight_decay=None)
    rule.build(model.trainable_variables)
    before = [v.numpy() for v in model.trainable_variables]
    rng = np.random.default_rng(0)
    rule.apply(
        [keras.ops.convert_to_tensor(rng.normal(size=v.shape).astype("float32")) for v in model.trainable_variables]
    )
    orthogonal = {}
    for old, variable in zip(before, model.trainable_variables):
        if len(variable.shape) < 2:
            continue
        update = (variable.numpy() - old).reshape(-1, variable.shape[-1])
        scale = 0.5 * 0.2 * math.sqrt(max(update.shape))
        singular = np.linalg.svd(update, compute_uv=False) / scale
        orthogonal[variable.path.split("/")[0]] = bool(singular.min() > 0.5 and singular.max() < 1.3)
    assert orthogonal == {"first": False, "second": True, "dense": True, "logits": False}


def test_warmup_cosine_reduces_the_peak_beyond_the_full_rate_steps():
    schedule = optimizer.WarmupCosine(0.3, steps=100, full_rate_steps=100)
    assert schedule.peak_for_length == pytest.approx(0.3)
    other = schedule.scaled(2.0)
    schedule.steps = 400
    assert schedule.peak_for_length == pytest.approx(0.15)
    assert max(float(schedule(step)) for step in range(400)) == pytest.approx(0.15, rel=1e-3)
    assert other.peak_for_length == pytest.approx(0.3), "a scaled schedule has the same length"


@pytest.mark.parametrize("shape", [(288, 32), (32, 288), (40, 32)])
def test_orthogonalize_equals_the_newton_schulz_iteration(shape):
    a, b, c = coefficients = (3.4445, -4.775, 2.0315)
    x = np.random.default_rng(0).normal(size=shape).astype("float32") + 0.5
    expected = x.astype("float64") / np.linalg.norm(x)
    for _ in range(5):
        gram = expected @ expected.T
        expected = a * expected + (b * gram + c * gram @ gram) @ expected
    np.testing.assert_allclose(muon.orthogonalize(tf.constant(x), 5, coefficients), expected, atol=2e-4)


def test_warmup_cosine_rises_and_falls_to_zero():
    schedule = optimizer.WarmupCosine(0.3, steps=200)
    rates = [float(schedule(step)) for step in range(200)]
    assert max(rates) == pytest.approx(0.3, rel=1e-3)
    assert rates.index(max(rates)) in (18, 19, 20)
    assert rates[0] == pytest.approx(0.3 / 20)
    assert rates[109] == pytest.approx(0.15, rel=0.02)
    assert rates[-1] == pytest.approx(0.0, abs=1e-6)
    schedule.steps = 400
    assert float(schedule(199)) > 0.15, "a longer plan takes effect immediately"


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "muon"])
def test_weight_decay_excludes_vectors(name):
    model = network()
    rule, _ = optimizer.make(OptimizerOptions(optimizer=name, learning_rate=0.1, weight_decay=0.5), 128)
    optimizer.exclude_vectors_from_weight_decay(rule, model)
    rule.build(model.trainable_variables)
    for variable in model.trainable_variables:
        variable.assign(keras.ops.ones_like(variable))
    for _ in range(3):
        rule.apply([keras.ops.zeros_like(v) for v in model.trainable_variables])
    for variable in model.trainable_variables:
        shrunk = float(variable.numpy().max()) < 1.0
        assert shrunk == (len(variable.shape) >= 2), variable.path


def test_make_scales_the_default_rate_with_the_batch_size():
    small, large = (optimizer.make(OptimizerOptions(), size)[1].peak for size in (128, 512))
    assert large == pytest.approx(2 * small)
