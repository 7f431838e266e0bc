"""Optimizers and the learning rate schedule, whose length may be planned while training runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from dltoolkit.config import OptimizerOptions
from dltoolkit.models import keras_internals
from dltoolkit.training.muon import Muon

# Peak learning rate and decoupled weight decay for a batch of 128. The rate grows with the root of the batch size.
DEFAULTS = {"adamw": (4e-3, 0.05), "adam": (4e-3, 0.0), "sgd": (0.1, 5e-4), "muon": (1e-2, 0.2)}
WARMUP = 0.1  # fraction of the steps in which the learning rate rises
PROVISIONAL_STEPS = 10_000  # length of the schedule until the run is planned, which takes a few seconds


@keras.saving.register_keras_serializable(package="dltoolkit")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up over the first tenth of the steps, then a half cosine to zero (Loshchilov & Hutter 2017).

    The number of steps is a variable, so that it can change during training without compiling again.

    Args:
        peak: Peak learning rate.
        steps: Number of steps from the start to zero.
        full_rate_steps: Maximum number of steps with the full peak. For more steps, the peak is divided by the square
            root of their ratio to this number.
    """

    def __init__(self, peak: float, steps: int = PROVISIONAL_STEPS, full_rate_steps: int | None = None):
        self.peak, self.full_rate_steps = peak, full_rate_steps
        self._steps = tf.Variable(float(steps), trainable=False, dtype="float32", name="planned_steps")

    def scaled(self, factor: float) -> WarmupCosine:
        """Return a schedule whose rates are ``factor`` times the rates of this one, and which shares its length."""
        other = WarmupCosine(self.peak * factor, full_rate_steps=self.full_rate_steps)
        other._steps = self._steps
        return other

    @property
    def steps(self) -> int:
        """The planned number of steps, which can be changed during training."""
        return int(self._steps.numpy())

    @steps.setter
    def steps(self, steps: int) -> None:
        self._steps.assign(float(steps))

    @property
    def peak_for_length(self) -> float:
        """The peak learning rate for the planned number of steps."""
        return float(self._peak_for_length())

    def _peak_for_length(self):
        if self.full_rate_steps is None:
            return self.peak
        return self.peak * tf.minimum(1.0, tf.sqrt(self.full_rate_steps / self._steps))

    def __call__(self, step):
        step, steps = tf.cast(step, "float32") + 1.0, self._steps
        warmup = tf.maximum(1.0, WARMUP * steps)
        decay = tf.clip_by_value((step - warmup) / tf.maximum(1.0, steps - warmup), 0.0, 1.0)
        cosine = 0.5 * (1.0 + tf.cos(math.pi * decay))
        return self._peak_for_length() * tf.where(step < warmup, step / warmup, cosine)

    def get_config(self):
        return {"peak": self.peak, "steps": self.steps, "full_rate_steps": self.full_rate_steps}


def make(
    config: OptimizerOptions,
    batch_size: int,
    newton_schulz_steps: int = 5,
    full_rate_steps: int | None = None,
    rate_factors: Mapping[str, float] | None = None,
) -> tuple[keras.optimizers.Optimizer, WarmupCosine]:
    """Return the optimizer that the options describe, and its schedule, whose length the caller sets.

    Args:
        config: The options.
        batch_size: Examples per step.
        newton_schulz_steps: Number of Newton-Schulz iterations of Muon (see :mod:`dltoolkit.training.muon`).
        full_rate_steps: See :class:`WarmupCosine`.
        rate_factors: Factors of the learning rate by variable path, for variables that are to learn more slowly.
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
    classes = {
        "adamw": keras.optimizers.AdamW,
        "adam": keras.optimizers.Adam,
        "sgd": keras.optimizers.SGD,
        "muon": Muon,
    }
    return _with_rate_factors(classes[config.optimizer], rate_factors or {})(**shared), schedule


def _with_rate_factors(
    base: type[keras.optimizers.Optimizer], factors: Mapping[str, float]
) -> type[keras.optimizers.Optimizer]:
    """Return a subclass of an optimizer class that multiplies the learning rate of variables by factors, by path."""
    if not factors:
        return base

    class WithRateFactors(base):
        def build(self, variables):
            super().build(variables)
            self.rate_factors = [factors.get(variable.path, 1.0) for variable in variables]

        def update_step(self, gradient, variable, learning_rate):
            factor = self.rate_factors[keras_internals.variable_index(self, variable)]
            super().update_step(gradient, variable, learning_rate * factor)

    return WithRateFactors


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
    **options: Any,
) -> WarmupCosine:
    """Compile a model with the optimizer that the options describe, and return its schedule.

    Weight decay does not apply to biases, normalization weights and other vectors.

    Args:
        model: The model.
        config: The options.
        batch_size: Examples per step.
        loss: The loss.
        metrics: The metrics.
        newton_schulz_steps: Number of Newton-Schulz iterations of Muon; fewer if they would take much of a step.
        full_rate_steps: See :class:`WarmupCosine`.
        rate_factors: See :func:`make`.
        options: ``jit_compile`` and ``steps_per_execution``.
    """
    optimizer, schedule = make(config, batch_size, newton_schulz_steps, full_rate_steps, rate_factors)
    exclude_vectors_from_weight_decay(optimizer, model)
    if keras.config.dtype_policy().name == "mixed_float16":
        optimizer = keras_internals.LossScaleOptimizer(optimizer)
    model.compile(optimizer, loss, metrics=list(metrics), **options)
    return schedule


def all_optimizers(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    """Return the optimizers of a compiled model: ``model.optimizers`` if the model has several."""
    return getattr(model, "optimizers", [model.optimizer])


def exclude_vectors_from_weight_decay(optimizer: keras.optimizers.Optimizer, model: keras.Model) -> None:
    """Exclude biases, normalization weights and other vectors from weight decay. Call it before training."""
    if optimizer.weight_decay:
        optimizer.exclude_from_weight_decay(var_list=[v for v in model.trainable_variables if len(v.shape) < 2])
