"""What happens around the steps of a training: its plan, history, best epoch, checkpoints and end."""

from __future__ import annotations

import importlib.util
import math
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dltoolkit import interrupt, progress
from dltoolkit.config import RunConfig
from dltoolkit.errors import UserError
from dltoolkit.run import Run
from dltoolkit.training import checkpoint, optimizer
from dltoolkit.training.shared_clock import SharedClock
from dltoolkit.training.time_budget import TimeBudget
from dltoolkit.training.train_spec import TrainSpec

CHECKPOINT_SECONDS = 60.0  # after which a checkpoint is written within an epoch, not only at its end
CHECKPOINT_SHARE = 0.01  # of the time, at most, that goes into checkpoints, beside the last one
EXPECTED_SECONDS = 0.1  # that a checkpoint takes, before the first has shown it


class Watcher(keras.callbacks.Callback):
    """Everything that happens around the steps, in the order in which it must happen."""

    def __init__(
        self,
        run: Run,
        config: RunConfig,
        spec: TrainSpec,
        state: checkpoint.State,
        plan: TimeBudget,
        pace: SharedClock,
        schedule: optimizer.WarmupCosine,
        best_weights: list[np.ndarray] | None,
    ):
        super().__init__()
        self._run, self._config, self._spec, self._state = run, config, spec, state
        self._plan, self._pace, self._schedule = plan, pace, schedule
        self.best_weights = best_weights
        self._best_is_saved = best_weights is None
        self._display = progress.EpochDisplay()
        self._ema = None
        self._summary = None
        if run.writes and importlib.util.find_spec("tensorboard"):  # TensorFlow needs it to write what it reads
            self._summary = tf.summary.create_file_writer(str(run.path / "tensorboard"))
        self._seconds_before = state.seconds
        self._saved, self._saving_took = pace.now(), EXPECTED_SECONDS
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
        score = logs[self._spec.monitor.removeprefix("validation_")]
        falling = self._spec.monitor.endswith(("loss", "distance"))
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
        stops = bool(self._spec.on_epoch_end and self._run.writes and self._spec.on_epoch_end(self.model, epoch + 1))
        if self._pace.of_chief([stops])[0]:
            self._finish()
        self._within, self._accumulators = 0, []
        patience = self._config.patience
        if patience and state.stale_epochs >= patience:
            progress.note(f"No better {self._spec.monitor.replace('_', ' ')} for {patience} epochs: stopping here.")
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
            self._run.save_model(self._spec.inference_model(self.model))
            self.model.set_weights(current)
            self._best_is_saved = True
        if everything:
            self._run.update(time={"train_seconds": round(self._spec.seconds_before + self._state.seconds, 2)})
        self._saved = self._pace.now()
        (self._saving_took,) = self._pace.of_chief([time.monotonic() - began])
