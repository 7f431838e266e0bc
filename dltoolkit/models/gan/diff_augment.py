"""Differentiable augmentation of images for discriminators that see few images (Zhao et al. 2020)."""

from __future__ import annotations

import keras
import tensorflow as tf

from dltoolkit.models import replicas

KINDS = ("color", "translation", "cutout")


@keras.saving.register_keras_serializable(package="dltoolkit")
class DiffAugment(keras.layers.Layer):
    """Random augmentation of each image (batch, h, w, c) in -1..1, through which gradients flow.

    Args:
        kinds: Some of :data:`KINDS`, separated by commas; empty for none.
    """

    draws_for_all = True  # each replica draws for the full batch and uses the values of its examples

    def __init__(self, kinds: str, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})  # bfloat16 is too coarse for positions and brightness
        self.kinds = kinds
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, images):
        count, height, width, channels = tf.shape(images)[0], *images.shape[1:]
        for kind in filter(None, self.kinds.split(",")):
            draw = replicas.draw_for_replica(self._draw, count, axis=1)
            if kind == "color":
                images = images + draw[0] - 0.5  # brightness
                if channels > 1:
                    gray = tf.reduce_mean(images, axis=-1, keepdims=True)
                    images = gray + (images - gray) * 2.0 * draw[1]  # saturation
                mean = tf.reduce_mean(images, axis=(1, 2, 3), keepdims=True)
                images = mean + (images - mean) * (0.5 + draw[2])  # contrast
            elif kind == "translation":
                images = _translate(images, draw[0], draw[1])
            else:
                rows, columns = (tf.range(size, dtype=tf.float32) for size in (height, width))
                row_mask = _in_hole(rows[:, None, None], draw[0], height)
                column_mask = _in_hole(columns[None, :, None], draw[1], width)
                images = tf.where(row_mask & column_mask, tf.zeros_like(images), images)
        return images

    def _draw(self, count):
        return keras.random.uniform((3, count, 1, 1, 1), seed=self.seed_generator)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "kinds": self.kinds}


def _translate(images: tf.Tensor, down: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """Move images by up to an eighth of their sides, and fill with zeros.

    The images are multiplied by shifted identity matrices, through which gradients flow.

    Args:
        images: Images (batch, h, w, c).
        down, right: Random numbers in 0..1 of shape (batch, 1, 1, 1).
    """

    def shift_matrix(draw, size):
        max_shift = max(1, size // 8)
        shift = tf.cast(tf.floor(draw[:, :, 0, 0] * (2 * max_shift + 1)), tf.int32) - max_shift  # (batch, 1)
        return tf.one_hot(tf.range(size)[None] + shift, size)  # (batch, size, size); zeros beyond the edge

    height, width = images.shape[1:3]
    images = tf.einsum("bij,bjwc->biwc", shift_matrix(down, height), images)
    return tf.einsum("bij,bhjc->bhic", shift_matrix(right, width), images)


def _in_hole(positions: tf.Tensor, center: tf.Tensor, size: int) -> tf.Tensor:
    """Return whether rows or columns lie in a hole of half the image's side around ``center``, which is in 0..1."""
    return tf.abs(positions + 0.5 - center * size) < size / 4
