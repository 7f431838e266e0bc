"""Tests of models, datasets and random numbers on several replicas."""

import json
import os
import subprocess
import sys
import textwrap

import filelock
import keras
import numpy as np
import pytest
import tensorflow as tf

from dltoolkit.training.distribute import replicas
from dltoolkit.training.distribute.strategy import Devices


@pytest.mark.parametrize(
    ("batch_size", "examples", "replica_count", "expected"),
    [(12, 24, 2, 12), (12, 25, 2, 13), (12, 26, 3, 13), (12, 5, 3, 12), (1, 7, 3, 4), (64, 129, 1, 64)],
)
def test_batch_size_for_replicas_leaves_no_replica_without_examples(batch_size, examples, replica_count, expected):
    assert replicas.batch_size_for_replicas(batch_size, examples, replica_count) == expected
    last = examples % expected
    assert last == 0 or last >= min(replica_count, examples)


def test_wrap_and_distribute_return_their_argument_for_one_replica():
    one = Devices(tf.distribute.get_strategy(), "cpu", 1)
    model, dataset = keras.Sequential([keras.Input((1,))]), tf.data.Dataset.range(3)
    assert replicas.wrap_for_strategy(model, one) is model
    assert replicas.distribute_dataset(dataset, one) is dataset


SCRIPT = """
import inspect, json
import keras, numpy as np, tensorflow as tf
from dltoolkit.models import keras_internals
from dltoolkit.models.image.layers import BatchNorm
from dltoolkit.training import selection
from dltoolkit.training.distribute import replicas, strategy

devices = strategy.devices("cpu:2")
local_results = devices.strategy.experimental_local_results
rng = np.random.default_rng(0)
x, y = rng.normal(size=(24, 8)).astype("float32"), rng.normal(size=(24, 2)).astype("float32")


def distribute_seven_examples():
    dataset = tf.data.Dataset.from_tensor_slices((np.arange(7),)).batch(4)  # a batch of four and one of three
    batches = replicas.distribute_dataset(dataset, devices)
    return [[part.numpy().tolist() for part in local_results(batch)] for (batch,) in batches]


def wrap_model_from_outside():
    outside = keras.Sequential([keras.Input((1000,)), keras.layers.Dropout(0.5), keras.layers.Dense(2)])
    with devices.strategy.scope():
        model = replicas.wrap_for_strategy(outside, devices)
    (dropout,) = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    ones = tf.ones((1, 1000))
    calls = [local_results(devices.strategy.run(lambda: dropout(ones, training=True))) for _ in range(2)]
    masks = [mask.numpy() for call in calls for mask in call]
    pairs = [(a, b) for i, a in enumerate(masks) for b in masks[:i]]
    equal = all(np.array_equal(a, b) for a, b in zip(outside.get_weights(), model.get_weights()))
    return {
        "agreement": [float(np.mean(a == b)) for a, b in pairs],
        "equal weights": equal,
        "is a copy": model is not outside,
    }


def train(xla, *layers):
    keras.utils.set_random_seed(0)
    with devices.strategy.scope():
        dense = [keras.layers.Dense(units, kernel_regularizer="l2") for units in (8, 2)]
        model = keras.Sequential([keras.Input((8,)), dense[0], *(layer() for layer in layers), dense[1]])
        model = replicas.wrap_for_strategy(model, devices, xla=xla)
        model.compile(keras.optimizers.SGD(0.1), "mse", metrics=["mae"])
    batches = replicas.distribute_dataset(tf.data.Dataset.from_tensor_slices((x, y)).batch(4), devices)
    history = model.fit(batches, epochs=2, steps_per_epoch=3, shuffle=False, verbose=0).history
    steps = inspect.getclosurevars(model.train_function).nonlocals["multi_step_on_iterator"]
    (concrete,) = steps._list_all_concrete_functions()
    functions = concrete.graph.as_graph_def().library.function
    compiled = [each.signature.name for each in functions if each.attr["_XlaMustCompile"].b]
    seeds = [np.asarray(each).tolist() for each in model.non_trainable_variables]
    weights = model.get_weights()[0].tolist()
    return {"history": history, "functions by XLA": len(compiled), "seeds": seeds, "weights": weights}


def train_dropout():
    # One step from zero weights: the update of a weight is proportional to the number of replicas that do not drop it.
    with devices.strategy.scope():
        layers = [keras.layers.Dropout(0.5), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")]
        model = replicas.wrap_for_strategy(keras.Sequential([keras.Input((1000,)), *layers]), devices, xla=True)
        model.compile(keras.optimizers.SGD(1.0), "mse")
    batches = tf.data.Dataset.from_tensors((np.ones((2, 1000)), np.ones((2, 1))))
    model.fit(replicas.distribute_dataset(batches, devices), epochs=1, steps_per_epoch=1, verbose=0)
    updates = model.get_weights()[0]
    return np.rint(2 * updates / updates.max()).ravel().tolist()


def batch_norm(layer_class):
    # Two replicas with three images and one image
    images = np.random.default_rng(1).normal(1.0, 2.0, (4, 3, 3, 5)).astype("float32")
    parts = tf.split(images, [3, 1])
    with devices.strategy.scope():
        layer = layer_class(synchronized=True, momentum=0.9)
        layer.build((None, 3, 3, 5))
        layer.set_weights([np.arange(1.0, 6.0), np.ones(5), np.zeros(5), np.ones(5)])

    def forward_and_backward(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = layer(images, training=True)
            loss = tf.reduce_sum(tf.sin(outputs) * images)
        return outputs, tape.gradient(loss, [images, *layer.trainable_variables])

    values = devices.strategy.experimental_distribute_values_from_function(
        lambda context: parts[context.replica_id_in_sync_group]
    )
    results = tf.function(lambda images: devices.strategy.run(forward_and_backward, args=(images,)))(values)
    results = [part for each in tf.nest.flatten(results) for part in local_results(each)]
    return [np.asarray(each).tolist() for each in (*results, *layer.get_weights())]


def balanced_accuracy():
    # Seven examples of two classes on two replicas: of class 0 four of five are right, of class 1 one of two
    with devices.strategy.scope():
        identity = keras.layers.Dense(2, kernel_initializer="identity", use_bias=False)
        model = replicas.wrap_for_strategy(keras.Sequential([keras.Input((2,)), identity]), devices)
        model.compile(loss="mse", metrics=[selection.BalancedAccuracy(2), selection.MacroF1(2)])
    labels, predictions = np.eye(2)[[0, 0, 0, 1, 0, 0, 1]], np.eye(2)[[0, 0, 0, 0, 1, 0, 1]]
    dataset = tf.data.Dataset.from_tensor_slices((predictions, labels)).batch(4)
    measured = model.evaluate(replicas.distribute_dataset(dataset, devices), return_dict=True, verbose=0)
    return {name: float(measured[name]) for name in ("balanced_accuracy", "macro_f1")}


def scale_losses():
    # In the first step the second replica alone has an infinite gradient; in the next ones both gradients are 1 and 2.
    with devices.strategy.scope():
        variable = keras.Variable([1.0])
        optimizer = keras_internals.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=8.0)
        optimizer.build([variable])

    @tf.function
    def step(bad):
        def apply():
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            gradient = tf.where(bad & (replica == 1), np.inf, 1.0 + tf.cast(replica, tf.float32))
            optimizer.apply([optimizer.scale_loss(gradient)[None]], [variable])

        devices.strategy.run(apply)

    results = []
    for bad in (True, False):
        step(tf.constant(bad))
        results.append([float(np.asarray(variable)[0]), float(np.asarray(optimizer.dynamic_scale))])
    return results


noise = lambda: keras.layers.Dropout(0.5)
print(json.dumps({
    "parts": distribute_seven_examples(),
    "copy": wrap_model_from_outside(),
    "plain": [train(True), train(False)],
    "dropout": [train(True, noise), train(False, noise)],
    "synchronized": train(True, lambda: keras.layers.BatchNormalization(synchronized=True)),
    "updates": train_dropout(),
    "scale losses": scale_losses(),
    "counts": balanced_accuracy(),
    "batch norm": [batch_norm(BatchNorm), batch_norm(keras.layers.BatchNormalization)],
}))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict:
    """Return the results of a process with two logical CPUs, which starts once even in a parallel test session."""
    base = tmp_path_factory.getbasetemp()
    file = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "replicas.json"
    with filelock.FileLock(f"{file}.lock"):
        if not file.exists():
            done = subprocess.run([sys.executable, "-c", textwrap.dedent(SCRIPT)], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            file.write_text(done.stdout)
    return json.loads(file.read_text())


def test_distribute_dataset_splits_batches_in_order(results):
    assert results["parts"] == [[[0, 1], [2, 3]], [[4], [5, 6]]]


def test_wrap_for_strategy_copies_a_model_from_outside_with_its_weights(results):
    assert results["copy"]["is a copy"] and results["copy"]["equal weights"]


def test_dropout_differs_by_replica_and_by_call(results):
    assert len(results["copy"]["agreement"]) == 6, "the pairs of four masks"
    # half of 1000 independent values agree, with a standard deviation of 0.016
    assert all(0.4 < share < 0.6 for share in results["copy"]["agreement"])


@pytest.mark.parametrize("network", ["plain", "dropout"])
def test_xla_compiles_the_part_of_each_replica_and_updates_seeds(results, network):
    with_xla, without_xla = results[network]
    assert with_xla["functions by XLA"] >= 2 and without_xla["functions by XLA"] == 0
    assert with_xla["seeds"] == without_xla["seeds"]


def test_xla_draws_different_dropout_on_each_replica(results):
    counts = np.bincount(np.array(results["updates"], int), minlength=3)  # weights by replicas that do not drop them
    # expected are 250, 500 and 250, with standard deviations of 14 and 16
    assert counts[0] > 150 and 400 < counts[1] < 600 and counts[2] > 150


def test_xla_learns_the_same(results):
    with_xla, without_xla = results["plain"]
    # float32 rounding over six steps
    np.testing.assert_allclose(with_xla["weights"], without_xla["weights"], atol=2e-6)
    for name, values in without_xla["history"].items():
        np.testing.assert_allclose(with_xla["history"][name], values, atol=1e-5, err_msg=name)


def test_xla_is_not_used_if_replicas_exchange_more_than_gradients(results):
    assert results["synchronized"]["functions by XLA"] == 0


def test_balanced_accuracy_counts_the_examples_of_all_replicas(results):
    """Of five zeros four are right, of two ones one; F1 is 8 / 10 and 2 / 4. Means over replicas would differ."""
    assert results["counts"] == pytest.approx(
        {"balanced_accuracy": (4 / 5 + 1 / 2) / 2, "macro_f1": (8 / 10 + 2 / 4) / 2}
    )


def test_loss_scaling_skips_a_step_if_any_replica_has_an_infinite_gradient(results):
    """The scale is halved and nothing else changes; then SGD follows the sum of the gradients, 1 + 2."""
    assert results["scale losses"] == [[1.0, 4.0], [pytest.approx(1.0 - 0.1 * 3), 4.0]]


def test_synchronized_batch_norm_equals_that_of_keras_on_uneven_parts(results):
    for actual, expected in zip(*results["batch norm"], strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
