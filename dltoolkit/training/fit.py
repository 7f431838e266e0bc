"""The one training loop: Keras' ``fit``, watched by a callback that plans, records and keeps the best epoch."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dltoolkit import interrupt
from dltoolkit.config import RunConfig
from dltoolkit.errors import UserError
from dltoolkit.run import Run
from dltoolkit.training import checkpoint, optimizer, progress, strategy
from dltoolkit.training.plan import Plan

CHECKPOINT_SECONDS = 60.0  # after which a checkpoint is written within an epoch, not only at its end
CHECKPOINT_SHARE = 0.01  # of the time, at most, that goes into checkpoints, beside the last one
FOREVER = 10**9  # epochs for Keras; the plan says when to stop


@dataclass(frozen=True)
class Job:
    """What to train; everything the loop cannot know by itself.

    Attributes:
        build_model: makes the model, in the strategy's scope.
        batches: ``(batch_size, start_step)`` to endless training batches, from that step on.
        validation: ``batch_size`` to the validation batches, each once.
        examples: training examples in an epoch.
        validation_examples: examples in a validation.
        compile: ``(model, config, batch_size, jit_compile=…, steps_per_execution=…)`` compiles the model, in the
            strategy's scope, and returns the schedule of its learning rate, whose length the loop plans.
        score: the history column that picks the best epoch; higher is better unless it is a loss or a distance.
        epochs: how many, where neither ``--epochs`` nor ``--max-time`` is given.
        steps: how many at most, where ``--epochs`` is not given.
        steps_per_call: steps between two looks of Python at the training, on one device; more for smaller steps.
        compiled: whether XLA is faster than TensorFlow's own kernels for this model on a CPU.
        multiple: what the size of a batch must divide by.
        seconds_before: what learning took that came before the loop; counted as training time.
        delivered: the part of the model that is saved and returned, as a functional model; by default all of it.
        after_epoch: called with the model and the number of each epoch when it has been validated; True stops.
    """

    build_model: Callable[[], keras.Model]
    batches: Callable[[int, int], tf.data.Dataset]
    validation: Callable[[int], tf.data.Dataset]
    examples: int
    validation_examples: int
    compile: Callable[..., optimizer.WarmupCosine]
    score: str = "validation_accuracy"
    epochs: int = 10
    steps: int | None = None
    steps_per_call: int = 1
    compiled: bool = False
    multiple: int = 1
    seconds_before: float = 0.0
    delivered: Callable[[keras.Model], keras.Model] = lambda model: model
    after_epoch: Callable[[keras.Model, int], bool | None] | None = None


def fit(run: Run, config: RunConfig, job: Job) -> keras.Model:
    """Train, going on from the run's checkpoint if it has one, and return the model of the best epoch.

    Writes history.csv, checkpoint/ and model.keras (the best epoch so far) as it goes, and run.json's plan, device and
    times. When memory runs out, the batch size is halved once.

    Raises:
        UserError: if the loss becomes NaN, or memory runs out twice.
        Interrupted: after SIGINT or SIGTERM, when all is saved.
    """
    batch_size = min(run.info.get("plan", {}).get("batch_size", config.batch_size), job.examples)
    try:
        return _fit(run, config, job, batch_size)
    except (tf.errors.ResourceExhaustedError, MemoryError):
        if batch_size < 2:
            raise UserError(
                "Out of memory with a batch of one; use a smaller model, or smaller pictures or shorter texts."
            ) from None
        if checkpoint.found(run):
            raise UserError(
                f"Out of memory with batches of {batch_size}, with which this run has begun: free some memory and "
                f"go on, or train a new run with a smaller --batch-size."
            ) from None
    run.info.get("plan", {}).pop("steps", None)
    progress.warn(f"Out of memory with batches of {batch_size}; trying {batch_size // 2}.")
    keras.utils.clear_session()
    try:
        return _fit(run, config, job, batch_size // 2)
    except (tf.errors.ResourceExhaustedError, MemoryError):
        raise UserError(
            f"Out of memory even with batches of {batch_size // 2}; use a smaller --batch-size or model, or smaller "
            "pictures or shorter texts."
        ) from None


def _fit(run: Run, config: RunConfig, job: Job, batch_size: int) -> keras.Model:
    devices = strategy.devices(config.device)
    compiled = strategy.xla(config.xla, devices, on_cpu=job.compiled)
    number_format = strategy.precision(config.precision, devices, compiled=compiled)
    multiple = devices.replicas * job.multiple
    batch_size = max(multiple, batch_size - batch_size % multiple)
    steps_per_epoch = max(1, job.examples // batch_size)
    per_call = min(job.steps_per_call, steps_per_epoch) if devices.replicas == 1 else 1
    steps_per_epoch -= steps_per_epoch % per_call
    keras.utils.set_random_seed(config.seed)
    with devices.strategy.scope():
        model = job.build_model()
        schedule = job.compile(model, config, batch_size, jit_compile=compiled, steps_per_execution=per_call)
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)  # float16 has wrapped it
    delivered = job.delivered(model)
    model.optimizer.finalize_variable_values = lambda variables: None  # the watcher swaps the averages in itself
    run.update(
        state="running",
        device={"kind": devices.kind, "replicas": devices.replicas, "precision": number_format, "xla": compiled},
        plan={"batch_size": batch_size},
        model={
            "name": delivered.name,
            "parameters": model.count_params(),
            "input_shape": list(delivered.inputs[0].shape[1:]),
        },
    )

    restored = checkpoint.restore(run, model)
    state, best_weights, accumulators = restored or (checkpoint.State(), None, [])
    plan = _plan(run, config, job, state, steps_per_epoch)
    within = state.step % steps_per_epoch
    if within and not state.finished and state.history and state.history[-1]["step"] == state.step:
        state.history.pop()  # the run ended within this epoch, which now goes on
        accumulators = []
    if state.history:
        run.write_rows("history.csv", state.history)  # it may be ahead of the checkpoint, or damaged
    watcher = _Watcher(run, config, job, state, plan, schedule, best_weights)
    with contextlib.closing(watcher), interrupt.deferred():
        while not state.finished:
            epoch, within = divmod(state.step, steps_per_epoch)
            if within:
                model.test_on_batch(*next(iter(job.validation(batch_size))))  # makes the metrics' variables
            watcher.resume_epoch(within, accumulators if within else [])
            model.fit(
                job.batches(batch_size, state.step),
                validation_data=job.validation(batch_size),
                initial_epoch=epoch,
                epochs=epoch + 1 if within else FOREVER,
                steps_per_epoch=steps_per_epoch - within,
                callbacks=[watcher],
                shuffle=False,  # the batches are shuffled already
                verbose=0,
            )
    model.set_weights(watcher.best_weights)
    run.save_model(delivered)
    # outside the strategy, so that it answers on one device
    bare = keras.Model(delivered.input, delivered.output, name=delivered.name)
    bare.compile(jit_compile=False)
    return bare


def _plan(run: Run, config: RunConfig, job: Job, state: checkpoint.State, steps_per_epoch: int) -> Plan:
    """A resumed run follows its plan, whatever time it took, unless another length was asked for."""
    planned = run.info["plan"].get("steps")
    epochs = config.epochs or (None if config.max_time or job.steps else job.epochs)
    max_seconds = None
    if planned is None and config.max_time:
        max_seconds = max(1.0, config.max_time - (state.seconds if state.planned is None else 0.0))
    plan = Plan(steps_per_epoch, epochs, max_seconds, job.validation_examples / job.examples, bound=job.steps)
    plan.steps = planned or plan.steps
    if state.finished and state.planned != planned:
        state.finished, state.stale_epochs = False, 0
    if planned is None and state.planned not in (None, plan.steps):
        progress.note(
            f"The learning rate of the {state.step:,} steps so far was planned for {state.planned:,}, so the result is "
            "not quite that of training for the new length from the start."
        )
    return plan


class _Watcher(keras.callbacks.Callback):
    """Everything that happens around the steps, in the order in which it must happen."""

    def __init__(
        self,
        run: Run,
        config: RunConfig,
        job: Job,
        state: checkpoint.State,
        plan: Plan,
        schedule: optimizer.WarmupCosine,
        best_weights: list[np.ndarray] | None,
    ):
        super().__init__()
        self._run, self._config, self._job, self._state = run, config, job, state
        self._plan, self._schedule = plan, schedule
        self.best_weights = best_weights
        self._best_is_saved = best_weights is None
        self._display = progress.EpochDisplay()
        self._ema = None
        self._summary = None
        if importlib.util.find_spec("tensorboard"):  # TensorFlow needs it to write what it reads
            self._summary = tf.summary.create_file_writer(str(run.path / "tensorboard"))
        self._seconds_before = state.seconds
        self._saved, self._saving_took = time.monotonic(), 0.0
        self._within = 0
        self._accumulators: list[np.ndarray] = []
        if plan.steps is not None and state.step >= plan.steps and best_weights is not None:
            state.finished = True
        plan.start()
        self._began = time.monotonic()
        self._follow_plan()
        self._record_plan()

    def resume_epoch(self, within: int, accumulators: list[np.ndarray]) -> None:
        """Say that the next epoch has ``within`` steps behind it, with these metric accumulators."""
        self._within, self._accumulators = within, accumulators

    def close(self) -> None:
        """Take the live display away."""
        self._display.close()

    # Called by Keras

    def on_train_begin(self, logs: Any = None) -> None:
        if getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer).use_ema:
            self._ema = keras.callbacks.SwapEMAWeights()
            self._ema.set_model(self.model)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        for variable, value in zip(self.model.metrics_variables, self._accumulators, strict=bool(self._accumulators)):
            variable.assign(value)
        steps = self.params["steps"] + self._within
        self._display.start(epoch + 1, self._plan.epochs, steps)
        self._epoch_began = time.monotonic()
        self._done = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        state = self._state
        state.step += batch + 1 - self._done
        self._done = batch + 1
        if not math.isfinite(logs["loss"]):
            raise UserError(
                f"The loss became {logs['loss']} at step {state.step}; "
                "try a lower --learning-rate, or --precision float32."
            )
        self._display.step(self._within + batch + 1, logs)
        if self._plan.step_done(state.step):
            self._follow_plan()
        if self._plan.out_of_time and self._plan.steps is None:  # before there was time to plan
            self._plan.steps = state.step
            self._follow_plan()
        if (self._plan.steps is not None and state.step >= self._plan.steps) or self._plan.out_of_time:
            self._finish()
        if self.model.stop_training or batch + 1 == self.params["steps"]:
            return  # the epoch's validation comes first
        self._save_or_stop()

    def on_test_begin(self, logs: Any = None) -> None:
        self._test_began = time.monotonic()
        if self._ema:
            self._ema.on_test_begin()

    def on_test_end(self, logs: Any = None) -> None:
        score = logs[self._job.score.removeprefix("validation_")]
        falling = self._job.score.endswith(("loss", "distance"))
        standing = (-score if falling else score, -logs.get("loss", 0.0))
        self._is_best = self._state.best is None or standing > self._state.best
        if self._is_best:
            self._state.best, self._state.stale_epochs = standing, 0
            self.best_weights = self.model.get_weights()  # the averaged ones, if there is an average
            self._best_is_saved = False
        else:
            self._state.stale_epochs += 1
        if self._ema:
            self._ema.on_test_end()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        state, now = self._state, time.monotonic()
        named = {name.replace("val_", "validation_"): value for name, value in logs.items()}
        row = {"epoch": epoch + 1, "step": state.step, **{name: round(float(v), 6) for name, v in named.items()}}
        row["learning_rate"] = float(f"{float(self._schedule(state.step - 1)):.6g}")
        row["seconds"] = round(now - self._epoch_began, 2)
        state.history.append(row)
        self._run.write_rows("history.csv", state.history)
        if self._summary:
            with self._summary.as_default(step=epoch + 1):
                for name, value in named.items():
                    tf.summary.scalar(name, value)
        if self._plan.validation_done(state.step, now - self._test_began):
            self._follow_plan()
        self._display.end(epoch + 1, self._plan.epochs, row, self._is_best)
        if self._job.after_epoch and self._job.after_epoch(self.model, epoch + 1):
            self._finish()
        self._within, self._accumulators = 0, []
        patience = self._config.patience
        if patience and state.stale_epochs >= patience:
            progress.note(f"No better {self._job.score.replace('_', ' ')} for {patience} epochs: stopping here.")
            self._finish()
        self._save_or_stop(epoch_ended=True)

    # The watcher's own business

    def _follow_plan(self) -> None:
        if self._plan.steps is not None:
            self._schedule.steps = self._state.planned = self._plan.steps

    def _record_plan(self) -> None:
        """Write a new plan to run.json: once there is a checkpoint to follow it from, or from the first step on."""
        if self._plan.steps not in (None, self._run.info["plan"].get("steps")):
            self._run.update(
                plan={"epochs": self._plan.epochs, "steps": self._plan.steps},
                optimizer={"name": self._config.optimizer, "learning_rate": self._schedule.highest},
            )

    def _save_or_stop(self, *, epoch_ended: bool = False) -> None:
        """Write a checkpoint when it is time for one; when a signal has come, write one and raise it."""
        signal, since = interrupt.pending(), time.monotonic() - self._saved
        planned_anew = self._plan.steps != self._run.info["plan"].get("steps")
        due = (epoch_ended or since > CHECKPOINT_SECONDS) and since > self._saving_took / CHECKPOINT_SHARE
        if self._state.finished or signal is not None:
            self._save(everything=True)
        elif planned_anew or due:
            self._save()
        if signal is not None:
            raise interrupt.Interrupted(signal)

    def _finish(self) -> None:
        self._state.finished = self.model.stop_training = True

    def _save(self, everything: bool = False) -> None:
        """Write a checkpoint, and the best epoch's model where it is a new one; with ``everything``, the times too."""
        began = time.monotonic()
        self._state.seconds = self._seconds_before + began - self._began
        checkpoint.save(self._run, self._state, self.model, self.best_weights)
        self._record_plan()
        if not self._best_is_saved and not self._state.finished:
            current = self.model.get_weights()
            self.model.set_weights(self.best_weights)
            self._run.save_model(self._job.delivered(self.model))
            self.model.set_weights(current)
            self._best_is_saved = True
        if everything:
            self._run.update(time={"train_seconds": round(self._job.seconds_before + self._state.seconds, 2)})
        self._saved = time.monotonic()
        self._saving_took = self._saved - began
