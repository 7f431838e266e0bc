"""The specification of a training run, which a recipe passes to the training loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import tensorflow as tf

from dltoolkit import plan
from dltoolkit.training import optimizer, selection


@dataclass(frozen=True)
class TrainSpec:
    """A model, its data and how to train it.

    Attributes:
        build_model: Builds the model; called in the strategy's scope.
        batches: Maps ``(batch_size, start_step)`` to an infinite dataset of training batches from that step on.
        validation: Maps ``batch_size`` to the dataset of validation batches, which has a known length.
        train_examples: Number of training examples in an epoch.
        validation_examples: Number of examples in a validation.
        compile: Compiles the model and returns its learning rate schedule, whose length the training loop sets. Called
            as ``(model, config, batch_size, jit_compile=…, steps_per_execution=…)`` in the strategy's scope.
        monitor: The column of history.csv that selects the best epoch. Lower is better for a loss or a distance, higher
            is better for any other metric.
        epochs: Number of epochs if neither ``--epochs`` nor ``--max-time`` is given.
        max_steps: Maximum number of steps if ``--epochs`` is not given; None for no maximum.
        steps_per_execution: Steps that one call of the compiled training function runs on a single device. Models with
            short steps benefit from more.
        xla_on_cpu: Whether XLA runs this model faster than TensorFlow's own kernels on a CPU.
        variable_shapes: Whether batches differ in shape, as batches of texts do.
        validation_batch_size: Minimum batch size of the validation; the batch size of the training if that is larger.
        ensemble_size: Number of models that train side by side, each on its own part of a batch. All of them are
            validated on every example.
        few_steps: Number of steps below which the plan warns that the model hardly learns.
        seconds_before: Seconds of training that took place before the loop; added to the training time.
        inference_model: Returns the functional model that is saved and returned, by default the trained model.
        validation_views: Maps the inputs of a validation batch to the views whose logits are averaged, as the inference
            model averages them; None if the validation uses the inputs as they are.
        on_epoch_end: Called by the chief with the model and the epoch (from 1) after each validation. If it returns
            True, training stops.
        callbacks: Callbacks that the user gives.
        summary: Rows of the plan about the data and what is done to them. Without them, the recipe announces its plan.
        evaluation: What follows training, for the plan.
    """

    build_model: Callable[[], keras.Model]
    batches: Callable[[int, int], tf.data.Dataset]
    validation: Callable[[int], tf.data.Dataset]
    train_examples: int
    validation_examples: int
    compile: Callable[..., optimizer.WarmupCosine]
    monitor: str = "validation_accuracy"
    epochs: int = 10
    max_steps: int | None = None
    steps_per_execution: int = 1
    xla_on_cpu: bool = False
    variable_shapes: bool = False
    validation_batch_size: int = 1
    ensemble_size: int = 1
    few_steps: int = 50
    seconds_before: float = 0.0
    inference_model: Callable[[keras.Model], keras.Model] = lambda model: model
    validation_views: selection.Views | None = None
    on_epoch_end: Callable[[keras.Model, int], bool | None] | None = None
    callbacks: Sequence[keras.callbacks.Callback] = ()
    summary: Sequence[plan.Row] = ()
    evaluation: plan.Evaluation | None = None
