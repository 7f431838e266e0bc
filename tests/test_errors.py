"""The one line of an error that nobody foresaw."""

import keras
import pytest
import tensorflow as tf

from dltoolkit.errors import root_cause


@keras.saving.register_keras_serializable(package="tests")
class Broken(keras.layers.Layer):
    def call(self, inputs):
        raise ValueError("the wheels came off")


@tf.function
def broken(x):
    if tf.reduce_sum(x) > 0:
        raise ValueError("the wheels came off: both")
    return x


def an_error(of) -> Exception:
    with pytest.raises(ValueError, match="wheels") as caught:
        of(tf.ones(3))
    return caught.value


def test_what_surrounds_the_reason_is_left_out():
    assert root_cause(an_error(Broken())) == "the wheels came off"
    assert root_cause(an_error(broken)) == "the wheels came off: both"
    assert root_cause(an_error(tf.function(Broken()))) == "the wheels came off"
    assert root_cause(ValueError("one\ntwo")) == "one"
    assert root_cause(ValueError()) == "no message"
