"""Variations of pictures through which gradients flow, for discriminators that see few pictures (Zhao et al. 2020)."""

from __future__ import annotations

import keras
import tensorflow as tf

from dltoolkit.models import replicas

KINDS = ("color", "translation", "cutout")


@keras.saving.register_keras_serializable(package="dltoolkit")
class DiffAugment(keras.layers.Layer):
    """Vary pictures -1..1 (batch, h, w, c), real and generated ones alike; each picture by itself.

    Args:
        kinds: some of :data:`KINDS`, separated by commas; empty for none.
    """

    draws_for_all = True  # replicas

    def __init__(self, kinds: str, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})  # random places, and brightness, are too coarse in bfloat16
        self.kinds = kinds
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, images):
        count, height, width, channels = tf.shape(images)[0], *images.shape[1:]
        for kind in filter(None, self.kinds.split(",")):
            draw = replicas.draw_for_replica(self._draw, count, axis=1)
            if kind == "color":
                images = images + draw[0] - 0.5  # brightness
                if channels > 1:
                    grey = tf.reduce_mean(images, axis=-1, keepdims=True)
                    images = grey + (images - grey) * 2.0 * draw[1]
                mean = tf.reduce_mean(images, axis=(1, 2, 3), keepdims=True)
                images = mean + (images - mean) * (0.5 + draw[2])
            elif kind == "translation":
                images = _translated(images, draw[0], draw[1])
            else:
                rows, columns = (tf.range(size, dtype=tf.float32) for size in (height, width))
                hole = _inside(rows[:, None, None], draw[0], height) & _inside(columns[None, :, None], draw[1], width)
                images = tf.where(hole, tf.zeros_like(images), images)
        return images

    def _draw(self, count):
        return keras.random.uniform((3, count, 1, 1, 1), seed=self.seed_generator)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "kinds": self.kinds}


def _translated(images: tf.Tensor, down: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """Move pictures by up to an eighth of their sides, as products with shifted unit matrices; zeros come in."""

    def shift(draw, size):
        most = max(1, size // 8)
        steps = tf.cast(tf.floor(draw[:, :, 0, 0] * (2 * most + 1)), tf.int32) - most  # (batch, 1)
        return tf.one_hot(tf.range(size)[None] + steps, size)  # (batch, size, size); zeros beyond the edge

    height, width = images.shape[1:3]
    images = tf.einsum("bij,bjwc->biwc", shift(down, height), images)
    return tf.einsum("bij,bhjc->bhic", shift(right, width), images)


def _inside(places: tf.Tensor, middle: tf.Tensor, size: int) -> tf.Tensor:
    """Whether rows or columns lie in a hole of half the picture's side."""
    return tf.abs(places + 0.5 - middle * size) < size / 4
