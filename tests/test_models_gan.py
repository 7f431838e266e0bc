"""The two networks, their training step, and what drawing promises."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from dltoolkit.errors import UserError
from dltoolkit.models.gan import diff_augment, gan
from dltoolkit.models.gan import networks as gan_networks
from dltoolkit.models.model_file import load_model


def built(shape=(8, 8, 1), classes=3, **options):
    keras.utils.set_random_seed(0)
    model = gan.Gan(options.pop("architecture", "dcgan"), shape, classes, width=8, **options)
    model.compile(keras.optimizers.Adam(2e-3, 0.0, 0.99), keras.optimizers.Adam(2e-3, 0.0, 0.99), jit_compile=False)
    return model


def batch(shape=(8, 8, 1), classes=3, count=16):
    rng = np.random.default_rng(0)
    labels = np.arange(count) % classes
    pictures = rng.integers(0, 60, (count, *shape)) + 60 * labels[:, None, None, None]
    return tf.constant(pictures, tf.uint8), tf.one_hot(labels, classes)


@pytest.mark.parametrize("architecture", gan.ARCHITECTURES)
@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (30, 17, 3), (64, 64, 3)])
def test_pictures_have_the_size_that_was_asked_for(architecture, shape):
    generator = gan_networks.generator(architecture, shape, 2, width=8)
    drawn = gan.draw(generator, 3, labels=np.array([0, 1, 1]))
    assert (drawn.shape, drawn.dtype) == ((3, *shape), np.uint8)
    logits = gan_networks.discriminator(architecture, shape, 2, width=8)([drawn / 255.0, np.array([0, 1, 1])])
    assert logits.shape == (3,)


def test_a_gan_is_made_again_from_its_config():
    model = built(architecture="resnet", loss="hinge", augment="cutout")
    again = gan.Gan.from_config(model.get_config())
    assert again.settings == model.settings
    assert [w.shape for w in again.discriminator.weights] == [w.shape for w in model.discriminator.weights]


@pytest.mark.parametrize("loss", gan.LOSSES)
def test_every_loss_moves_both_networks_and_the_average(loss):
    model = built(loss=loss, spectral_norm=loss == "hinge")
    before = [[weight.numpy() for weight in net.trainable_weights] for net in (model.generator, model.discriminator)]
    averaged = [weight.numpy() for weight in model.averaged.weights]
    logs = {name: float(value) for name, value in model.train_step(batch()).items()}
    assert logs.keys() == {"loss", "discriminator_loss", "real_accuracy", "fake_accuracy"}
    assert all(np.isfinite(value) for value in logs.values())
    for network, old in zip((model.generator, model.discriminator), before, strict=True):
        moved = [not np.array_equal(now, then) for now, then in zip(network.trainable_weights, old, strict=True)]
        assert np.mean(moved) > 0.8
    assert any(not np.array_equal(now, then) for now, then in zip(model.averaged.weights, averaged, strict=True))


@pytest.mark.parametrize("loss", gan.LOSSES)
def test_the_generator_follows_the_gradient_of_its_own_loss(loss):
    """Of ``mean(loss(D(G(noise))))``, worked out by itself, whatever short cut the step takes."""
    model = built(loss=loss, gradient_penalty=0.0, mode_seeking=0.0)
    model.compile(keras.optimizers.SGD(1.0), keras.optimizers.SGD(0.0), jit_compile=False)
    pictures, one_hot = batch()
    labels = tf.repeat(tf.argmax(one_hot, axis=-1, output_type=tf.int32)[::2], 2)
    state = model.seed_generator.state.numpy()
    noise = keras.random.normal((16, gan_networks.LATENT), seed=model.seed_generator)
    model.seed_generator.state.assign(state)
    variables = model.generator.trainable_variables
    with tf.GradientTape() as tape:
        logits = model.discriminator([model.generator([noise, labels], training=True), labels], training=True)
        lost = tf.reduce_mean(gan._generator_loss(loss, logits))
    gradients = tape.gradient(lost, [variable.value for variable in variables])
    before = [variable.numpy() for variable in variables]
    model.train_step((pictures, one_hot))
    for variable, old, gradient in zip(variables, before, gradients, strict=True):
        assert old - variable.numpy() == pytest.approx(tf.convert_to_tensor(gradient).numpy(), rel=1e-3, abs=1e-5)


def test_the_step_compiles_with_xla_and_in_bfloat16():
    with_policy = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        model = built()
        logs = tf.function(model.train_step, jit_compile=True)(batch())
    finally:
        keras.config.set_dtype_policy(with_policy)
    assert all(np.isfinite(float(value)) for value in logs.values())
    assert model.averaged.output.dtype == "float32"


def test_the_penalty_is_laid_on_every_so_many_steps():
    strong = built(gradient_penalty=1e4, gradient_penalty_interval=2)
    weak = built(gradient_penalty=0.0)
    same = [float(model.train_step(batch())["discriminator_loss"]) for model in (strong, weak)]
    assert same[0] == pytest.approx(same[1])  # the loss that is shown is without it
    kernels = [model.discriminator.trainable_weights[0].numpy() for model in (strong, weak)]
    assert not np.allclose(*kernels)
    assert float(strong._penalty(*penalised())) == 0.0  # the second step
    strong.train_step(batch())
    assert float(strong._penalty(*penalised())) > 0


def test_pictures_of_one_class_are_kept_apart():
    """Where real pictures of a class are nearly the same, the generator's differ all the same if that is asked for."""
    spread = []
    for weight in (0.0, 3.0):
        model = built(mode_seeking=weight, momentum=0.9)
        step = tf.function(model.train_step)
        for _ in range(60):
            step(batch())
        drawn = gan.draw(model.averaged, 40, labels=np.zeros(40, int))
        spread.append(drawn.std(axis=0).mean())
    assert spread[1] > 1.3 * spread[0]


