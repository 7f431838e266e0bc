"""The one training loop: Keras' ``fit``, watched by a callback that plans, records and keeps the best epoch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from dltoolkit import interrupt, progress
from dltoolkit.config import RunConfig
from dltoolkit.errors import UserError, WorkerLost
from dltoolkit.models import keras_internals
from dltoolkit.run import Run
from dltoolkit.training import checkpoint, optimizer
from dltoolkit.training.callbacks import Watcher
from dltoolkit.training.distribute import replicas as distributed
from dltoolkit.training.distribute import strategy
from dltoolkit.training.distribute.strategy import Devices
from dltoolkit.training.shared_clock import Pace
from dltoolkit.training.time_budget import Plan

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
        varying: whether batches differ in shape, as those of texts do.
        validation_batch: examples in a batch of validation, if it is not to be smaller than one of training.
        members: networks that learn side by side, each from its own share of a batch, all of them validated on
            everything.
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
    varying: bool = False
    validation_batch: int = 1
    ensemble_size: int = 1
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
    compiled = strategy.xla(config.xla, devices, on_cpu=job.compiled, varying=job.varying)
    number_format = strategy.precision(config.precision, devices, compiled=compiled)
    batch_size = strategy.shared_batch(batch_size, devices, job.ensemble_size)
    steps_per_epoch = max(1, job.examples // batch_size)
    per_call = min(job.steps_per_call, steps_per_epoch)
    steps_per_epoch -= steps_per_epoch % per_call
    per_call = 1 if devices.mirrored else per_call
    validation_size = max(batch_size, job.validation_batch)
    validation_size = distributed.even_enough(validation_size, job.validation_examples, devices.replicas)
    keras.utils.set_random_seed(config.seed)
    with devices.strategy.scope():
        model = distributed.prepare(job.build_model(), devices, compiled=compiled)
        if compiled and devices.mirrored and not model.compiled_by_xla:
            progress.note("On several replicas a network that shares more than gradients trains without XLA.")
            compiled = False
        at_once = compiled and devices.replicas == 1 and devices.kind != "tpu"  # which compiles by itself
        schedule = job.compile(model, config, batch_size, jit_compile=at_once, steps_per_execution=per_call)
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)  # float16 has wrapped it
    delivered = job.delivered(model)
    keras_internals.keep_weights_after_fit(model.optimizer)  # the watcher swaps the averages in itself
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
    plan = _plan(run, config.resolve(max_time=max_time), job, state, steps_per_epoch, pace)
    within = state.step % steps_per_epoch
    if within and not state.finished and state.history and state.history[-1]["step"] == state.step:
        state.history.pop()  # the run ended within this epoch, which now goes on
        accumulators = []
    if state.history:
        run.write_rows("history.csv", state.history)  # it may be ahead of the checkpoint, or damaged
    watcher = Watcher(run, config, job, state, plan, pace, schedule, best_weights)
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
    validated = job.ensemble_size * job.validation_examples / job.examples
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
