"""The image classifiers and their layers: shapes, learning, saving, and equality with the layers of Keras."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from dltoolkit.errors import UserError
from dltoolkit.models.image import classifiers, layers

SHAPES = [(8, 8, 1), (28, 28, 1), (33, 47, 3), (224, 224, 3)]
SMALL = {
    "resnet": (8, 16, 16),
    "cnn": (8, 16),
    "alexnet": (16, 16, 24, 24, 16, 32, 32),
    "mlp": (32, 16),
    "vit": (32, 32),
}


def noise(shape, count=4):
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype="uint8")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("family", classifiers.FAMILIES)
def test_build_maps_raw_pixels_to_logits(family, shape):
    model = classifiers.build(family, shape, 5, widths=SMALL[family])
    logits = model(noise(shape))
    assert logits.shape == (4, 5) and logits.dtype == tf.float32
    spread = logits.numpy().std(axis=0)
    assert np.isfinite(spread).all() and spread.min() > 1e-3  # different images give different logits
    np.testing.assert_allclose(model(noise(shape).astype("float32")), logits, atol=1e-4)  # uint8 or float


@pytest.mark.parametrize("family", classifiers.FAMILIES)
def test_build_defaults_give_a_sensible_size(family):
    model = classifiers.build(family, (32, 32, 3), 10)
    assert model.name == family and model.layers[-1].name == "logits"
    assert 1e5 < model.count_params() < 4e6


def test_build_alexnet_at_227_pixels_follows_the_paper():
    """The last pooling leaves 6x6 positions (Krizhevsky 2012), here with an eighth of the paper's widths."""
    model = classifiers.build("alexnet", (227, 227, 3), 10, widths=(12, 32, 48, 48, 32, 512, 512))
    assert model.get_layer("layer5_pool").output.shape[1:] == (6, 6, 32)
    assert model.get_layer("layer6").kernel.shape == (6 * 6 * 32, 512)


@pytest.mark.parametrize("family", classifiers.FAMILIES)
def test_build_learns_digits(family):
    """Two classes of the digits in 300 examples: above chance (50 %) on held-out ones within two seconds."""
    keras.utils.set_random_seed(0)
    digits = load_digits(n_class=2)
    x, y = (digits.images * 255 / 16).astype("uint8")[..., None], digits.target
    widths = (32,) if family == "vit" else SMALL[family]
    model = classifiers.build(family, (8, 8, 1), 2, widths=widths, dropout=0.0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(3e-3), loss, jit_compile=False)
    model.fit(x[:300], y[:300], batch_size=16, epochs=5, verbose=0)
    predictions = np.argmax(model(x[300:]), axis=-1)
    assert np.mean(predictions == y[300:]) > 0.8


@pytest.mark.parametrize("family", classifiers.FAMILIES)
def test_build_depends_on_the_seed_only(family):
    def weights(seed):
        keras.utils.set_random_seed(seed)
        model = classifiers.build(family, (16, 16, 3), 3, widths=SMALL[family])
        return np.concatenate([w.ravel() for w in model.get_weights()])

    assert np.array_equal(weights(1), weights(1)) and not np.array_equal(weights(1), weights(2))


@pytest.mark.skipif(os.environ.get("ONEDNN_MAX_CPU_ISA") == "AVX2", reason="oneDNN then lacks bfloat16")
@pytest.mark.parametrize("family", classifiers.FAMILIES)
def test_build_keeps_float32_logits_in_mixed_precision(family):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = classifiers.build(family, (16, 16, 3), 3, widths=SMALL[family])
        with tf.GradientTape() as tape:
            logits = model(noise((16, 16, 3)), training=True)
        gradients = tape.gradient(logits, model.trainable_variables)
    finally:
        keras.config.set_dtype_policy(before)
    assert logits.dtype == tf.float32 and np.isfinite(logits).all()
    assert all(g is not None and np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_batch_norm_equals_keras(jit_compile):
    """Outputs, gradients and moving statistics of the fused kernel against the operations of Keras."""
    x = tf.random.stateless_normal((16, 6, 6, 8), (1, 2)) * 3 + 1
    results = []
    for kind in (keras.layers.BatchNormalization, layers.BatchNorm):
        layer = kind(momentum=0.8, epsilon=1e-3)
        layer.build(x.shape)
        layer.gamma.assign(np.linspace(0.5, 2, 8))
        layer.beta.assign(np.linspace(-1, 1, 8))

        def step(layer=layer):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=True)
                loss = tf.reduce_sum(y**3)
            return y, tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])

        y, gradients = tf.function(step, jit_compile=jit_compile)()
        results.append([y, *gradients, layer.moving_mean, layer.moving_variance, layer(x, training=False)])
    for of_keras, of_ours in zip(*results):
        np.testing.assert_allclose(of_ours, of_keras, rtol=1e-3, atol=1e-4)


