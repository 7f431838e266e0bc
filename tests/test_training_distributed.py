"""Models, batches and random numbers on several replicas."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from dltoolkit.training.distribute import replicas as distributed


@pytest.mark.parametrize(
    ("batch_size", "examples", "replicas", "even"),
    [(12, 24, 2, 12), (12, 25, 2, 13), (12, 26, 3, 13), (12, 5, 3, 12), (1, 7, 3, 4), (64, 129, 1, 64)],
)
def test_no_batch_has_fewer_examples_than_there_are_replicas(batch_size, examples, replicas, even):
    assert distributed.batch_size_for_replicas(batch_size, examples, replicas) == even
    assert 0 in (examples % even,) or examples % even >= min(replicas, examples)


def test_one_device_is_left_as_it_is():
    from dltoolkit.training.distribute.strategy import Devices

    alone = Devices(tf.distribute.get_strategy(), "cpu", 1)
    model, batches = keras.Sequential([keras.Input((1,))]), tf.data.Dataset.range(3)
    assert distributed.wrap_for_strategy(model, alone) is model and distributed.distribute_dataset(batches, alone) is batches


SCRIPT = """
import json
import keras, numpy as np, tensorflow as tf
from dltoolkit.training.distribute import replicas as distributed
from dltoolkit.training.distribute import strategy

devices = strategy.devices("cpu:2")
numbers = tf.data.Dataset.from_tensor_slices((np.arange(7),)).batch(4)  # a batch of four, one of three
parts = [
    [part.numpy().tolist() for part in devices.strategy.experimental_local_results(batch)]
    for (batch,) in distributed.share_out(numbers, devices)
]
outside = keras.Sequential([keras.Input((1000,)), keras.layers.Dropout(0.5), keras.layers.Dense(2)])
with devices.strategy.scope():
    model = distributed.wrap_for_strategy(outside, devices)
(dropout,) = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
ones = tf.ones((1, 1000))
masks = [
    devices.strategy.experimental_local_results(devices.strategy.run(lambda: dropout(ones, training=True)))
    for _ in range(2)
]
masks = [mask.numpy() for both in masks for mask in both]
alike = [float(np.mean(one == other)) for one in masks for other in masks]
same = all(np.array_equal(a, b) for a, b in zip(outside.get_weights(), model.get_weights()))
print(json.dumps({"parts": parts, "alike": alike, "same": same, "made": model is not outside}))
"""


def test_batches_are_parted_in_order_and_dropout_differs_by_replica():
    """In a process of its own, which has two logical CPUs."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["parts"] == [[[0, 1], [2, 3]], [[4], [5, 6]]]
    assert found["made"] and found["same"], "a network made elsewhere is moved with its weights"
    apart = [share for number, share in enumerate(found["alike"]) if number % 5]  # 4 masks, each with each
    assert all(0.4 < share < 0.6 for share in apart), "two replicas, two calls: four different masks"


