"""Devices that are missing, XLA and precision by default, and batches that replicas cannot share."""

import pytest
import tensorflow as tf

from dltoolkit.errors import UserError
from dltoolkit.training.distribute import strategy
from dltoolkit.training.distribute.strategy import Devices

THREE = Devices(tf.distribute.get_strategy(), "cpu", 3)

needs_no_gpu = pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="there is a GPU")


@needs_no_gpu
def test_devices_refuses_a_missing_gpu_and_auto_falls_back_to_the_cpu(capfd):
    with pytest.raises(UserError, match="TensorFlow finds no GPU; .* Use device='cpu'"):
        strategy.devices("gpu")
    strategy._note_once.cache_clear()
    for _ in range(2):
        assert strategy.devices("auto").kind == "cpu"
    assert capfd.readouterr().err == "TensorFlow finds no GPU: training on the CPU.\n", "the message comes once"


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("cpu", {}, False),
        ("cpu", {"xla_on_cpu": True}, True),
        ("gpu", {}, True),
        ("gpu", {"variable_shapes": True}, False),  # XLA would compile each length of texts for seconds
        ("tpu", {"variable_shapes": True}, True),
    ],
)
def test_use_xla_auto_compiles_if_it_is_faster(kind, options, expected):
    devices = Devices(tf.distribute.get_strategy(), kind, 1)
    assert strategy.use_xla("auto", devices, **options) is expected
    assert strategy.use_xla("on", devices, **options) is True
    assert strategy.use_xla("off", devices, **options) is False


def test_shared_batch_size_reduces_a_batch_and_says_so(capfd):
    assert strategy.shared_batch_size(128, THREE) == 126
    assert "The batch size is 126 instead of 128, so that 3 replicas can share it." in capfd.readouterr().err
    assert strategy.shared_batch_size(126, THREE) == 126
    assert strategy.shared_batch_size(128, THREE, multiple=2) == 126
    assert strategy.shared_batch_size(127, Devices(tf.distribute.get_strategy(), "cpu", 1)) == 127
    assert strategy.shared_batch_size(64, THREE, multiple=4) == 60


def test_shared_batch_size_refuses_fewer_examples_than_replicas():
    with pytest.raises(UserError, match="3 replicas cannot share a batch of 2: use a larger batch_size"):
        strategy.shared_batch_size(2, THREE)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("ONEDNN_MAX_CPU_ISA", "AVX2"), ("ONEDNN_MAX_CPU_ISA", "avx512_core"), ("TF_ENABLE_ONEDNN_OPTS", "0")],
)
def test_set_precision_auto_respects_the_instructions_that_onednn_may_use(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    assert strategy.set_precision("auto", strategy.devices("cpu")) == "float32"
