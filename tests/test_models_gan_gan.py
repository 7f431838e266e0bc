"""The training step of a GAN: losses, penalties, averages, precision and replicas."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from dltoolkit.errors import UserError
from dltoolkit.models.gan import gan, sampling


def build(shape=(8, 8, 1), classes=3, **options):
    keras.utils.set_random_seed(0)
    model = gan.Gan(options.pop("architecture", "dcgan"), shape, classes, width=4, **options)
    model.compile(keras.optimizers.Adam(2e-3, 0.0, 0.99), keras.optimizers.Adam(2e-3, 0.0, 0.99), jit_compile=False)
    return model


def batch(shape=(8, 8, 1), classes=3, count=16):
    rng = np.random.default_rng(0)
    labels = np.arange(count) % classes
    images = rng.integers(0, 60, (count, *shape)) + 60 * labels[:, None, None, None]
    return tf.constant(images, tf.uint8), tf.one_hot(labels, classes)


def weights_of(*models):
    return [[weight.numpy() for weight in model.trainable_weights] for model in models]


def test_gan_is_rebuilt_from_its_config():
    model = build(architecture="resnet", loss="hinge", augment="cutout")
    rebuilt = gan.Gan.from_config(model.get_config())
    assert rebuilt.settings == model.settings
    assert [w.shape for w in rebuilt.discriminator.weights] == [w.shape for w in model.discriminator.weights]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("dcgen", (8, 8, 1)), "Did you mean 'dcgan'"),
        (("dcgan", (7, 8, 1)), "8 to 128 pixels"),
        (("dcgan", (8, 129, 1)), "8 to 128 pixels"),
    ],
)
def test_gan_refuses_unknown_architectures_and_sizes(arguments, words):
    with pytest.raises(UserError, match=words):
        gan.Gan(*arguments)


@pytest.mark.parametrize("loss", gan.LOSSES)
def test_train_step_updates_both_networks_and_the_average(loss):
    model = build(loss=loss, spectral_norm=loss == "hinge")
    before = weights_of(model.generator, model.discriminator)
    averages = [weight.numpy() for weight in model.ema_generator.weights]
    logs = {name: float(value) for name, value in model.train_step(batch()).items()}
    assert logs.keys() == {"loss", "discriminator_loss", "real_accuracy", "fake_accuracy"}
    assert all(np.isfinite(value) for value in logs.values())
    for network, old in zip((model.generator, model.discriminator), before, strict=True):
        changed = [not np.array_equal(new, then) for new, then in zip(network.trainable_weights, old, strict=True)]
        assert np.mean(changed) > 0.8
    assert any(not np.array_equal(new, then) for new, then in zip(model.ema_generator.weights, averages, strict=True))


@pytest.mark.parametrize("loss", gan.LOSSES)
def test_train_step_follows_the_gradient_of_the_generator_loss(loss):
    """The step may share a backward pass of both losses; here the gradient is computed by itself."""
    model = build(loss=loss, gradient_penalty=0.0, mode_seeking=0.0)
    model.compile(keras.optimizers.SGD(1.0), keras.optimizers.SGD(0.0), jit_compile=False)
    images, one_hot = batch()
    labels = tf.repeat(tf.argmax(one_hot, axis=-1, output_type=tf.int32)[::2], 2)
    state = model.seed_generator.state.numpy()
    latents = keras.random.normal((16, sampling.LATENT_DIM), seed=model.seed_generator)
    model.seed_generator.state.assign(state)
    variables = model.generator.trainable_variables
    with tf.GradientTape() as tape:
        logits = model.discriminator([model.generator([latents, labels], training=True), labels], training=True)
        mean_loss = tf.reduce_mean(gan._generator_loss(loss, logits))
    gradients = tape.gradient(mean_loss, [variable.value for variable in variables])
    before = [variable.numpy() for variable in variables]
    model.train_step((images, one_hot))
    for variable, old, gradient in zip(variables, before, gradients, strict=True):
        assert old - variable.numpy() == pytest.approx(tf.convert_to_tensor(gradient).numpy(), rel=1e-3, abs=1e-5)


def updates(policy, loss, scale=None):
    """Return the changes of the weights of both networks in a step of SGD; ``scale`` replaces the loss scale."""
    keras.config.set_dtype_policy(policy)
    model = build(loss=loss, gradient_penalty_interval=1)
    model.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1), jit_compile=False)
    for optimizer in model.optimizers if scale else ():
        optimizer.dynamic_scale.assign(scale)
    before = weights_of(model.generator, model.discriminator)
    model.train_step(batch())
    after = weights_of(model.generator, model.discriminator)
    return [
        np.concatenate([(new - old).ravel() for new, old in zip(*pair, strict=True)])
        for pair in zip(after, before, strict=True)
    ]


def relative_error(update, expected):
    return np.linalg.norm(update - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("loss", ["non-saturating", "hinge"])
def test_train_step_in_float16_scales_losses_and_unscales_gradients(loss):
    """The updates do not depend on the loss scale and, within rounding, are those of float32.

    A loss scale is a power of two, so scaling and unscaling are exact; two scales differ only in gradients that
    underflow, which are far below the rounding of float16, 2**-11. The updates differ from those of float32 by the
    ReLUs whose inputs round to another sign, which measured 8 % of the norm. Gradients that were unscaled but never
    scaled made the generator's updates 32,768 times too small, which is an error of 100 %.
    """
    scaled, less_scaled = updates("mixed_float16", loss), updates("mixed_float16", loss, scale=2.0**13)
    exact = updates("float32", loss)
    for network in range(2):
        assert relative_error(scaled[network], less_scaled[network]) < 2**-11
        assert relative_error(scaled[network], exact[network]) < 0.2


@pytest.mark.skipif(os.environ.get("ONEDNN_MAX_CPU_ISA") == "AVX2", reason="oneDNN then lacks bfloat16")
def test_train_step_in_bfloat16_computes_images_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = build()
    logs = model.train_step(batch())
    assert all(np.isfinite(float(value)) for value in logs.values())
    assert model.discriminator.get_layer("first").compute_dtype == "bfloat16"
    assert model.ema_generator.output.dtype == "float32"


@pytest.mark.slow
def test_train_step_compiles_with_xla():
    logs = tf.function(build().train_step, jit_compile=True)(batch())
    assert all(np.isfinite(float(value)) for value in logs.values())


def test_gradient_penalty_is_applied_at_its_interval():
    strong = build(gradient_penalty=1e4, gradient_penalty_interval=2)
    none = build(gradient_penalty=0.0)
    losses = [float(model.train_step(batch())["discriminator_loss"]) for model in (strong, none)]
    assert losses[0] == pytest.approx(losses[1])  # the reported loss does not include the penalty
    kernels = [model.discriminator.trainable_weights[0].numpy() for model in (strong, none)]
    assert not np.allclose(*kernels)
    real = tf.cast(batch()[0], tf.float32) / 127.5 - 1
    labels = tf.argmax(batch()[1], axis=-1, output_type=tf.int32)
    assert float(strong._penalty(real, real, labels)) == 0.0  # at the second step
    strong.train_step(batch())
    assert float(strong._penalty(real, real, labels)) > 0


def test_mode_seeking_increases_the_variety_within_a_class():
    """The real images of a class are nearly the same."""
    spread = []
    for weight in (0.0, 3.0):
        model = build(mode_seeking=weight, ema_decay=0.9)
        step = tf.function(model.train_step)
        for _ in range(60):
            step(batch())
        images = sampling.sample_images(model.ema_generator, 40, labels=np.zeros(40, int))
        spread.append(images.std(axis=0).mean())
    assert spread[1] > 1.3 * spread[0]


def test_training_brings_the_generator_to_the_brightness_of_each_class():
    model = build(ema_decay=0.9)
    step = tf.function(model.train_step)
    for _ in range(150):
        step(batch())
    images = sampling.sample_images(model.ema_generator, 60, labels=np.repeat([0, 1, 2], 20))
    assert images.reshape(3, -1).mean(axis=1) == pytest.approx([30, 90, 150], abs=35)


def test_fit_evaluates_the_averaged_generator_by_eval_fn():
    evaluated = []

    def eval_fn(generator):
        evaluated.append(generator)
        return {"coverage": 0.5}

    model = build(eval_fn=eval_fn)
    batches = tf.data.Dataset.from_tensors(batch()).repeat()
    history = model.fit(batches, steps_per_epoch=1, epochs=2, validation_data=batches.take(1), verbose=0).history
    assert history["val_coverage"] == [0.5, 0.5]
    assert evaluated == [model.inference_generator()] * 2
    for weight, average in zip(evaluated[0].weights, model.ema_generator.weights, strict=True):
        assert weight is average


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["float32", pytest.param("mixed_float16", marks=pytest.mark.slow)])
def test_train_step_shares_one_gan_between_two_replicas(policy):
    code = """
import tensorflow as tf, keras, numpy as np
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from dltoolkit.models.gan.gan import Gan
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
keras.config.set_dtype_policy("POLICY")
with strategy.scope():
    model = Gan("dcgan", (8, 8, 1), 3, width=4)
    model.compile(keras.optimizers.Adam(1e-3), keras.optimizers.Adam(1e-3), jit_compile=False)
before = [[weight.numpy() for weight in network.weights] for network in (model.generator, model.ema_generator)]
images = np.random.default_rng(0).integers(0, 255, (16, 8, 8, 1), dtype="uint8")
batches = tf.data.Dataset.from_tensors((images, np.eye(3, dtype="float32")[np.arange(16) % 3])).repeat()
model.fit(batches, steps_per_epoch=2, verbose=0)
for network, old in zip((model.generator, model.ema_generator), before):
    assert np.mean([not np.array_equal(new, then) for new, then in zip(network.weights, old)]) > 0.8
    assert all(np.isfinite(weight.numpy()).all() for weight in network.weights)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code.replace("POLICY", policy)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
