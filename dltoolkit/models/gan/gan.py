"""Generative adversarial networks (Goodfellow et al. 2014) for pictures, conditional where there are classes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import scipy.special
import tensorflow as tf

from dltoolkit.data import batches
from dltoolkit.errors import UserError, did_you_mean
from dltoolkit.models import replicas
from dltoolkit.models.gan.diff_augment import DiffAugment
from dltoolkit.models.gan.networks import LATENT, discriminator, generator

ARCHITECTURES = ("dcgan", "resnet")
LOSSES = ("non-saturating", "hinge", "wasserstein-gp", "least-squares")
SMALLEST, LARGEST = 8, 128  # pixels
PAINTED = 256  # pictures at a time


@keras.saving.register_keras_serializable(package="dltoolkit")
class Gan(keras.Model):
    """A generator, its running average and a discriminator, trained together.

    Batches are (pictures uint8 (batch, h, w, c), one-hot classes (batch, classes)); a step shows the discriminator as
    many generated pictures, two of each of every other one's class.

    Args:
        architecture: one of :data:`ARCHITECTURES`.
        image_shape: (height, width, channels), 8 to 128 pixels a side.
        classes: 0 for an unconditional network.
        width: channels of the networks at the picture's full size.
        loss: one of :data:`LOSSES`.
        penalty: weight of the zero-centred gradient penalty on real pictures, R1 (Mescheder et al. 2018); of the
            penalty of Gulrajani et al. 2017 for wasserstein-gp.
        gradient_penalty_interval: steps between two penalties, each so many times as strong (Karras et al. 2020).
        mode_seeking: weight of a term that is large where two pictures of one class are alike although their noise
            is not (Mao et al. 2019): a generator that knows the class is quick to draw one picture for each.
        augment: how real and generated pictures are varied before the discriminator sees them (Zhao et al. 2020).
        momentum: of the generator's average.
        spectral_norm: bound the discriminator's layers (Miyato et al. 2018).
        judge: measures a generator at the end of each epoch.

    Raises:
        UserError: for an unknown architecture or loss, or a size it cannot have.
    """

    def __init__(
        self,
        architecture: str,
        image_shape: tuple[int, int, int],
        classes: int = 0,
        *,
        width: int = 32,
        loss: str = "non-saturating",
        gradient_penalty: float = 1.0,
        gradient_penalty_interval: int = 16,
        mode_seeking: float = 0.1,
        augment: str = "",
        momentum: float = 0.999,
        spectral_norm: bool = False,
        judge: Callable[[keras.Model], dict[str, float]] = lambda generator: {},
        **kwargs: Any,
    ):
        for what, value, known in (("architecture", architecture, ARCHITECTURES), ("loss", loss, LOSSES)):
            if value not in known:
                raise UserError(
                    f"There is no {what} '{value}'; use one of {', '.join(known)}.{did_you_mean(value, known)}"
                )
        if min(image_shape[:2]) < SMALLEST or max(image_shape[:2]) > LARGEST:
            raise UserError(
                f"Pictures must have {SMALLEST} to {LARGEST} pixels a side, not {image_shape[0]}x{image_shape[1]}; "
                "set --image-size."
            )
        super().__init__(**kwargs)
        self.settings = {
            "architecture": architecture,
            "image_shape": tuple(image_shape),
            "classes": classes,
            "width": width,
            "loss": loss,
            "gradient_penalty": gradient_penalty,
            "gradient_penalty_interval": gradient_penalty_interval,
            "mode_seeking": mode_seeking,
            "augment": augment,
            "momentum": momentum,
            "spectral_norm": spectral_norm,
        }
        self.classes, self.kind, self.gradient_penalty, self.gradient_penalty_interval = (
            classes,
            loss,
            gradient_penalty,
            gradient_penalty_interval,
        )
        self.mode_seeking, self.momentum, self.judge = mode_seeking, momentum, judge
        self.generator = generator(architecture, image_shape, classes, width=width)
        self.averaged = generator(architecture, image_shape, classes, width=width)
        self.averaged.set_weights(self.generator.get_weights())
        self.averaged.trainable = False
        self.discriminator = discriminator(architecture, image_shape, classes, width=width, spectral_norm=spectral_norm)
        self.vary = DiffAugment(augment)
        self.vary.build((None, *image_shape))
        self.seed_generator = keras.random.SeedGenerator()
        self.trackers = {
            name: keras.metrics.Mean(name=name)
            for name in ("loss", "discriminator_loss", "real_accuracy", "fake_accuracy")
        }
        self.built, self._drawing = True, None

    def compile(self, generator_optimizer, discriminator_optimizer, **how):
        super().compile(optimizer=generator_optimizer, **how)
        self.discriminator_optimizer = discriminator_optimizer
        for optimizer, network in zip(self.optimizers, (self.generator, self.discriminator), strict=True):
            optimizer.build(network.trainable_variables)

    @property
    def optimizers(self):
        """Both optimizers, the generator's first."""
        return [self.optimizer, self.discriminator_optimizer]

    @property
    def metrics(self):
        return list(self.trackers.values())

    def call(self, inputs, training=False):
        return self.averaged(inputs, training=training)

    def drawing(self) -> keras.Model:
        """Return the average as a model that draws on one device; call it outside of any strategy's scope."""
        if self._drawing is None:
            self._drawing = keras.Model(self.averaged.inputs, self.averaged.outputs)
            self._drawing.compile(jit_compile=False)
        return self._drawing

    def inputs_for(self, first: tf.Tensor, labels: tf.Tensor) -> list[tf.Tensor]:
        """What a network takes: noise or pictures, and the class numbers where it is conditional."""
        return [first, labels] if self.classes else [first]

    def train_step(self, data):
        images, one_hot = data[:2]
        real = tf.cast(images, tf.float32) / 127.5 - 1.0
        labels = tf.argmax(one_hot, axis=-1, output_type=tf.int32)
        count = tf.shape(real)[0]
        noise = replicas.draw_for_replica(lambda rows: keras.random.normal((rows, LATENT), seed=self.seed_generator), count)
        fake_labels = tf.repeat(labels[::2], 2)[:count]  # pairs, which parting the batch leaves together
        with tf.GradientTape() as generator_tape:
            fake = self.generator(self.inputs_for(noise, fake_labels), training=True)
            sameness = self.mode_seeking * _sameness(fake, noise)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(fake)
            real_logits, fake_logits = (
                self.discriminator(self.inputs_for(self.vary(pictures), classes), training=True)
                for pictures, classes in ((real, labels), (fake, fake_labels))
            )
            generator_loss = tf.reduce_mean(_generator_loss(self.kind, fake_logits))
            discriminator_loss = tf.reduce_mean(_discriminator_loss(self.kind, real_logits, fake_logits))
            # gradients are summed over replicas
            sharers = tf.distribute.get_strategy().num_replicas_in_sync
            for_generator = generator_loss / sharers
            for_discriminator = (discriminator_loss + self._penalty(real, fake, labels)) / sharers
        weights = [[each.value for each in net.trainable_variables] for net in (self.generator, self.discriminator)]
        discriminator_gradients, upwards = tape.gradient(for_discriminator, [weights[1], fake])
        if self.kind in _SLOPES:
            upwards *= _SLOPES[self.kind](fake_logits)[:, None, None, None]
        else:
            upwards = tape.gradient(for_generator, fake)
        del tape
        generator_gradients = generator_tape.gradient([fake, sameness], weights[0], [upwards, 1.0 / sharers])
        self.optimizer.apply(generator_gradients, self.generator.trainable_variables)
        self.discriminator_optimizer.apply(discriminator_gradients, self.discriminator.trainable_variables)
        self._average()
        values = {
            "loss": generator_loss,
            "discriminator_loss": discriminator_loss,
            "real_accuracy": tf.reduce_mean(tf.cast(real_logits > 0, tf.float32)),
            "fake_accuracy": tf.reduce_mean(tf.cast(fake_logits < 0, tf.float32)),
        }
        for name, value in values.items():
            self.trackers[name].update_state(value)
        return self.get_metrics_result()

    def test_step(self, data):
        """Nothing to measure batch by batch: see :meth:`evaluate`."""
        return self.get_metrics_result()

    def evaluate(self, *arguments: Any, callbacks: Any = None, **options: Any) -> dict[str, float]:
        """Let ``judge`` measure the averaged generator, in place of Keras' pass over validation batches."""
        callbacks.on_test_begin()
        measured = self.judge(self.drawing())
        callbacks.on_test_end(measured)
        return measured

    def _penalty(self, real, fake, labels):
        """The gradient penalty at this step, zero at most of them."""
        if not self.gradient_penalty:
            return 0.0

        def measured():
            at = real
            if self.kind == "wasserstein-gp":
                share = replicas.draw_for_replica(
                    lambda rows: keras.random.uniform((rows, 1, 1, 1), seed=self.seed_generator), tf.shape(real)[0]
                )
                at = real + share * (tf.stop_gradient(fake) - real)
            with tf.GradientTape() as tape:
                tape.watch(at)
                logits = tf.reduce_sum(self.discriminator(self.inputs_for(self.vary(at), labels), training=True))
            squared = tf.reduce_sum(tf.square(tape.gradient(logits, at)), axis=(1, 2, 3))
            if self.kind == "wasserstein-gp":
                squared = tf.square(tf.sqrt(squared + 1e-12) - 1.0)
            return 0.5 * self.gradient_penalty * self.gradient_penalty_interval * tf.reduce_mean(squared)

        return tf.cond(self.optimizer.iterations % self.gradient_penalty_interval == 0, measured, lambda: 0.0)

    def _average(self) -> None:
        """Move the average towards the generator: slowly, but less so in the first steps."""
        step = tf.cast(self.optimizer.iterations, tf.float32)
        share = 1.0 - tf.minimum(self.momentum, (1.0 + step) / (10.0 + step))
        means, now = ([weight.value for weight in model.weights] for model in (self.averaged, self.generator))

        def moved(mean, now):
            return mean.assign_add((now - mean) * tf.cast(share, mean.dtype))

        def everywhere(strategy):
            for one, other in zip(means, now, strict=True):
                strategy.extended.update(one, moved, args=(other,))

        tf.distribute.get_replica_context().merge_call(everywhere)

    def get_config(self):
        return {**super().get_config(), **self.settings}


