"""Generative adversarial networks (Goodfellow et al. 2014) for images, conditional if there are classes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from dltoolkit.errors import UserError, did_you_mean
from dltoolkit.models import keras_internals, replicas
from dltoolkit.models.gan.diff_augment import DiffAugment
from dltoolkit.models.gan.networks import build_discriminator, build_generator
from dltoolkit.models.gan.options import MAX_SIDE, MIN_SIDE
from dltoolkit.models.gan.sampling import LATENT_DIM

ARCHITECTURES = ("dcgan", "resnet")
LOSSES = ("non-saturating", "hinge", "wasserstein-gp", "least-squares")


@keras.saving.register_keras_serializable(package="dltoolkit")
class Gan(keras_internals.EvaluateByFunction, keras.Model):
    """A generator, the moving average of its weights, and a discriminator, which train together.

    Batches are (images uint8 (batch, h, w, c), one-hot labels (batch, classes)). In a training
    step, the discriminator sees an equal number of generated images, which come in pairs: two of the class of every
    other real image.

    Args:
        architecture: One of :data:`ARCHITECTURES`.
        image_shape: Height, width and channels; sides of 8 to 128 pixels.
        classes: Number of classes; 0 for unconditional networks.
        width: Channels of the networks at the full size of the image.
        loss: One of :data:`LOSSES`.
        gradient_penalty: Weight of the zero-centered penalty on gradients at real images, R1 (Mescheder et al. 2018),
            or of the penalty of Gulrajani et al. 2017 for wasserstein-gp.
        gradient_penalty_interval: Steps from one penalty to the next; each is that many times as strong (Karras et al.
            2020).
        mode_seeking: Weight of a loss that is large if the two images of a pair are alike although their latents are
            not (Mao et al. 2019). Without it, a conditional generator soon generates one image per class.
        augment: Augmentation of real and generated images, see :class:`DiffAugment`.
        ema_decay: Decay of the generator's moving average.
        spectral_norm: Whether to normalize the discriminator's layers (Miyato et al. 2018).
        eval_fn: Function from a generator to metrics, which is called at the end of each epoch.

    Raises:
        UserError: If the architecture or the loss does not exist, or a side is out of range.
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
        ema_decay: float = 0.999,
        spectral_norm: bool = False,
        eval_fn: Callable[[keras.Model], dict[str, float]] = lambda generator: {},
        **kwargs: Any,
    ):
        for option, value, choices in (("architecture", architecture, ARCHITECTURES), ("loss", loss, LOSSES)):
            if value not in choices:
                hint = did_you_mean(value, choices)
                raise UserError(f"There is no {option} '{value}'; use one of {', '.join(choices)}.{hint}")
        if min(image_shape[:2]) < MIN_SIDE or max(image_shape[:2]) > MAX_SIDE:
            raise UserError(
                f"Images must have {MIN_SIDE} to {MAX_SIDE} pixels per side, not {image_shape[0]}x{image_shape[1]}; "
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
            "ema_decay": ema_decay,
            "spectral_norm": spectral_norm,
        }
        self.classes, self.loss_name, self.mode_seeking, self.ema_decay = classes, loss, mode_seeking, ema_decay
        self.gradient_penalty, self.gradient_penalty_interval = gradient_penalty, gradient_penalty_interval
        self.eval_fn = eval_fn
        self.generator = build_generator(architecture, image_shape, classes, width=width)
        self.ema_generator = build_generator(architecture, image_shape, classes, width=width)
        self.ema_generator.set_weights(self.generator.get_weights())
        self.ema_generator.trainable = False
        self.discriminator = build_discriminator(
            architecture, image_shape, classes, width=width, spectral_norm=spectral_norm
        )
        self.augment = DiffAugment(augment)
        self.augment.build((None, *image_shape))
        self.seed_generator = keras.random.SeedGenerator()
        self.trackers = {
            name: keras.metrics.Mean(name=name)
            for name in ("loss", "discriminator_loss", "real_accuracy", "fake_accuracy")
        }
        self.built, self._inference_generator = True, None

    def compile(self, generator_optimizer, discriminator_optimizer, **options):
        """Set the optimizers. With float16, both scale their losses, as Keras does for a single optimizer."""
        self.scales_losses = keras.config.dtype_policy().name == "mixed_float16"
        if self.scales_losses:
            generator_optimizer, discriminator_optimizer = (
                keras_internals.LossScaleOptimizer(each) for each in (generator_optimizer, discriminator_optimizer)
            )
        super().compile(optimizer=generator_optimizer, **options)
        self.discriminator_optimizer = discriminator_optimizer
        for optimizer, network in zip(self.optimizers, (self.generator, self.discriminator), strict=True):
            optimizer.build(network.trainable_variables)

    @property
    def optimizers(self):
        """The optimizers of the generator and of the discriminator."""
        return [self.optimizer, self.discriminator_optimizer]

    @property
    def metrics(self):
        return list(self.trackers.values())

    def call(self, inputs, training=False):
        return self.ema_generator(inputs, training=training)

    def inference_generator(self) -> keras.Model:
        """Return the averaged generator as a model for one device. Call this outside any strategy's scope."""
        if self._inference_generator is None:
            self._inference_generator = keras.Model(self.ema_generator.input, self.ema_generator.output)
            self._inference_generator.jit_compile = False
        return self._inference_generator

    def evaluation_metrics(self) -> dict[str, float]:
        """Return the metrics of ``eval_fn``, which replace a pass over validation batches."""
        return self.eval_fn(self.inference_generator())

    def train_step(self, data):
        images, one_hot = data[:2]
        real = tf.cast(images, tf.float32) / 127.5 - 1.0
        labels = tf.argmax(one_hot, axis=-1, output_type=tf.int32)
        count = tf.shape(real)[0]
        latents = replicas.draw_for_replica(
            lambda rows: keras.random.normal((rows, LATENT_DIM), seed=self.seed_generator), count
        )
        fake_labels = tf.repeat(labels[::2], 2)[:count]  # pairs, which stay together when replicas share a batch
        with tf.GradientTape() as generator_tape:
            fake = self.generator(self._inputs(latents, fake_labels), training=True)
            mode_seeking = self.mode_seeking * _mode_seeking_loss(fake, latents)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(fake)
            real_logits, fake_logits = (
                self.discriminator(self._inputs(self.augment(batch), classes), training=True)
                for batch, classes in ((real, labels), (fake, fake_labels))
            )
            generator_loss = tf.reduce_mean(_generator_loss(self.loss_name, fake_logits))
            discriminator_loss = tf.reduce_mean(_discriminator_loss(self.loss_name, real_logits, fake_logits))
            num_replicas = tf.distribute.get_strategy().num_replicas_in_sync  # their gradients are summed
            scaled_generator_loss = self.optimizer.scale_loss(generator_loss / num_replicas)
            scaled_discriminator_loss = self.discriminator_optimizer.scale_loss(
                (discriminator_loss + self._penalty(real, fake, labels)) / num_replicas
            )
        weights = [
            [variable.value for variable in network.trainable_variables]
            for network in (self.generator, self.discriminator)
        ]
        discriminator_gradients, image_gradients = tape.gradient(scaled_discriminator_loss, [weights[1], fake])
        if self.loss_name in _GRADIENT_RATIOS and not self.scales_losses:
            image_gradients *= _GRADIENT_RATIOS[self.loss_name](fake_logits)[:, None, None, None]
        else:
            image_gradients = tape.gradient(scaled_generator_loss, fake)
        del tape
        generator_gradients = generator_tape.gradient(
            [fake, mode_seeking], weights[0], [image_gradients, self.optimizer.scale_loss(1.0 / num_replicas)]
        )
        self.optimizer.apply(generator_gradients, self.generator.trainable_variables)
        self.discriminator_optimizer.apply(discriminator_gradients, self.discriminator.trainable_variables)
        self._update_average()
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
        return self.get_metrics_result()  # evaluation does not depend on batches, see evaluation_metrics

    def _inputs(self, x: tf.Tensor, labels: tf.Tensor) -> tf.Tensor | list[tf.Tensor]:
        """Return the inputs of a network: latents or images, and the class numbers if it is conditional."""
        return [x, labels] if self.classes else x

    def _penalty(self, real, fake, labels):
        """Return the gradient penalty, which is zero between two intervals."""
        if not self.gradient_penalty:
            return 0.0

        def penalty():
            images = real
            if self.loss_name == "wasserstein-gp":
                t = replicas.draw_for_replica(
                    lambda rows: keras.random.uniform((rows, 1, 1, 1), seed=self.seed_generator), tf.shape(real)[0]
                )
                images = real + t * (tf.stop_gradient(fake) - real)
            with tf.GradientTape() as tape:
                tape.watch(images)
                logits = self.discriminator(self._inputs(self.augment(images), labels), training=True)
                total = tf.reduce_sum(logits)
            squared = tf.reduce_sum(tf.square(tape.gradient(total, images)), axis=(1, 2, 3))
            if self.loss_name == "wasserstein-gp":
                squared = tf.square(tf.sqrt(squared + 1e-12) - 1.0)
            return 0.5 * self.gradient_penalty * self.gradient_penalty_interval * tf.reduce_mean(squared)

        return tf.cond(self.optimizer.iterations % self.gradient_penalty_interval == 0, penalty, lambda: 0.0)

    def _update_average(self) -> None:
        """Move the averaged weights towards the generator's, faster in the first steps."""
        step = tf.cast(self.optimizer.iterations, tf.float32)
        rate = 1.0 - tf.minimum(self.ema_decay, (1.0 + step) / (10.0 + step))
        averages, weights = (
            [variable.value for variable in network.weights] for network in (self.ema_generator, self.generator)
        )

        def update(average, weight):
            return average.assign_add((weight - average) * tf.cast(rate, average.dtype))

        def update_all(strategy):
            for average, weight in zip(averages, weights, strict=True):
                strategy.extended.update(average, update, args=(weight,))

        tf.distribute.get_replica_context().merge_call(update_all)

    def get_config(self):
        return {**super().get_config(), **self.settings}


