"""What several replicas need of Keras that Keras does not promise, and how batches are parted among them."""

import inspect
import json
import subprocess
import sys

import keras
import pytest
import tensorflow as tf
from keras.src.backend.tensorflow import trainer

from dltoolkit.training import distributed

VERSION = "3.15"
CHANGED = (
    f"dltoolkit/training/distributed.py leans on private methods of Keras {VERSION}, and this is Keras "
    f"{keras.__version__}: read Trainer._maybe_symbolic_build and TensorFlowTrainer.fit again, run "
    "tests/test_distribution.py and tests/test_training_launch.py, and only then raise the version here and in "
    "pyproject.toml."
)


def test_keras_is_the_version_that_was_read():
    assert keras.__version__.startswith(f"{VERSION}."), CHANGED


def test_keras_still_has_what_is_overridden():
    build = inspect.signature(trainer.TensorFlowTrainer._maybe_symbolic_build)
    assert list(build.parameters) == ["self", "iterator", "data_batch"], CHANGED
    assert "data_batch" in inspect.signature(trainer.TensorFlowTrainer._symbolic_build).parameters, CHANGED
    for verb in ("fit", "evaluate"):
        source = inspect.getsource(getattr(trainer.TensorFlowTrainer, verb))
        assert "self._maybe_symbolic_build(iterator=epoch_iterator)\n        epoch_iterator.reset()" in source, CHANGED
    assert list(inspect.signature(keras.Model._get_metrics_result_or_logs).parameters) == ["self", "logs"], CHANGED
    assert 'strategy.reduce("MEAN", v, axis=0)' in inspect.getsource(trainer.reduce_per_replica), CHANGED
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dropout(0.5)])
    assert model._distribute_strategy is None, CHANGED
    assert isinstance(model.layers[0].seed_generator, keras.random.SeedGenerator), CHANGED


def test_keras_still_cannot_do_it_by_itself():
    """When this fails, Keras builds from one replica's batch, and the override may go."""
    source = inspect.getsource(trainer.TensorFlowTrainer._maybe_symbolic_build)
    assert 'self.distribute_strategy.reduce(\n                        "MEAN"' in source, CHANGED


@pytest.mark.parametrize(
    ("batch_size", "examples", "replicas", "even"),
    [(12, 24, 2, 12), (12, 25, 2, 13), (12, 26, 3, 13), (12, 5, 3, 12), (1, 7, 3, 4), (64, 129, 1, 64)],
)
def test_no_batch_has_fewer_examples_than_there_are_replicas(batch_size, examples, replicas, even):
    assert distributed.even_enough(batch_size, examples, replicas) == even
    assert 0 in (examples % even,) or examples % even >= min(replicas, examples)


def test_one_device_is_left_as_it_is():
    from dltoolkit.training.strategy import Devices

    alone = Devices(tf.distribute.get_strategy(), "cpu", 1)
    model, batches = keras.Sequential([keras.Input((1,))]), tf.data.Dataset.range(3)
    assert distributed.prepare(model, alone) is model and distributed.share_out(batches, alone) is batches


SCRIPT = """
import json
import keras, numpy as np, tensorflow as tf
from dltoolkit.training import distributed, strategy

devices = strategy.devices("cpu:2")
numbers = tf.data.Dataset.from_tensor_slices((np.arange(7),)).batch(4)  # a batch of four, one of three
parts = [
    [part.numpy().tolist() for part in devices.strategy.experimental_local_results(batch)]
    for (batch,) in distributed.share_out(numbers, devices)
]
outside = keras.Sequential([keras.Input((1000,)), keras.layers.Dropout(0.5), keras.layers.Dense(2)])
with devices.strategy.scope():
    model = distributed.prepare(outside, devices)
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