def _generator_loss(kind: str, fake):
    """Of each generated picture, from its logit."""
    return {
        "non-saturating": lambda: tf.nn.softplus(-fake),
        "hinge": lambda: -fake,
        "wasserstein-gp": lambda: -fake,
        "least-squares": lambda: tf.square(fake - 1.0),
    }[kind]()


def _discriminator_loss(kind: str, real, fake):
    """Of each pair of a real and a generated picture, from their logits."""
    return {
        "non-saturating": lambda: tf.nn.softplus(-real) + tf.nn.softplus(fake),
        "hinge": lambda: tf.nn.relu(1.0 - real) + tf.nn.relu(1.0 + fake),
        "wasserstein-gp": lambda: fake - real,
        "least-squares": lambda: tf.square(real - 1.0) + tf.square(fake),
    }[kind]()


def _sameness(pictures, noise):
    """How alike the two pictures of each pair are for how far apart their noise is."""
    pairs = tf.shape(noise)[0] // 2

    def apart(values):
        rows = tf.reshape(values[: 2 * pairs], (pairs, 2, math.prod(values.shape[1:])))
        return tf.reduce_mean(tf.abs(rows[:, 0] - rows[:, 1]), axis=-1)

    return tf.reduce_sum(apart(noise) / (apart(pictures) + 0.01)) / tf.cast(tf.maximum(pairs, 1), tf.float32)


