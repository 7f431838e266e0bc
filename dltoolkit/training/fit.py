"""The one training loop: Keras' ``fit``, watched by a callback that plans, records and keeps the best epoch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

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
from dltoolkit.training.shared_clock import SharedClock
from dltoolkit.training.time_budget import TimeBudget
from dltoolkit.training.train_spec import TrainSpec

FOREVER = 10**9  # epochs for Keras; the plan says when to stop


def fit(run: Run, config: RunConfig, spec: TrainSpec) -> keras.Model:
    """Train, going on from the run's checkpoint if it has one, and return the model of the best epoch.

    Writes history.csv, checkpoint/ and model.keras (the best epoch so far) as it goes, and run.json's plan, device and
    times. When memory runs out, the batch size is halved once.

    Raises:
        UserError: if the loss becomes NaN, memory runs out twice, or there are more replicas than examples in a batch.
        Interrupted: after SIGINT or SIGTERM, when all is saved.
        NonChiefDone: on all workers but the chief, when training is done.
        WorkerLost: if another worker is gone.
    """
    batch_size = min(run.info.get("plan", {}).get("batch_size", config.batch_size), spec.train_examples)
    devices = strategy.devices(config.device)
    if devices.workers > 1:
        with _together(run):
            return _fit(run, config, spec, devices, batch_size)
    try:
        return _fit(run, config, spec, devices, batch_size)
    except (tf.errors.ResourceExhaustedError, MemoryError):
        if batch_size < 2:
            raise UserError(
                "Out of memory with a batch of one; use a smaller model, or smaller pictures or shorter texts."
            ) from None
        if checkpoint.list_checkpoints(run):
            raise UserError(
                f"Out of memory with batches of {batch_size}, with which this run has begun: free some memory and "
                f"go on, or train a new run with a smaller --batch-size."
            ) from None
    run.info.get("plan", {}).pop("steps", None)
    progress.warn(f"Out of memory with batches of {batch_size}; trying {batch_size // 2}.")
    keras.utils.clear_session()
    try:
        return _fit(run, config, spec, devices, batch_size // 2)
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


def _fit(run: Run, config: RunConfig, spec: TrainSpec, devices: Devices, batch_size: int) -> keras.Model:
    compiled = strategy.xla(config.xla, devices, on_cpu=spec.xla_on_cpu, varying=spec.variable_shapes)
    number_format = strategy.precision(config.precision, devices, compiled=compiled)
    batch_size = strategy.shared_batch(batch_size, devices, spec.ensemble_size)
    steps_per_epoch = max(1, spec.train_examples // batch_size)
    per_call = min(spec.steps_per_execution, steps_per_epoch)
    steps_per_epoch -= steps_per_epoch % per_call
    per_call = 1 if devices.mirrored else per_call
    validation_size = max(batch_size, spec.validation_batch_size)
    validation_size = distributed.batch_size_for_replicas(validation_size, spec.validation_examples, devices.replicas)
    keras.utils.set_random_seed(config.seed)
    with devices.strategy.scope():
        model = distributed.wrap_for_strategy(spec.build_model(), devices, compiled=compiled)
        if compiled and devices.mirrored and not model.compiled_by_xla:
            progress.note("On several replicas a network that shares more than gradients trains without XLA.")
            compiled = False
        at_once = compiled and devices.replicas == 1 and devices.kind != "tpu"  # which compiles by itself
        schedule = spec.compile(model, config, batch_size, jit_compile=at_once, steps_per_execution=per_call)
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)  # float16 has wrapped it
    delivered = spec.inference_model(model)
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

    pace = SharedClock(devices)
    restored = checkpoint.restore(run, model) if run.writes else None
    standing = config.max_time, *(restored or (checkpoint.State(), None, []))
    max_time, state, best_weights, accumulators = _as_chief(pace, run, model, standing)
    plan = _plan(run, config.resolve(max_time=max_time), spec, state, steps_per_epoch, pace)
    within = state.step % steps_per_epoch
    if within and not state.finished and state.history and state.history[-1]["step"] == state.step:
        state.history.pop()  # the run ended within this epoch, which now goes on
        accumulators = []
    if state.history:
        run.write_rows("history.csv", state.history)  # it may be ahead of the checkpoint, or damaged
    watcher = Watcher(run, config, spec, state, plan, pace, schedule, best_weights)
    validation = spec.validation(validation_size)
    with contextlib.closing(watcher), interrupt.deferred():
        while not state.finished:
            epoch, within = divmod(state.step, steps_per_epoch)
            if within:
                model.test_on_batch(*next(iter(validation)))  # makes the metrics' variables
            watcher.resume_epoch(within, accumulators if within else [])
            model.fit(
                distributed.distribute_dataset(spec.batches(batch_size, state.step), devices),
                validation_data=distributed.distribute_dataset(validation, devices),
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


def _plan(run: Run, config: RunConfig, spec: TrainSpec, state: checkpoint.State, steps_per_epoch: int, pace: SharedClock) -> TimeBudget:
    """A resumed run follows its plan, whatever time it took, unless another length was asked for."""
    planned = run.info["plan"].get("steps")
    epochs = config.epochs or (None if config.max_time or spec.max_steps else spec.epochs)
    max_seconds = None
    if planned is None and config.max_time:
        max_seconds = max(1.0, config.max_time - (state.seconds if state.planned is None else 0.0))
    validated = spec.ensemble_size * spec.validation_examples / spec.train_examples
    plan = TimeBudget(steps_per_epoch, epochs, max_seconds, validated, clock=pace.now, bound=spec.max_steps)
    plan.steps = planned or plan.steps
    if state.finished and state.planned != planned:
        state.finished, state.stale_epochs = False, 0
    if planned is None and state.planned not in (None, plan.steps):
        progress.note(
            f"The learning rate of the {state.step:,} steps so far was planned for {state.planned:,}, so the result is "
            "not quite that of training for the new length from the start."
        )
    return plan


def _as_chief(pace: SharedClock, run: Run, model: keras.Model, standing: tuple) -> tuple:
    """Let all workers begin where the chief stands, with its weights; return its standing.

    Raises:
        UserError: on a worker that was started with other options or data.
    """
    if pace.alone:
        return standing
    variables = [*model.variables, *(variable for each in optimizer.all_optimizers(model) for variable in each.variables)]
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