def test_batch_norm_uses_moving_statistics_if_frozen():
    layer = layers.BatchNorm()
    x = tf.random.stateless_normal((4, 3, 3, 2), (1, 2)) + 5
    layer(x)
    layer.trainable = False
    np.testing.assert_allclose(layer(x, training=True), x / np.sqrt(1.001), rtol=1e-4)


def test_build_resnet_compiles_with_xla():
    model = classifiers.build("resnet", (16, 16, 3), 3, widths=SMALL["resnet"])
    model.compile("adamw", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=True)
    assert np.isfinite(model.train_on_batch(noise((16, 16, 3)), np.array([0, 1, 2, 0])))
    assert model.jit_compile


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("resnett", (32, 32, 3), 10), "'resnet'"),
        (("resnet", (4, 32, 3), 10), "at least 8 pixels"),
        (("cnn", (32, 32, 3), 1), "two classes"),
        (("mlp", (32, 32, 3), 10, [64, 0]), "positive"),
        (("alexnet", (32, 32, 3), 10, [64, 32]), "seven widths"),
        (("vit", (32, 32, 3), 10, [64, 32]), "multiple of 32"),
        (("cnn", (32, 32, 3), 10, None, 1.0), "below 1"),
    ],
)
def test_build_refuses_invalid_values(arguments, words):
    family, shape, classes, *rest = arguments
    options = dict(zip(("widths", "dropout"), rest))
    with pytest.raises(UserError, match=words):
        classifiers.build(family, shape, classes, **options)


@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1), (160, 160, 3)], ids=str)
def test_whiten_makes_patches_of_smooth_images_uncorrelated(shape):
    rng = np.random.default_rng(0)
    rough = rng.normal(128, 120, (60, *shape)).astype("float32")
    images = np.asarray(tf.nn.avg_pool2d(rough, 3, 1, "SAME")).clip(0, 255)
    model = classifiers.build("resnet", shape, 3)
    classifiers.whiten(model, images.astype("uint8"))
    layer = model.get_layer("whiten")
    outputs = np.asarray(layer(images / 64.0)).reshape(-1, layer.filters)
    half = layer.filters // 2
    np.testing.assert_allclose(outputs[:, :half], -outputs[:, half:], atol=1e-3)
    covariance = np.cov(outputs[:, :half], rowvar=False)
    np.testing.assert_allclose(covariance, np.eye(half), atol=0.15)
    assert not layer.trainable_variables
    other = classifiers.build("cnn", shape, 3)  # has no whitening layer
    before = other.get_weights()
    classifiers.whiten(other, images.astype("uint8"))
    assert all((old == new).all() for old, new in zip(before, other.get_weights(), strict=True))


def test_dirac_copies_input_channels():
    x = tf.random.stateless_normal((2, 5, 5, 4), (1, 2))
    wider, narrower = (keras.layers.Conv2D(n, 3, padding="same", kernel_initializer=layers.Dirac()) for n in (6, 3))
    np.testing.assert_allclose(wider(x)[..., :4], x, atol=1e-6)
    assert np.std(wider(x)[..., 4:]) > 0.1
    np.testing.assert_allclose(narrower(x), x[..., :3], atol=1e-6)


def test_with_flip_tta_averages_the_logits_of_both_orientations(tmp_path):
    model = classifiers.build("resnet", (12, 16, 3), 3, widths=SMALL["resnet"])
    pixels = noise((12, 16, 3))
    averaged = classifiers.with_flip_tta(model)
    expected = (model(pixels).numpy() + model(pixels[:, :, ::-1]).numpy()) / 2
    np.testing.assert_allclose(averaged(pixels), expected, atol=1e-5)
    averaged.save(tmp_path / "averaged.keras")
    reloaded = keras.models.load_model(tmp_path / "averaged.keras")
    np.testing.assert_allclose(reloaded(pixels[:, :, ::-1]), expected, atol=1e-5)


def test_up_conv_2d_equals_upsampling_and_convolution():
    images = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype("float32")
    up_conv, conv = layers.UpConv2D(4), keras.layers.Conv2D(4, 3, padding="same", use_bias=False)
    outputs = up_conv(images)
    upsampled = keras.layers.UpSampling2D()(images)
    conv.build(upsampled.shape)
    conv.set_weights(up_conv.get_weights())
    assert outputs.shape == (2, 10, 14, 4)
    np.testing.assert_allclose(outputs, conv(upsampled), atol=1e-5)
