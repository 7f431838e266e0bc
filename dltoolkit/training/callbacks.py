"""The callbacks of a training run.

:class:`TrainingStateCallback` keeps everything that a run needs to be resumed as if it had never stopped. The other
callbacks are small, and read the state that it keeps.
"""

from __future__ import annotations

import importlib.util
import math
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dltoolkit import interrupt, progress
from dltoolkit.errors import UserError
from dltoolkit.formatting import counted
from dltoolkit.run import Run
from dltoolkit.training import checkpoint, optimizer
from dltoolkit.training.checkpoint import TrainingState
from dltoolkit.training.shared_clock import SharedClock
from dltoolkit.training.time_budget import TimeBudget
from dltoolkit.training.train_spec import TrainSpec

CHECKPOINT_SECONDS = 60.0  # seconds after which a checkpoint is written within an epoch and not only at its end
MAX_CHECKPOINT_SHARE = 0.01  # maximum fraction of the time spent on checkpoints, except the last one
ANNOUNCE_SECONDS = 3.0  # seconds after compilation in which steps are measured before the rest is estimated
EXPECTED_SECONDS = 0.1  # assumed duration of a checkpoint before the first has been measured


class StopOnNaN(keras.callbacks.Callback):
    """A callback that ends training with a helpful error when the loss is not finite."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not math.isfinite(logs["loss"]):
            raise UserError(
                f"The loss became {logs['loss']} in epoch {self._epoch}; "
                "try a lower --learning-rate, or --precision=float32."
            )


class HistoryCSV(keras.callbacks.Callback):
    """A callback that appends a row to the history after each epoch, and writes history.csv."""

    def __init__(self, run: Run, state: TrainingState, schedule: optimizer.WarmupCosine, clock: SharedClock):
        super().__init__()
        self._run, self._state, self._schedule, self._clock = run, state, schedule, clock

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._start = self._clock.now()

    def on_test_begin(self, logs: Any = None) -> None:
        # The end of the validation may change the plan, and with it the schedule.
        self._learning_rate = float(f"{float(self._schedule(self._state.step - 1)):.6g}")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        state = self._state
        metrics = {name: round(float(value), 6) for name, value in _history_columns(logs).items()}
        times = {"learning_rate": self._learning_rate, "seconds": round(self._clock.now() - self._start, 2)}
        row = {"epoch": epoch + 1, "step": state.step, **metrics, **times}
        if state.history and state.history[0].keys() != row.keys():
            raise UserError(
                f"The checkpoint that {self._run.path} was resumed from has other columns of history.csv than this "
                "training: train a new run."
            )
        state.history.append(row)
        self._run.write_rows("history.csv", state.history)


class TensorBoardScalars(keras.callbacks.Callback):
    """A callback that writes the metrics of each epoch for TensorBoard, if the package tensorboard is installed.

    TensorFlow needs the package to write the files.
    """

    def __init__(self, run: Run):
        super().__init__()
        self._writer = None
        if run.writes and importlib.util.find_spec("tensorboard"):
            self._writer = tf.summary.create_file_writer(str(run.path / "tensorboard"))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._writer:
            with self._writer.as_default(step=epoch + 1):
                for name, value in _history_columns(logs).items():
                    tf.summary.scalar(name, value)


class ProgressDisplay(keras.callbacks.Callback):
    """A callback that shows the progress of each epoch, and its metrics when it is done."""

    def __init__(self, state: TrainingState, budget: TimeBudget, steps_per_epoch: int, monitor: str):
        super().__init__()
        self._state, self._budget, self._steps_per_epoch, self._monitor = state, budget, steps_per_epoch, monitor
        self._display = progress.EpochDisplay()
        self._first: tuple[float, int] | None = None  # time and number of the first step, which includes compilation
        self._announced: int | None = None  # the planned steps that were printed
        self._validated = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._steps_before = self._steps_per_epoch - self.params["steps"]  # steps of a resumed epoch that were done
        self._display.start(epoch + 1, self._budget.epochs, self._steps_per_epoch, estimated=self._is_estimate)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._display.step(self._steps_before + batch + 1, logs)
        self._announce_length()

    def on_test_begin(self, logs: Any = None) -> None:
        self._display.validating(self._steps_per_epoch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._validated = True
        self._announce_length()
        is_best, options = self._state.stale_epochs == 0, {"monitor": self._monitor, "estimated": self._is_estimate}
        self._display.end(epoch + 1, self._budget.epochs, self._state.history[-1], is_best, **options)

    @property
    def _is_estimate(self) -> bool:
        return self._budget.may_change and self._announced is None and not self._state.finished

    def _announce_length(self) -> None:
        """Print the planned length when the first steps have been measured, and whenever it changes after that."""
        now, step, steps = time.monotonic(), self._state.step, self._budget.steps
        self._first = self._first or (now, step)
        start, first_step = self._first
        if self._state.finished or steps in (None, self._announced):
            return
        if now - start < ANNOUNCE_SECONDS or step <= first_step:
            return
        length = f"{counted(self._budget.epochs, 'epoch')}, {counted(steps, 'step')} in total"
        seconds = self._budget.seconds_left(step)
        if self._announced is not None:
            message = f"Planned again, because the speed has changed: {length}"
        elif seconds is not None:
            message = f"Planned: {length}; about {progress.rough_duration(seconds)} of training left"
        else:
            seconds = (now - start) / (step - first_step) * (steps - step)
            validations = "" if self._validated else ", and the validations"
            message = f"Planned: {length}; about {progress.rough_duration(seconds)} of training left{validations}"
        progress.note(f"{message}.")
        self._announced = steps

    def close(self) -> None:
        """Remove the progress bar."""
        self._display.close()


class EpochEndCallback(keras.callbacks.Callback):
    """A callback that calls ``TrainSpec.on_epoch_end`` on the chief; if it returns True, all workers stop training."""

    def __init__(self, run: Run, spec: TrainSpec, state: TrainingState, clock: SharedClock):
        super().__init__()
        self._function = spec.on_epoch_end if run.writes else None
        self._state, self._clock = state, clock

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        stop = bool(self._function and self._function(self.model, epoch + 1))
        if self._clock.broadcast([stop])[0]:
            self._state.finished = self.model.stop_training = True


class Patience(keras.callbacks.Callback):
    """A callback that stops training after a number of epochs without improvement; 0 for no limit."""

    def __init__(self, patience: int, monitor: str, state: TrainingState):
        super().__init__()
        self._patience, self._monitor, self._state = patience, monitor, state

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._patience and self._state.stale_epochs >= self._patience:
            better = f"{'lower' if lower_is_better(self._monitor) else 'higher'} {self._monitor.replace('_', ' ')}"
            progress.note(
                f"Training stops after epoch {epoch + 1}: no {better} for {counted(self._patience, 'epoch')} "
                f"(--patience={self._patience})."
            )
            self._state.finished = self.model.stop_training = True


class TrainingStateCallback(keras.callbacks.Callback):
    """A callback that counts the steps, follows the time budget, keeps the best weights and writes checkpoints.

    It must be the last callback, so that checkpoints contain the changes of the others in the state.

    Args:
        run: The run.
        spec: The training specification.
        state: The state, which this callback updates.
        budget: The plan of the number of steps.
        clock: The clock of all workers.
        schedule: The learning rate schedule, whose length this callback sets.
        optimizer_name: Name of the optimizer, for run.json.
        best_weights: Weights of the best epoch so far, or None.

    Attributes:
        best_weights: Weights of the best epoch so far, or None.
    """

    def __init__(
        self,
        run: Run,
        spec: TrainSpec,
        state: TrainingState,
        budget: TimeBudget,
        clock: SharedClock,
        schedule: optimizer.WarmupCosine,
        optimizer_name: str,
        best_weights: list[np.ndarray] | None,
    ):
        super().__init__()
        self._run, self._spec, self._state = run, spec, state
        self._budget, self._clock, self._schedule = budget, clock, schedule
        self._optimizer_name = optimizer_name
        self.best_weights = best_weights
        self._best_is_saved = best_weights is None
        self._ema, self._compilation_reported = None, False
        self._seconds_before = state.seconds
        self._last_save, self._save_seconds = clock.now(), EXPECTED_SECONDS
        self._metric_values: dict[str, np.ndarray] = {}
        if budget.steps is not None and state.step >= budget.steps and best_weights is not None:
            state.finished = True
        budget.start()
        self._start = clock.now()
        self._follow_plan()
        self._record_plan()

    def resume_epoch(self, metric_values: dict[str, np.ndarray]) -> None:
        """Set the values that the metric variables get at the beginning of the next epoch."""
        self._metric_values = metric_values

    def on_train_begin(self, logs: Any = None) -> None:
        if getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer).use_ema:
            self._ema = keras.callbacks.SwapEMAWeights()
            self._ema.set_model(self.model)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self._metric_values:
            checkpoint.assign(self.model.metrics_variables, self._metric_values)
        self._metric_values = {}
        self._done = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        state = self._state
        state.step += batch + 1 - self._done
        self._done = batch + 1
        synchronized = self._clock.synchronize(state.step)
        if synchronized and self._budget.step_done(state.step):
            self._follow_plan()
        if self._budget.long_compilation and not self._compilation_reported:
            self._report_compilation(self._budget.long_compilation)
        if self._budget.out_of_time and self._budget.steps is None:  # the time is over before the first plan
            self._budget.steps = state.step
            self._follow_plan()
        if self._budget.limit is not None and state.step >= self._budget.limit:
            self._budget.steps = self._budget.limit  # it may be reached before the plan is made
            self._follow_plan()
        if state.step >= (self._budget.limit or math.inf) or self._budget.out_of_time:
            state.finished = self.model.stop_training = True
        if self.model.stop_training or batch + 1 == self.params["steps"]:
            return  # the validation comes before the checkpoint
        if synchronized:
            self._save_or_stop()

    def on_test_begin(self, logs: Any = None) -> None:
        self._clock.synchronize(self._state.step, force=True)
        self._validation_start = self._clock.now()
        if self._ema:
            self._ema.on_test_begin()

    def on_test_end(self, logs: Any = None) -> None:
        state, score = self._state, logs[self._spec.monitor.removeprefix("validation_")]
        is_lower_better = lower_is_better(self._spec.monitor)
        scores = self._clock.broadcast((-score if is_lower_better else score, -logs.get("loss", 0.0)))
        if state.best_score is None or scores > state.best_score:
            state.best_score, state.stale_epochs = scores, 0
            self.best_weights = self.model.get_weights()  # the moving averages of the weights, if there are any
            self._best_is_saved = False
        else:
            state.stale_epochs += 1
        if self._ema:
            self._ema.on_test_end()
        self._clock.synchronize(state.step, force=True)
        if self._budget.validation_done(state.step, self._clock.now() - self._validation_start):
            self._follow_plan()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.model.stop_training:  # also by a callback of the program that trains
            self._state.finished = True
        self._save_or_stop(epoch_ended=True)

    def _follow_plan(self) -> None:
        if self._budget.limit is not None:
            self._schedule.steps = self._budget.limit
        if self._budget.steps is not None:
            self._state.planned_steps = self._budget.steps

    def _report_compilation(self, seconds: float) -> None:
        """Print that compilation took most of the maximum time, and write its duration to run.json."""
        self._compilation_reported = True
        self._run.update(plan={"compile_seconds": round(seconds, 2)})
        xla = ", or --xla=off, which compiles faster" if self._run.info["device"]["xla"] else ""
        before = self._spec.seconds_before
        limit = f"what the {progress.duration(before)} before left of --max-time" if before else "--max-time"
        progress.note(
            f"Compilation and the first steps took {progress.duration(seconds)}, more than half of {limit}: the "
            f"model may be hardly trained. Give a longer --max-time{xla}."
        )

    def _record_plan(self) -> None:
        """Write a new plan to run.json. After a change of the plan, the checkpoint must be written before."""
        if self._budget.steps not in (None, self._run.info["plan"].get("steps")):
            self._run.update(
                plan={"epochs": self._budget.epochs, "steps": self._budget.steps},
                optimizer={"name": self._optimizer_name, "learning_rate": self._schedule.peak_for_length},
            )

    def _save_or_stop(self, *, epoch_ended: bool = False) -> None:
        """Write a checkpoint if it is time for one. After a signal, write one and raise the signal's exception."""
        signal, since_save = self._clock.signal(), self._clock.now() - self._last_save
        plan_changed = self._budget.steps != self._run.info["plan"].get("steps")
        is_due = epoch_ended or since_save > CHECKPOINT_SECONDS
        if self._state.finished or signal is not None:
            self._save()
            seconds = self._spec.seconds_before + self._state.seconds
            self._run.update(time={"train_seconds": round(seconds, 2)})
        elif plan_changed or (is_due and since_save > self._save_seconds / MAX_CHECKPOINT_SHARE):
            self._save()
        if signal is not None:
            raise interrupt.Interrupted(signal)

    def _save(self) -> None:
        """Write a checkpoint, and the model of the best epoch if it is a new one."""
        start = time.monotonic()
        self._state.seconds = self._seconds_before + self._clock.now() - self._start
        checkpoint.save(self._run, self._state, self.model, self.best_weights)
        self._record_plan()
        if not self._best_is_saved and not self._state.finished:
            current = self.model.get_weights()
            self.model.set_weights(self.best_weights)
            self._run.save_model(self._spec.inference_model(self.model))
            self.model.set_weights(current)
            self._best_is_saved = True
        self._last_save = self._clock.now()
        (self._save_seconds,) = self._clock.broadcast([time.monotonic() - start])


def lower_is_better(monitor: str) -> bool:
    """Return whether lower values are better in this column of history.csv: losses and distances."""
    return monitor.endswith(("loss", "distance"))


def _history_columns(logs: dict[str, float]) -> dict[str, float]:
    """Return logs by the column names of history.csv."""
    return {name.replace("val_", "validation_"): value for name, value in logs.items()}
