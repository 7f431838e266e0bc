"""The optimizer and its learning rate: a linear warm-up, then a cosine to zero, over a length planned while running."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from dltoolkit.config import OptimizerOptions
from dltoolkit.models import keras_internals
from dltoolkit.training.muon import Muon

# Peak rate and decoupled weight decay for a batch of 128; the rate grows with the root of the batch size.
DEFAULTS = {"adamw": (4e-3, 0.05), "adam": (4e-3, 0.0), "sgd": (0.1, 5e-4), "muon": (1e-2, 0.2)}
WARMUP = 0.1  # of all steps
PROVISIONAL_STEPS = 10_000  # until the run's length is planned, which is within its first seconds


@keras.saving.register_keras_serializable(package="dltoolkit")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up over the first tenth of the steps, then a half cosine to zero (Loshchilov & Hutter 2017).

    The number of steps is a variable, so that it can be planned after training has started without compiling again.

    Args:
        peak: the highest learning rate.
        steps: the number of steps from the start to zero.
        full_rate_steps: the most steps for which the rate is ``peak``; over more, it is lower as their root is higher.
    """

    def __init__(self, peak: float, steps: int = PROVISIONAL_STEPS, full_rate_steps: int | None = None):
        self.peak, self.full_rate_steps = peak, full_rate_steps
        self._steps = tf.Variable(float(steps), trainable=False, dtype="float32", name="planned_steps")

    def scaled(self, factor: float) -> WarmupCosine:
        """Return a schedule of so many times the rates, whose length is always this one's."""
        other = WarmupCosine(self.peak * factor, full_rate_steps=self.full_rate_steps)
        other._steps = self._steps
        return other

    @property
    def steps(self) -> int:
        """The planned number of steps; assign to change it while training."""
        return int(self._steps.numpy())

    @steps.setter
    def steps(self, steps: int) -> None:
        self._steps.assign(float(steps))

    @property
    def highest(self) -> float:
        """The highest rate of a run of the planned length."""
        return float(self._highest())

    def _highest(self):
        if self.full_rate_steps is None:
            return self.peak
        return self.peak * tf.minimum(1.0, tf.sqrt(self.full_rate_steps / self._steps))

    def __call__(self, step):
        step, steps = tf.cast(step, "float32") + 1.0, self._steps
        warmup = tf.maximum(1.0, WARMUP * steps)
        falling = tf.clip_by_value((step - warmup) / tf.maximum(1.0, steps - warmup), 0.0, 1.0)
        cosine = 0.5 * (1.0 + tf.cos(math.pi * falling))
        return self._highest() * tf.where(step < warmup, step / warmup, cosine)

    def get_config(self):
        return {"peak": self.peak, "steps": self.steps, "full_rate_steps": self.full_rate_steps}


def make(
    config: OptimizerOptions,
    batch_size: int,
    newton_schulz_steps: int = 5,
    full_rate_steps: int | None = None,
    rate_factors: Mapping[str, float] | None = None,
) -> tuple[keras.optimizers.Optimizer, WarmupCosine]:
    """Return the optimizer that the options ask for, and its schedule, whose length the caller plans.

    Weight decay spares biases, normalisation and other vectors. Muon takes the hidden matrices and convolutions, makes
    their updates orthogonal in ``newton_schulz_steps``, and leaves the rest to AdamW (see ``muon``). ``rate_factors``
    say by variables' paths how much slower than the others they learn.
    """
    rate, decay = DEFAULTS[config.optimizer]
    peak = config.learning_rate if config.learning_rate is not None else rate * math.sqrt(batch_size / 128)
    decay = config.weight_decay if config.weight_decay is not None else decay
    schedule = WarmupCosine(peak, full_rate_steps=full_rate_steps)
    shared = {"learning_rate": schedule, "weight_decay": decay or None}
    if config.ema_decay:
        shared.update(use_ema=True, ema_momentum=config.ema_decay)
    if config.optimizer == "sgd":
        shared.update(momentum=0.9, nesterov=True)
    elif config.optimizer == "muon":
        shared.update(adam_weight_decay=decay or None, momentum=0.9, ns_steps=newton_schulz_steps)
    kind = {"adamw": keras.optimizers.AdamW, "adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD, "muon": Muon}
    return _slowed(kind[config.optimizer], rate_factors or {})(**shared), schedule


def _slowed(kind: type[keras.optimizers.Optimizer], factors: Mapping[str, float]) -> type[keras.optimizers.Optimizer]:
    """The kind of optimizer, but with so many times the rate for the variables of these paths."""
    if not factors:
        return kind

    class Slowed(kind):
        def build(self, variables):
            super().build(variables)
            self.rate_factors = [factors.get(variable.path, 1.0) for variable in variables]

        def update_step(self, gradient, variable, learning_rate):
            factor = self.rate_factors[keras_internals.variable_index(self, variable)]
            super().update_step(gradient, variable, learning_rate * factor)

    return Slowed


def compile(
    model: keras.Model,
    config: OptimizerOptions,
    batch_size: int,
    *,
    loss: keras.losses.Loss,
    metrics: Sequence[Any] = (),
    newton_schulz_steps: int = 5,
    full_rate_steps: int | None = None,
    rate_factors: Mapping[str, float] | None = None,
    **how: Any,
) -> WarmupCosine:
    """Compile a model with the optimizer that the options ask for, and return its schedule.

    Args:
        model: to be trained.
        config: the options.
        batch_size: examples in a step.
        loss: as Keras takes it.
        metrics: as Keras takes them.
        newton_schulz_steps: of Muon; fewer where they would take much of a step.
        full_rate_steps: see :class:`WarmupCosine`.
        rate_factors: see :func:`make`.
        how: ``jit_compile`` and ``steps_per_execution``.
    """
    optimizer, schedule = make(config, batch_size, newton_schulz_steps, full_rate_steps, rate_factors)
    exclude_vectors_from_weight_decay(optimizer, model)
    model.compile(optimizer, loss, metrics=list(metrics), **how)
    return schedule


def all_optimizers(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    """Return the optimizers of a compiled model: one, or as many as it says."""
    return getattr(model, "optimizers", [model.optimizer])


def exclude_vectors_from_weight_decay(optimizer: keras.optimizers.Optimizer, model: keras.Model) -> None:
    """Keep weight decay off biases, normalisation weights and other vectors; call once, before training."""
    if optimizer.weight_decay:
        optimizer.exclude_from_weight_decay(var_list=[v for v in model.trainable_variables if len(v.shape) < 2])