def _generator_loss(loss: str, fake_logits):
    """Return the generator's loss for each generated image, (batch,)."""
    return {
        "non-saturating": lambda: tf.nn.softplus(-fake_logits),
        "hinge": lambda: -fake_logits,
        "wasserstein-gp": lambda: -fake_logits,
        "least-squares": lambda: tf.square(fake_logits - 1.0),
    }[loss]()


def _discriminator_loss(loss: str, real_logits, fake_logits):
    """Return the discriminator's loss for each pair of a real and a generated image, (batch,)."""
    return {
        "non-saturating": lambda: tf.nn.softplus(-real_logits) + tf.nn.softplus(fake_logits),
        "hinge": lambda: tf.nn.relu(1.0 - real_logits) + tf.nn.relu(1.0 + fake_logits),
        "wasserstein-gp": lambda: fake_logits - real_logits,
        "least-squares": lambda: tf.square(real_logits - 1.0) + tf.square(fake_logits),
    }[loss]()


def _mode_seeking_loss(images, latents):
    """Return the mean over pairs of rows of the distance of the latents, divided by that of the images."""
    pairs = tf.shape(latents)[0] // 2

    def distances(values):
        rows = tf.reshape(values[: 2 * pairs], (pairs, 2, math.prod(values.shape[1:])))
        return tf.reduce_mean(tf.abs(rows[:, 0] - rows[:, 1]), axis=-1)

    ratios = distances(latents) / (distances(images) + 0.01)
    return tf.reduce_sum(ratios) / tf.cast(tf.maximum(pairs, 1), tf.float32)


# For each generated image, the gradient of the generator's loss divided by the gradient of the discriminator's loss, as
# a function of its logit. A logit depends on its own image only, so one backward pass through the discriminator serves
# both losses. For the other losses there is no ratio, because the discriminator's gradient can be zero although the
# generator's is not. With float16 the ratio is not used, because the discriminator's gradient can underflow.
_GRADIENT_RATIOS = {
    "non-saturating": lambda fake_logits: -tf.exp(-tf.clip_by_value(fake_logits, -60.0, 60.0)),
    "wasserstein-gp": lambda fake_logits: -tf.ones_like(fake_logits),
}
