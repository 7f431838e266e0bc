"""The messages of errors: suggestions, and the root cause of an exception of Keras or TensorFlow."""

import errno
import os

import keras
import pytest
import tensorflow as tf

from dltoolkit.errors import did_you_mean, machine_error, root_cause


@keras.saving.register_keras_serializable(package="tests")
class BrokenLayer(keras.layers.Layer):
    def call(self, inputs):
        raise ValueError("the wheels came off")


@tf.function
def broken_function(x):
    if tf.reduce_sum(x) > 0:
        raise ValueError("the wheels came off: both")
    return x


@pytest.mark.parametrize(
    ("function", "cause"),
    [
        (BrokenLayer(), "the wheels came off"),
        (broken_function, "the wheels came off: both"),
        (tf.function(BrokenLayer()), "the wheels came off"),
    ],
    ids=["layer", "function", "layer in a function"],
)
def test_root_cause_leaves_out_what_keras_and_tensorflow_add(function, cause):
    with pytest.raises(ValueError, match="wheels") as caught:
        function(tf.ones(3))
    assert root_cause(caught.value) == cause


def test_root_cause_is_the_first_line_of_another_error():
    assert root_cause(ValueError("one\ntwo")) == "one"
    assert root_cause(ValueError()) == "no message"


def test_did_you_mean_names_a_similar_choice_only():
    assert did_you_mean("resnett", ["resnet", "cnn"]) == " Did you mean 'resnet'?"
    assert did_you_mean("ResNet", ["resnet", "cnn"]) == " Did you mean 'resnet'?"
    assert did_you_mean("transformer", ["resnet", "cnn"]) == ""


@pytest.mark.parametrize(
    ("error", "begin"),
    [
        (MemoryError(), "Out of memory: free some memory, raise the limit"),
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating"), "Out of memory: free some memory"),
        (
            tf.errors.ResourceExhaustedError(None, None, f"variables.data; {os.strerror(errno.ENOSPC)}"),
            "No space left on device: free some space",
        ),
        (ImportError("libx.so: failed to map segment from shared object"), "Out of memory: free some memory"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/x"),
            "No space left on device (/tmp/x): free",
        ),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "Too many open files: raise the limit of open files"),
        (FileNotFoundError(errno.ENOENT, "No such file"), None),
        (ImportError("No module named x"), None),
        (ValueError("wrong"), None),
    ],
)
def test_machine_error_says_what_the_machine_lacks(error, begin):
    sentence = machine_error(error)
    assert sentence is None if begin is None else sentence.startswith(begin)
