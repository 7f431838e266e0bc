"""The one training loop: Keras' ``fit``, watched by a callback that plans, records and keeps the best epoch."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dltoolkit import interrupt
from dltoolkit.config import RunConfig
from dltoolkit.errors import UserError, WorkerLost
from dltoolkit.run import Run
from dltoolkit.training import checkpoint, distributed, optimizer, progress, strategy
from dltoolkit.training.pace import Pace
from dltoolkit.training.plan import Plan
from dltoolkit.training.strategy import Devices

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
        UserError: if the loss becomes NaN, memory runs out twice, or there are more replicas than examples in a batch.
        Interrupted: after SIGINT or SIGTERM, when all is saved.
        Relieved: on all workers but the chief, when training is done.
        WorkerLost: if another worker is gone.
    """
    batch_size = min(run.info.get("plan", {}).get("batch_size", config.batch_size), job.examples)
    devices = strategy.devices(config.device)
    if devices.workers > 1:
        with _together(run):
            return _fit(run, config, job, devices, batch_size)
    try:
        return _fit(run, config, job, devices, batch_size)
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
        return _fit(run, config, job, devices, batch_size // 2)
    except (tf.errors.ResourceExhaustedError, MemoryError):
        raise UserError(
            f"Out of memory even with batches of {batch_size // 2}; use a smaller --batch-size or model, or smaller "
            "pictures or shorter texts."
        ) from None


@contextlib.contextmanager
def _together(run: Run) -> Iterator[None]:
    """Say in words what goes wrong among workers, and let all but the chief go when training is done."""
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError):
        raise UserError(
            "Out of memory; use a smaller --batch-size or model, or smaller pictures or shorter texts."
        ) from None
    except (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.InternalError,
    ) as error:
        raise WorkerLost(run.resume_command) from error
    run.chief_only()


