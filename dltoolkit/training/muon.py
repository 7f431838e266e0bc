"""Muon for convolutions too: Keras' own takes two-dimensional weights only."""

from __future__ import annotations

import math

import keras
import tensorflow as tf

INPUT_CHANNELS = 4  # at most; a first layer that sees pixels gains nothing from equal singular values


@keras.saving.register_keras_serializable(package="dltoolkit")
class Muon(keras.optimizers.Muon):
    """Momentum whose updates are made orthogonal by a Newton-Schulz iteration (Jordan et al. 2024).

    A kernel (height, width, in, out) is taken as a matrix (height * width * in, out), as in the paper's speed runs on
    CIFAR-10. Vectors, the first layer and the logits go to AdamW. Every update of a matrix has the root mean square
    ``rms_rate`` times the learning rate, whatever its shape (Liu et al. 2025, arXiv:2502.16982), so that learning
    rates of AdamW's size fit.
    """

    def _should_use_adamw(self, variable) -> bool:
        shape = variable.shape
        if len(shape) not in (2, 4) or (len(shape) == 4 and shape[2] <= INPUT_CHANNELS):
            return True
        return "logits" in variable.path or (self.exclude_embeddings and "embedding" in variable.path.lower())

    def _muon_update_step(self, gradient, variable, lr, m) -> None:
        self.assign_add(m, gradient + m * (self.momentum - 1.0))
        looking_ahead = gradient + self.momentum * m if self.nesterov else m
        columns = variable.shape[-1]
        matrix = tf.reshape(looking_ahead, (math.prod(variable.shape[:-1]), columns))
        update = self.zeropower_via_newtonschulz5(matrix, self.ns_steps)
        update *= lr * self.rms_rate * math.sqrt(max(matrix.shape))
        self.assign_sub(variable, tf.reshape(update, variable.shape))

    def zeropower_via_newtonschulz5(self, x, steps: int):
        """Keras' iteration X <- (aI + bA + cAA) X, A = X X', done on the smaller of the two possible A alone.

        The polynomials of the steps commute, so that their product is gathered first and X multiplied once: 2.5 times
        less arithmetic for a convolution from 160 to 160 channels.
        """
        rows, columns = x.shape
        x /= tf.norm(x) + 1e-7
        tall = rows > columns
        gram = tf.matmul(x, x, transpose_a=tall, transpose_b=not tall)
        product = unit = tf.eye(min(rows, columns), dtype=x.dtype)
        for i in range(steps):
            polynomial = self.muon_a * unit + self.muon_b * gram + self.muon_c * gram @ gram
            product = polynomial @ product if i else polynomial
            gram = polynomial @ gram @ polynomial
        return x @ product if tall else product @ x

    def transpose_last_axis(self, X):
        return tf.transpose(X)