TWO_REPLICAS = """
import inspect, json
import keras, numpy as np, tensorflow as tf
from dltoolkit.models.image.layers import BatchNorm
from dltoolkit.training.distribute import replicas as distributed
from dltoolkit.training.distribute import strategy

devices = strategy.devices("cpu:2")
rng = np.random.default_rng(0)
x, y = rng.normal(size=(24, 8)).astype("float32"), rng.normal(size=(24, 2)).astype("float32")


def trained(compiled, *layers):
    keras.utils.set_random_seed(0)
    with devices.strategy.scope():
        dense = [keras.layers.Dense(units, kernel_regularizer="l2") for units in (8, 2)]
        model = keras.Sequential([keras.Input((8,)), dense[0], *(layer() for layer in layers), dense[1]])
        model = distributed.wrap_for_strategy(model, devices, compiled=compiled)
        model.compile(keras.optimizers.SGD(0.1), "mse", metrics=["mae"])
    batches = distributed.share_out(tf.data.Dataset.from_tensor_slices((x, y)).batch(4), devices)
    history = model.fit(batches, epochs=2, steps_per_epoch=3, shuffle=False, verbose=0).history
    steps = inspect.getclosurevars(model.train_function).nonlocals["multi_step_on_iterator"]
    (concrete,) = steps._list_all_concrete_functions()
    functions = concrete.graph.as_graph_def().library.function
    by_xla = [each.signature.name for each in functions if each.attr["_XlaMustCompile"].b]
    seeds = [np.asarray(each).tolist() for each in model.non_trainable_variables]
    return {"history": history, "by xla": len(by_xla), "seeds": seeds, "weights": model.get_weights()[0].tolist()}


def normalised(kind):
    pictures = rng.normal(1.0, 2.0, (4, 3, 3, 5)).astype("float32")
    uneven = tf.split(pictures, [3, 1])
    with devices.strategy.scope():
        layer = kind(synchronized=True, momentum=0.9)
        layer.build((None, 3, 3, 5))
        layer.set_weights([np.arange(1.0, 6.0), np.ones(5), np.zeros(5), np.ones(5)])

    def go(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            answers = layer(images, training=True)
            loss = tf.reduce_sum(tf.sin(answers) * images)
        return answers, tape.gradient(loss, [images, *layer.trainable_variables])

    def part_of(context):
        return uneven[context.replica_id_in_sync_group]

    images = devices.strategy.experimental_distribute_values_from_function(part_of)
    found = tf.function(lambda images: devices.strategy.run(go, args=(images,)))(images)
    found = [devices.strategy.experimental_local_results(each) for each in tf.nest.flatten(found)]
    parts = [part for both in found for part in both]
    return [np.asarray(each).tolist() for each in (*parts, *layer.get_weights())]


def masked():  # what one step teaches weights that dropout hides on no replica, on one or on both
    with devices.strategy.scope():
        layers = [keras.layers.Dropout(0.5), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")]
        model = distributed.wrap_for_strategy(keras.Sequential([keras.Input((1000,)), *layers]), devices, compiled=True)
        model.compile(keras.optimizers.SGD(1.0), "mse")
    batches = tf.data.Dataset.from_tensors((np.ones((2, 1000)), np.ones((2, 1))))
    model.fit(distributed.share_out(batches, devices), epochs=1, steps_per_epoch=1, verbose=0)
    learnt = model.get_weights()[0]
    return np.rint(2 * learnt / learnt.max()).ravel().tolist()


noisy = lambda: keras.layers.Dropout(0.5)
report = {
    "plain": [trained(compiled) for compiled in (True, False)],
    "noisy": [trained(compiled, noisy) for compiled in (True, False)],
    "shared": trained(True, lambda: keras.layers.BatchNormalization(synchronized=True)),
}
rng = np.random.default_rng(1)
report["masked"] = masked()
report["ours"] = normalised(BatchNorm)
rng = np.random.default_rng(1)
report["keras"] = normalised(keras.layers.BatchNormalization)
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def two_replicas():
    """What a process with two logical CPUs found."""
    done = subprocess.run([sys.executable, "-c", TWO_REPLICAS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("network", ["plain", "noisy"])
def test_xla_compiles_for_each_replica_and_seeds_move_on(two_replicas, network):
    ours, without = two_replicas[network]
    assert ours["by xla"] >= 2 and without["by xla"] == 0
    assert ours["seeds"] == without["seeds"]


def test_what_xla_compiles_draws_for_each_replica(two_replicas):
    hidden = np.bincount(np.array(two_replicas["masked"], int), minlength=3)
    assert hidden[0] > 150 and 400 < hidden[1] < 600 and hidden[2] > 150


def test_what_xla_compiles_learns_the_same(two_replicas):
    ours, without = two_replicas["plain"]
    np.testing.assert_allclose(ours["weights"], without["weights"], atol=1e-6)
    for name, values in without["history"].items():
        np.testing.assert_allclose(ours["history"][name], values, atol=1e-5, err_msg=name)


def test_a_network_that_shares_more_than_gradients_does_without_xla(two_replicas):
    assert two_replicas["shared"]["by xla"] == 0


def test_statistics_of_unequal_parts_and_their_gradients_are_those_of_keras(two_replicas):
    for ours, keras_ in zip(two_replicas["ours"], two_replicas["keras"], strict=True):
        np.testing.assert_allclose(ours, keras_, rtol=1e-4, atol=1e-5)