def _fit(run: Run, config: RunConfig, job: Job, devices: Devices, batch_size: int) -> keras.Model:
    compiled = strategy.xla(config.xla, devices, on_cpu=job.compiled)
    number_format = strategy.precision(config.precision, devices, compiled=compiled)
    batch_size = strategy.shared_batch(batch_size, devices, job.multiple)
    steps_per_epoch = max(1, job.examples // batch_size)
    per_call = min(job.steps_per_call, steps_per_epoch)
    steps_per_epoch -= steps_per_epoch % per_call
    per_call = 1 if devices.mirrored else per_call
    validation_size = distributed.even_enough(batch_size, job.validation_examples, devices.replicas)
    keras.utils.set_random_seed(config.seed)
    with devices.strategy.scope():
        model = distributed.prepare(job.build_model(), devices)
        at_once = compiled and devices.kind != "tpu"  # which compiles by itself
        schedule = job.compile(model, config, batch_size, jit_compile=at_once, steps_per_execution=per_call)
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)  # float16 has wrapped it
    delivered = job.delivered(model)
    model.optimizer.finalize_variable_values = lambda variables: None  # the watcher swaps the averages in itself
    run.update(
        state="running",
        device={
            "kind": devices.kind,
            "replicas": devices.replicas,
            "workers": devices.workers,
            "precision": number_format,
            "xla": compiled,
        },
        plan={"batch_size": batch_size},
        model={
            "name": delivered.name,
            "parameters": model.count_params(),
            "input_shape": list(delivered.inputs[0].shape[1:]),
        },
    )

    pace = Pace(devices)
    restored = checkpoint.restore(run, model) if run.writes else None
    standing = config.max_time, *(restored or (checkpoint.State(), None, []))
    max_time, state, best_weights, accumulators = _as_chief(pace, run, model, standing)
    plan = _plan(run, replace(config, max_time=max_time), job, state, steps_per_epoch, pace)
    within = state.step % steps_per_epoch
    if within and not state.finished and state.history and state.history[-1]["step"] == state.step:
        state.history.pop()  # the run ended within this epoch, which now goes on
        accumulators = []
    if state.history:
        run.write_rows("history.csv", state.history)  # it may be ahead of the checkpoint, or damaged
    watcher = _Watcher(run, config, job, state, plan, pace, schedule, best_weights)
    validation = job.validation(validation_size)
    with contextlib.closing(watcher), interrupt.deferred():
        while not state.finished:
            epoch, within = divmod(state.step, steps_per_epoch)
            if within:
                model.test_on_batch(*next(iter(validation)))  # makes the metrics' variables
            watcher.resume_epoch(within, accumulators if within else [])
            model.fit(
                distributed.share_out(job.batches(batch_size, state.step), devices),
                validation_data=distributed.share_out(validation, devices),
                validation_steps=max(0, int(validation.cardinality())) or None,
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


def _plan(run: Run, config: RunConfig, job: Job, state: checkpoint.State, steps_per_epoch: int, pace: Pace) -> Plan:
    """A resumed run follows its plan, whatever time it took, unless another length was asked for."""
    planned = run.info["plan"].get("steps")
    epochs = config.epochs or (None if config.max_time or job.steps else job.epochs)
    max_seconds = None
    if planned is None and config.max_time:
        max_seconds = max(1.0, config.max_time - (state.seconds if state.planned is None else 0.0))
    validated = job.validation_examples / job.examples
    plan = Plan(steps_per_epoch, epochs, max_seconds, validated, clock=pace.now, bound=job.steps)
    plan.steps = planned or plan.steps
    if state.finished and state.planned != planned:
        state.finished, state.stale_epochs = False, 0
    if planned is None and state.planned not in (None, plan.steps):
        progress.note(
            f"The learning rate of the {state.step:,} steps so far was planned for {state.planned:,}, so the result is "
            "not quite that of training for the new length from the start."
        )
    return plan


def _as_chief(pace: Pace, run: Run, model: keras.Model, standing: tuple) -> tuple:
    """Let all workers begin where the chief stands, with its weights; return its standing.

    Raises:
        UserError: on a worker that was started with other options or data.
    """
    if pace.alone:
        return standing
    variables = [*model.variables, *(variable for each in optimizer.all_of(model) for variable in each.variables)]
    data = {key: run.info.get("data", {}).get(key) for key in ("fingerprint", "splits")}
    mine = {**run.info["config"], **run.info["device"], **data, "batch": run.info["plan"]["batch_size"]}
    apart = ("data", "name", "out_dir")  # which may differ from machine to machine
    of_chief, standing, values = pace.object_of_chief((mine, standing, [np.asarray(each) for each in variables]))
    differing = [key for key, value in mine.items() if key not in apart and value != of_chief.get(key)]
    if differing:
        raise UserError(
            f"This worker's {', '.join(differing)} and the chief's differ: give all workers the same command and data."
        )
    if not run.writes:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
    return standing


class _Watcher(keras.callbacks.Callback):
    """Everything that happens around the steps, in the order in which it must happen."""

    def __init__(
        self,
        run: Run,
        config: RunConfig,
        job: Job,
        state: checkpoint.State,
        plan: Plan,
        pace: Pace,
        schedule: optimizer.WarmupCosine,
        best_weights: list[np.ndarray] | None,
    ):
        super().__init__()
        self._run, self._config, self._job, self._state = run, config, job, state
        self._plan, self._pace, self._schedule = plan, pace, schedule
        self.best_weights = best_weights
        self._best_is_saved = best_weights is None
        self._display = progress.EpochDisplay()
        self._ema = None
        self._summary = None
        if run.writes and importlib.util.find_spec("tensorboard"):  # TensorFlow needs it to write what it reads
            self._summary = tf.summary.create_file_writer(str(run.path / "tensorboard"))
        self._seconds_before = state.seconds
        self._saved, self._saving_took = pace.now(), 0.0
        self._within = 0
        self._accumulators: list[np.ndarray] = []
        if plan.steps is not None and state.step >= plan.steps and best_weights is not None:
            state.finished = True
        plan.start()
        self._began = pace.now()
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
        self._epoch_began = self._pace.now()
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
        looked = self._pace.look(state.step)
        if looked and self._plan.step_done(state.step):
            self._follow_plan()
        if self._plan.out_of_time and self._plan.steps is None:  # before there was time to plan
            self._plan.steps = state.step
            self._follow_plan()
        if (self._plan.steps is not None and state.step >= self._plan.steps) or self._plan.out_of_time:
            self._finish()
        if self.model.stop_training or batch + 1 == self.params["steps"]:
            return  # the epoch's validation comes first
        if looked:
            self._save_or_stop()

    def on_test_begin(self, logs: Any = None) -> None:
        self._pace.look(self._state.step, surely=True)
        self._test_began = self._pace.now()
        if self._ema:
            self._ema.on_test_begin()

    def on_test_end(self, logs: Any = None) -> None:
        score = logs[self._job.score.removeprefix("validation_")]
        falling = self._job.score.endswith(("loss", "distance"))
        standing = self._pace.of_chief((-score if falling else score, -logs.get("loss", 0.0)))
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
        self._pace.look(self._state.step, surely=True)
        state, now = self._state, self._pace.now()
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
        stops = bool(self._job.after_epoch and self._run.writes and self._job.after_epoch(self.model, epoch + 1))
        if self._pace.of_chief([stops])[0]:
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
        signal, since = self._pace.signal(), self._pace.now() - self._saved
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
        self._state.seconds = self._seconds_before + self._pace.now() - self._began
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
        self._saved = self._pace.now()
        (self._saving_took,) = self._pace.of_chief([time.monotonic() - began])
