"""The training loop of all recipes: Keras' ``fit`` with exact resuming, a time budget and the best epoch kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dltoolkit import interrupt, progress
from dltoolkit.config import RunConfig
from dltoolkit.errors import UserError, WorkerLost
from dltoolkit.models import keras_internals, portable
from dltoolkit.run import Run
from dltoolkit.training import callbacks, checkpoint, custom_model, optimizer, selection
from dltoolkit.training.announcement import announce
from dltoolkit.training.checkpoint import TrainingState
from dltoolkit.training.distribute import replicas, strategy
from dltoolkit.training.distribute.strategy import Devices
from dltoolkit.training.shared_clock import SharedClock
from dltoolkit.training.time_budget import TimeBudget
from dltoolkit.training.train_spec import TrainSpec

NO_LIMIT = 10**9  # number of epochs for Keras; the callbacks stop training earlier
OUT_OF_MEMORY = (tf.errors.ResourceExhaustedError, MemoryError)
LESS_MEMORY = "use a smaller --batch-size or model, or smaller images or shorter texts"


def fit(
    run: Run, config: RunConfig, spec: TrainSpec, user_callbacks: Sequence[keras.callbacks.Callback] = ()
) -> keras.Model:
    """Train from the run's checkpoint, if it has one, or from the beginning, and return the model of the best epoch.

    The function writes history.csv, checkpoint/ and model.keras (the best epoch so far) while it trains, and the plan,
    the device and the times in run.json. If memory runs out, it tries half the batch size once.

    Args:
        run: The run.
        config: The options.
        spec: The training specification.
        user_callbacks: Callbacks of Keras that the user gives. If one of them stops training, the run is finished.

    Raises:
        UserError: If a callback cannot be used, the loss becomes NaN, memory runs out twice, or there are more replicas
            than examples in a batch.
        Interrupted: After SIGINT or SIGTERM, when everything is saved.
        NonChiefDone: On all workers except the chief, when training is done.
        WorkerLost: If another worker has ended.
    """
    custom_model.check_callbacks(user_callbacks)
    spec = replace(spec, callbacks=user_callbacks)
    batch_size = min(run.info.get("plan", {}).get("batch_size", config.batch_size), spec.train_examples)
    devices = strategy.devices(config.device)
    if devices.workers > 1:
        with _translated_worker_errors(run):
            return _fit(run, config, spec, devices, batch_size)
    try:
        return _fit(run, config, spec, devices, batch_size)
    except OUT_OF_MEMORY:
        if batch_size < 2:
            raise UserError(
                "Out of memory with a batch of one; use a smaller model, or smaller images or shorter texts."
            ) from None
        if checkpoint.list_checkpoints(run):
            raise UserError(
                f"Out of memory with batches of {batch_size}, the batch size of this run: free some memory and resume, "
                "or train a new run with a smaller --batch-size."
            ) from None
    run.info.get("plan", {}).pop("steps", None)
    progress.warn(f"Out of memory with batches of {batch_size}; trying {batch_size // 2}.")
    keras.utils.clear_session()
    try:
        return _fit(run, config, spec, devices, batch_size // 2)
    except OUT_OF_MEMORY:
        raise UserError(f"Out of memory even with batches of {batch_size // 2}; {LESS_MEMORY}.") from None


@contextlib.contextmanager
def _translated_worker_errors(run: Run) -> Iterator[None]:
    """Raise errors of workers that users understand, and end all workers except the chief after training."""
    try:
        yield
    except OUT_OF_MEMORY:
        raise UserError(f"Out of memory; {LESS_MEMORY}.") from None
    except (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.InternalError,
    ) as error:
        raise WorkerLost(run.resume_command) from error
    run.chief_only()


@dataclass(frozen=True)
class _Setup:
    """A compiled model and the sizes with which it is trained."""

    devices: Devices
    model: keras.Model
    schedule: optimizer.WarmupCosine
    batch_size: int
    validation_batch_size: int
    steps_per_epoch: int
    steps_per_execution: int
    precision: str
    xla: bool


def _fit(run: Run, config: RunConfig, spec: TrainSpec, devices: Devices, batch_size: int) -> keras.Model:
    # a resumed run keeps the length of its epochs, at whose ends it has stopped
    steps_per_execution = run.info.get("plan", {}).get("steps_per_execution")
    setup = _set_up(config, spec, devices, batch_size, steps_per_execution)
    inference_model = spec.inference_model(setup.model)
    _record_setup(run, config, spec, setup, inference_model)

    clock = SharedClock(devices)
    max_time, state, best_weights, metric_values = _restore(run, config, setup, clock)
    budget = _make_budget(run, config.resolve(max_time=max_time), spec, state, setup.steps_per_epoch, clock)
    if state.step % setup.steps_per_epoch and not state.finished and _last_epoch_was_cut_short(state):
        state.history.pop()
        metric_values = {}
    if state.history:
        run.write_rows("history.csv", state.history)  # the file may be newer than the checkpoint, or damaged

    trainer = callbacks.TrainingStateCallback(
        run, spec, state, budget, clock, setup.schedule, config.optimizer, best_weights
    )
    display = callbacks.ProgressDisplay(state, budget, setup.steps_per_epoch, spec.monitor)
    announce(run, config, spec, budget, setup.steps_per_epoch, inference_model)
    all_callbacks = [
        callbacks.StopOnNaN(),
        callbacks.HistoryCSV(run, state, setup.schedule, clock),
        callbacks.TensorBoardScalars(run),
        display,
        callbacks.EpochEndCallback(run, spec, state, clock),
        callbacks.Patience(config.patience, spec.monitor, state),
        *spec.callbacks,
        trainer,  # last, so that checkpoints contain the changes of the others
    ]
    with contextlib.closing(display), interrupt.deferred():
        _train(spec, setup, state, trainer, all_callbacks, metric_values)

    setup.model.set_weights(trainer.best_weights)
    # built outside the strategy's scope, so that it predicts on one device
    result = portable.to_keras_layers(inference_model)
    run.save_model(result)
    result.jit_compile = False
    return result


@progress.phase("Building the model")
def _set_up(
    config: RunConfig, spec: TrainSpec, devices: Devices, batch_size: int, steps_per_execution: int | None = None
) -> _Setup:
    """Set the precision and the seed, and build and compile the model in the strategy's scope."""
    xla = strategy.use_xla(config.xla, devices, xla_on_cpu=spec.xla_on_cpu, variable_shapes=spec.variable_shapes)
    precision = strategy.set_precision(config.precision, devices, xla=xla)
    batch_size = strategy.shared_batch_size(batch_size, devices, spec.ensemble_size)
    steps_per_epoch = max(1, spec.train_examples // batch_size)
    steps_per_execution = steps_per_execution or _steps_per_execution(config, spec, steps_per_epoch)
    steps_per_epoch -= steps_per_epoch % steps_per_execution
    validation_batch_size = replicas.batch_size_for_replicas(
        max(batch_size, spec.validation_batch_size), spec.validation_examples, devices.replicas
    )
    keras.utils.set_random_seed(config.seed)
    with devices.strategy.scope():
        model = spec.build_model()
        if spec.validation_views:
            model = replicas.to_strategy_scope(model, devices)  # a copy would not keep the changed class
            model = selection.validate_views(model, spec.validation_views)
        model = replicas.wrap_for_strategy(model, devices, xla=xla)
        if xla and devices.mirrored and not model.compiled_by_xla:
            progress.note("XLA is off, because the replicas of this network exchange more than gradients.")
            xla = False
        jit_compile = xla and devices.replicas == 1 and devices.kind != "tpu"  # a TPU always compiles
        schedule = spec.compile(
            model,
            config,
            batch_size,
            jit_compile=jit_compile,
            steps_per_execution=1 if devices.mirrored else steps_per_execution,
        )
        if not model.optimizer.built:  # a loss scaling optimizer, which Keras adds for float16, is not built
            model.optimizer.build(model.trainable_variables)
    keras_internals.keep_weights_after_fit(model.optimizer)  # the callback swaps in the averages for validation
    return _Setup(
        *(devices, model, schedule, batch_size, validation_batch_size),
        *(steps_per_epoch, steps_per_execution, precision, xla),
    )


def _steps_per_execution(config: RunConfig, spec: TrainSpec, steps_per_epoch: int) -> int:
    """Return the steps of one call of the training function: a divisor of the maximum, so that training ends there."""
    most = min(spec.steps_per_execution, steps_per_epoch)
    if config.epochs or not spec.max_steps:
        return most
    return next(steps for steps in range(most, 0, -1) if spec.max_steps % steps == 0)


def _record_setup(run: Run, config: RunConfig, spec: TrainSpec, setup: _Setup, inference_model: keras.Model) -> None:
    plan = {name: getattr(setup, name) for name in ("batch_size", "steps_per_epoch", "steps_per_execution")}
    plan |= {"monitor": spec.monitor, "patience": config.patience}
    run.update(
        state="running",
        device={
            "kind": setup.devices.kind,
            "replicas": setup.devices.replicas,
            "workers": setup.devices.workers,
            "precision": setup.precision,
            "xla": setup.xla,
        },
        plan=plan,
        model={
            "name": inference_model.name,
            # a recipe may train a part of the network that it saves, or save a part of the one that it trains
            "parameters": max(setup.model.count_params(), inference_model.count_params()),
            "input_shape": list(inference_model.inputs[0].shape[1:]),
        },
    )


def _restore(run: Run, config: RunConfig, setup: _Setup, clock: SharedClock) -> tuple[Any, ...]:
    """Restore the newest checkpoint on all workers.

    Returns:
        ``max_time``, the state, the best weights (or None) and the metric variables of an interrupted epoch. All are
        the chief's, because the ``--max-time`` of the workers may differ.
    """
    restored = checkpoint.restore(run, setup.model) if run.writes else None
    start = config.max_time, *(restored or (TrainingState(), None, {}))
    return _copy_from_chief(clock, run, setup.model, start)


def _copy_from_chief(clock: SharedClock, run: Run, model: keras.Model, start: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the chief's ``start``, and assign the chief's values to the variables of all workers.

    Raises:
        UserError: On a worker that was started with other options or data than the chief.
    """
    if clock.single_worker:
        return start
    optimizers = optimizer.all_optimizers(model)
    variables = [*model.variables, *(variable for each in optimizers for variable in each.variables)]
    data = {key: run.info.get("data", {}).get(key) for key in ("fingerprint", "splits")}
    setting = {**run.info["config"], **run.info["device"], **data, "batch_size": run.info["plan"]["batch_size"]}
    may_differ = ("data", "name", "out_dir")  # paths, which depend on the machine
    values = [np.asarray(variable) for variable in variables]
    chief_setting, start, values = clock.broadcast_object((setting, start, values))
    differing = [key for key, value in setting.items() if key not in may_differ and value != chief_setting.get(key)]
    if differing:
        raise UserError(
            f"The {', '.join(differing)} of this worker and of the chief differ: give all workers the same command and "
            "data."
        )
    if not run.writes:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
    return start


def _make_budget(
    run: Run, config: RunConfig, spec: TrainSpec, state: TrainingState, steps_per_epoch: int, clock: SharedClock
) -> TimeBudget:
    """Plan the number of steps. A resumed run follows its plan, however long it takes, unless a new length is given."""
    planned = run.info["plan"].get("steps")
    epochs = config.epochs or (None if config.max_time or spec.max_steps else spec.epochs)
    max_seconds = None
    if planned is None and config.max_time:
        max_seconds = max(1.0, config.max_time - (state.seconds if state.planned_steps is None else 0.0))
    ratio = spec.ensemble_size * spec.validation_examples / spec.train_examples
    budget = TimeBudget(steps_per_epoch, epochs, max_seconds, ratio, clock=clock.now, max_steps=spec.max_steps)
    budget.steps = planned or budget.steps
    if state.finished and state.planned_steps != planned:
        state.finished, state.stale_epochs = False, 0
    if planned is None and state.planned_steps not in (None, budget.steps):
        progress.note(
            f"The learning rate of the first {state.step:,} steps was planned for {state.planned_steps:,} steps, so "
            "the result is not exactly that of a run that was planned for the new length from the start."
        )
    return budget


def _last_epoch_was_cut_short(state: TrainingState) -> bool:
    """Return whether the last row of the history belongs to an incomplete epoch, which training now continues."""
    return bool(state.history) and state.history[-1]["step"] == state.step


def _train(
    spec: TrainSpec,
    setup: _Setup,
    state: TrainingState,
    trainer: callbacks.TrainingStateCallback,
    all_callbacks: list[keras.callbacks.Callback],
    metric_values: dict[str, np.ndarray],
) -> None:
    """Train until the state is finished. An interrupted epoch is completed in a call of ``fit`` of its own."""
    model, validation = setup.model, spec.validation(setup.validation_batch_size)
    while not state.finished:
        epoch, done = divmod(state.step, setup.steps_per_epoch)
        if done:
            keras_internals.create_metric_variables(model, next(iter(spec.batches(setup.batch_size, state.step))))
            trainer.resume_epoch(metric_values)
        model.fit(
            replicas.distribute_dataset(spec.batches(setup.batch_size, state.step), setup.devices),
            validation_data=replicas.distribute_dataset(validation, setup.devices),
            validation_steps=max(0, int(validation.cardinality())) or None,
            initial_epoch=epoch,
            epochs=epoch + 1 if done else NO_LIMIT,
            steps_per_epoch=setup.steps_per_epoch - done,
            callbacks=all_callbacks,
            shuffle=False,  # the batches are shuffled already
            verbose=0,
        )
