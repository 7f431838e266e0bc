"""What several replicas need of Keras that Keras does not promise, and how batches are parted among them."""

import inspect

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
    assert list(inspect.signature(keras.optimizers.Adam.apply).parameters)[:2] == ["self", "grads"], CHANGED


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