# What a picture's gradient in the discriminator's loss is multiplied by to be that in the generator's, from its logit:
# no picture's logit depends on another picture, so one pass back through the discriminator serves both. With the other
# losses the first can be zero where the second is not.
_SLOPES = {
    "non-saturating": lambda fake: -tf.exp(-tf.clip_by_value(fake, -60.0, 60.0)),
    "wasserstein-gp": lambda fake: -tf.ones_like(fake),
}


def draw(
    generator: keras.Model,
    count: int,
    *,
    labels: np.ndarray | None = None,
    seed: int = 0,
    truncation: float | None = None,
) -> np.ndarray:
    """Draw pictures, uint8 (count, h, w, c); see :func:`noise` and :func:`paint`."""
    return paint(generator, noise(count, seed, truncation), labels)


def noise(count: int, seed: int, truncation: float | None = None) -> np.ndarray:
    """Return what pictures are made from, float32 (count, 64): normally distributed.

    Args:
        count: how many; the first of many are the same as those of a few.
        seed: any integer; equal seeds give equal noise.
        truncation: leave out what is further from zero than this (Brock et al. 2019).
    """
    drawn = np.random.default_rng(seed % 2**31).random((count, LATENT))
    most = 1.0 if truncation is None else scipy.special.ndtr(truncation)
    return scipy.special.ndtri((1 - most) + drawn * (2 * most - 1)).astype("float32")


def way(noise: np.ndarray, steps: int) -> np.ndarray:
    """Return noise (count * steps, units) that leads in equal steps from each row to the next, and back to the first.

    Along great circles, so that all of it is as long as noise is.
    """
    after = np.roll(noise, -1, axis=0)
    lengths = [np.linalg.norm(each, axis=1, keepdims=True) for each in (noise, after)]
    one, two = noise / lengths[0], after / lengths[1]
    angle = np.arccos(np.clip((one * two).sum(axis=1, keepdims=True), -1, 1)) + 1e-6
    share = np.linspace(0, 1, steps, endpoint=False)[None, :, None]  # (1, steps, 1)
    turned = np.sin((1 - share) * angle[:, None]) * one[:, None] + np.sin(share * angle[:, None]) * two[:, None]
    length = (1 - share) * lengths[0][:, None] + share * lengths[1][:, None]
    return (turned / np.sin(angle)[:, None] * length).reshape(-1, noise.shape[1]).astype("float32")


def paint(generator: keras.Model, noise: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
    """Return the pictures that a generator makes of noise, uint8 (count, h, w, c).

    Args:
        generator: as :func:`generator` made it.
        noise: float32 (count, 64).
        labels: int (count,), the class of each, for a conditional generator; others have no use for it.
    """
    inputs = [noise] if len(generator.inputs) == 1 else [noise, np.asarray(labels, "int32")]
    pictures = batches.predict_in_batches(generator.predict_on_batch, inputs, PAINTED)
    return np.clip(np.round((pictures + 1) * 127.5), 0, 255).astype("uint8")
