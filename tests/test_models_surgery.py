"""Splitting models, removing their heads and freezing their layers."""

import keras
import numpy as np
import pytest

from dltoolkit.errors import UserError
from dltoolkit.evaluation import calibration
from dltoolkit.models import portable, surgery
from dltoolkit.models.image import classifiers


def residual_model() -> keras.Model:
    inputs = keras.Input((8,), name="in")
    x = keras.layers.Dense(8, name="a")(inputs)
    y = keras.layers.Dense(8, name="b")(x)
    y = keras.layers.Dense(8, name="c")(y)
    x = keras.layers.Add(name="add")([x, y])
    return keras.Model(inputs, keras.layers.Dense(3, name="d")(x))


def names(model, tensors) -> list[str]:
    """Return the names of the layers that compute tensors of a model."""
    return [keras.Model(model.input, tensor).layers[-1].name for tensor in tensors]


def test_split_points_leave_residual_blocks_whole():
    model = residual_model()
    assert names(model, surgery.split_points(model)) == ["in", "a", "add", "d"]


@pytest.mark.parametrize(("fraction", "point"), [(0.0, "d"), (0.25, "add"), (0.5, "add"), (0.75, "a"), (1.0, "in")])
def test_split_point_leaves_at_most_a_fraction_of_the_layers_after_it(fraction, point):
    model = residual_model()
    assert names(model, [surgery.split_point(model, fraction)]) == [point]


def test_split_point_divides_a_model_into_two_that_compute_the_same():
    model = classifiers.build("resnet", (12, 12, 3), 3, widths=(4, 8, 8))
    tensor = surgery.split_point(model, 0.5)
    lower, upper = keras.Model(model.input, tensor), keras.Model(tensor, model.output)
    images = np.random.default_rng(0).integers(0, 255, (2, 12, 12, 3)).astype("float32")
    np.testing.assert_allclose(upper(lower(images)), model(images), atol=1e-5)
    assert len(upper.trainable_weights) < len(model.trainable_weights)


@pytest.mark.parametrize("tta", [False, True])
def test_without_head_ends_before_the_logits(tta):
    model = classifiers.build("cnn", (8, 8, 1), 3, widths=(4, 8))
    features = surgery.without_head(classifiers.with_flip_tta(model) if tta else model, "some run")
    assert features.output.name == model.get_layer("logits").input.name and features.output_shape == (None, 8)


def test_without_head_refuses_a_model_without_a_dense_layer_at_its_end():
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    with pytest.raises(UserError, match="open.keras does not end in a dense layer"):
        surgery.without_head(model, "open.keras")


def test_flatten_layers_replaces_nested_models_but_not_composite_layers():
    wrapped = keras.layers.Bidirectional(keras.layers.LSTM(2), name="both")
    inner = keras.Sequential([keras.Input((3, 8)), wrapped], name="inner")
    inputs = keras.Input((3, 8), name="in")
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(inner(inputs)))
    layers = [layer for layer in surgery.flatten_layers(model) if layer.weights]
    assert [layer.name for layer in layers] == ["both", "head"]


@pytest.mark.parametrize(
    ("fraction", "trainable"),
    [(None, ["words", "a", "b", "head"]), (1.0, ["a", "b", "head"]), (0.5, ["b", "head"]), (0.0, ["head"])],
)
def test_freeze_lower_layers_keeps_the_last_ones_and_the_head_trainable(fraction, trainable):
    inputs = keras.Input((3,), dtype="int32")
    x = keras.layers.Embedding(9, 4, name="words")(inputs)
    for name in ("a", "b", "head"):
        x = keras.layers.Dense(4, name=name)(x)
    model = keras.Model(inputs, x)
    surgery.freeze_lower_layers(model, fraction)
    assert [layer.name for layer in model.layers if layer.trainable_weights] == trainable


def test_freeze_batch_normalization_keeps_moving_statistics_in_training():
    model = classifiers.build("cnn", (8, 8, 1), 3, widths=(4,))
    surgery.freeze_batch_normalization(model)
    before = model.get_layer("stage1_a_norm").get_weights()
    model(np.full((2, 8, 8, 1), 200, "uint8"), training=True)
    for old, new in zip(before, model.get_layer("stage1_a_norm").get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert model.get_layer("stage1_a_conv").trainable


def test_without_head_takes_a_sequential_model():
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
    images = np.ones((2, 8, 8, 1), "float32")
    np.testing.assert_array_equal(surgery.without_head(model, "it")(images), np.ones((2, 64)))


def flat_model(*layers, name="own") -> keras.Sequential:
    return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3), *layers], name=name)


@pytest.mark.parametrize(
    "layers", [[keras.layers.Softmax()], [keras.layers.Activation("softmax")], [keras.layers.Rescaling(0.5)]]
)
def test_without_head_skips_what_follows_the_logits(layers):
    images = np.ones((2, 8, 8, 1), "float32")
    np.testing.assert_array_equal(surgery.without_head(flat_model(*layers), "it")(images), np.ones((2, 64)))


@pytest.mark.parametrize("tta", [False, True])
def test_features_and_backbone_of_a_calibrated_custom_model(tta):
    model = flat_model()
    model = keras.Model(model.inputs[0], model.outputs[0])
    model = classifiers.with_flip_tta(model) if tta else model
    calibrated = portable.to_keras_layers(calibration.divide_logits(model, 2.0))
    images = np.arange(128, dtype="float32").reshape(2, 8, 8, 1)
    assert calibrated.layers[-1].name == "temperature", "a custom model has no layer named logits"
    for features in (surgery.features(calibrated), surgery.without_head(calibrated, "it")):
        np.testing.assert_array_equal(features(images), images.reshape(2, 64))


def test_with_input_shape_fixes_a_free_size():
    inputs = keras.Input((None, None, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, name="conv")(inputs))
    free = keras.Model(inputs, pooled, name="free")
    fixed = surgery.with_input_shape(free, (16, 16, 3))
    images = np.random.default_rng(0).random((2, 16, 16, 3), "float32")
    assert fixed.input_shape == (None, 16, 16, 3) and fixed.get_layer("conv") is free.get_layer("conv")
    np.testing.assert_allclose(fixed(images), free(images), rtol=1e-6)