def penalised():
    real = tf.cast(batch()[0], tf.float32) / 127.5 - 1
    return real, real, tf.argmax(batch()[1], axis=-1, output_type=tf.int32)


def test_a_few_steps_bring_the_generator_to_the_brightness_of_each_class():
    model = built(momentum=0.9)
    step = tf.function(model.train_step)
    for _ in range(300):
        step(batch())
    drawn = gan.draw(model.averaged, 60, labels=np.repeat([0, 1, 2], 20)).reshape(3, -1).mean(axis=1)
    assert drawn == pytest.approx([30, 90, 150], abs=35)


def test_equal_seeds_draw_equal_pictures_and_truncation_brings_them_together():
    generator = gan_networks.generator("dcgan", (8, 8, 1), width=8)
    assert np.array_equal(gan.draw(generator, 4, seed=7), gan.draw(generator, 9, seed=7)[:4])
    assert not np.array_equal(gan.draw(generator, 4, seed=7), gan.draw(generator, 4, seed=8))
    assert gan.noise(2, -1).shape == (2, gan_networks.LATENT)
    free, bound = gan.noise(4000, 1), gan.noise(4000, 1, truncation=0.8)
    assert free.std() == pytest.approx(1, abs=0.01)
    assert np.abs(bound).max() <= 0.8
    assert np.abs(bound).max() > 0.79


def test_the_way_between_noises_leads_from_each_to_the_next():
    noise = gan.noise(3, 0)
    way = gan.way(noise, 4)
    assert way.shape == (12, gan_networks.LATENT)
    assert way[::4] == pytest.approx(noise, abs=1e-4)
    lengths = np.linalg.norm(np.concatenate([way, way[:1]])[1:] - way, axis=1).reshape(3, 4)
    assert (lengths.max(axis=1) < 1.5 * lengths.min(axis=1)).all()
    assert np.linalg.norm(way, axis=1).min() > 0.9 * np.linalg.norm(noise, axis=1).min()


def test_a_saved_generator_draws_the_same(tmp_path):
    generator = gan_networks.generator("resnet", (8, 8, 3), 2, width=8)
    generator.save(tmp_path / "model.keras")
    labels = np.array([0, 1, 0])
    drawn = gan.draw(generator, 3, labels=labels)
    assert np.array_equal(gan.draw(load_model(tmp_path / "model.keras"), 3, labels=labels), drawn)


def test_two_replicas_train_one_gan():
    code = """
import tensorflow as tf, keras, numpy as np
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from dltoolkit.models import gan
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    model = gan.Gan("dcgan", (8, 8, 1), 3, width=8)
    model.compile(keras.optimizers.Adam(1e-3), keras.optimizers.Adam(1e-3), jit_compile=False)
before = [[weight.numpy() for weight in network.weights] for network in (model.generator, model.averaged)]
pictures = np.random.default_rng(0).integers(0, 255, (16, 8, 8, 1), dtype="uint8")
batches = tf.data.Dataset.from_tensors((pictures, np.eye(3, dtype="float32")[np.arange(16) % 3])).repeat()
model.fit(batches, steps_per_epoch=2, verbose=0)
for network, old in zip((model.generator, model.averaged), before):
    assert np.mean([not np.array_equal(now, then) for now, then in zip(network.weights, old)]) > 0.8
    assert all(np.isfinite(weight.numpy()).all() for weight in network.weights)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("dcgen", (8, 8, 1)), "Did you mean 'dcgan'"),
        (("dcgan", (7, 8, 1)), "8 to 128 pixels"),
        (("dcgan", (8, 129, 1)), "8 to 128 pixels"),
    ],
)
def test_what_cannot_be_built_is_named(arguments, words):
    with pytest.raises(UserError, match=words):
        gan.Gan(*arguments)


@pytest.mark.parametrize("kinds", [*diff_augment.KINDS, ",".join(diff_augment.KINDS)])
def test_variations_differ_from_picture_to_picture_and_let_gradients_through(kinds):
    pictures = tf.Variable(
        np.tile(np.linspace(-0.9, 0.9, 16 * 16 * 3).reshape(1, 16, 16, 3), (8, 1, 1, 1)), dtype="float32"
    )
    vary = diff_augment.DiffAugment(kinds)
    with tf.GradientTape() as tape:
        varied = vary(pictures)
        total = tf.reduce_sum(varied)
    assert varied.shape == pictures.shape
    differ = [not np.allclose(one, two) for one, two in itertools.combinations(varied.numpy(), 2)]
    assert sum(differ) > len(differ) / 2  # of 25 translations two are alike now and then
    assert np.abs(tape.gradient(total, pictures)).sum() > 0


def test_translation_moves_by_whole_pixels():
    picture = np.zeros((1, 16, 16, 1), "float32")
    picture[0, 8, 8] = 1
    places = set()
    for _ in range(60):
        moved = diff_augment.DiffAugment("translation")(tf.constant(picture)).numpy()
        assert np.sort(moved.ravel())[-2:] == pytest.approx([0, 1])
        places.add(np.unravel_index(moved.argmax(), picture.shape)[1:3])
    assert {row for row, _ in places} == {column for _, column in places} == set(range(6, 11))
