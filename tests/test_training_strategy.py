"""What ``--device`` says when it cannot have its way, and batches that replicas cannot share."""

import pytest
import tensorflow as tf

from dltoolkit.errors import UserError
from dltoolkit.training.distribute import strategy
from dltoolkit.training.distribute.strategy import Devices

THREE = Devices(tf.distribute.get_strategy(), "cpu", 3)

without_gpu = pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="there is a GPU")


@without_gpu
def test_gpu_without_one_is_refused_and_auto_takes_the_cpu_and_says_so(capfd):
    with pytest.raises(UserError, match="no GPU that TensorFlow can use here; .* Use --device cpu"):
        strategy.devices("gpu")
    strategy._say_once.cache_clear()
    for _ in range(2):
        assert strategy.devices("auto").kind == "cpu"
    assert capfd.readouterr().err == "TensorFlow sees no GPU here: the CPU trains.\n", "once"


@pytest.mark.parametrize(
    ("kind", "how", "expected"),
    [
        ("cpu", {}, False),
        ("cpu", {"on_cpu": True}, True),
        ("gpu", {}, True),
        ("gpu", {"varying": True}, False),  # each length of text would be compiled for seconds
        ("tpu", {"varying": True}, True),
    ],
)
def test_xla_where_it_pays(kind, how, expected):
    devices = Devices(tf.distribute.get_strategy(), kind, 1)
    assert strategy.xla("auto", devices, **how) is expected
    assert strategy.xla("on", devices, **how) is True
    assert strategy.xla("off", devices, **how) is False


def test_a_batch_that_replicas_cannot_share_equally_is_made_smaller_with_a_line(capfd):
    assert strategy.shared_batch(128, THREE) == 126
    assert "Batches of 126 in place of 128, for 3 replicas to share." in capfd.readouterr().err
    assert strategy.shared_batch(126, THREE) == 126
    assert strategy.shared_batch(128, THREE, multiple=2) == 126
    assert strategy.shared_batch(127, Devices(tf.distribute.get_strategy(), "cpu", 1)) == 127
    assert strategy.shared_batch(64, THREE, multiple=4) == 60


def test_a_batch_with_fewer_examples_than_replicas_is_refused():
    with pytest.raises(UserError, match="3 replicas cannot share a batch of 2: use a larger --batch-size"):
        strategy.shared_batch(2, THREE)
