"""A time limit for the small networks that are trained for comparison."""

from __future__ import annotations

import time
from typing import Any

import keras

from dltoolkit.training.optimizer import WarmupCosine

MIN_STEPS = 100  # training steps for which the limit is exceeded, because fewer teach a network nothing
MEASURED_EXECUTIONS = 3  # calls of the compiled function after the first, by which the time of a step is estimated


class TimeLimit(keras.callbacks.Callback):
    """A callback that shortens a training, and the schedule of its learning rate, to fit a time limit.

    The number of steps is decided once, after the first steps have been measured.

    Args:
        schedule: The schedule, whose length is the planned number of steps.
        max_seconds: Time limit in seconds, compilation included; None for no limit.
    """

    def __init__(self, schedule: WarmupCosine, max_seconds: float | None):
        super().__init__()
        self._schedule, self._max_seconds = schedule, max_seconds
        self._planned = schedule.steps
        self._executions: list[tuple[float, int]] = []  # time and number of steps done

    @property
    def limited_steps(self) -> int | None:
        """The number of steps if the limit has reduced it, otherwise None."""
        return self._schedule.steps if self._schedule.steps < self._planned else None

    def on_train_begin(self, logs: Any = None) -> None:
        self._start = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._max_seconds is None:
            return
        done = batch + 1
        if len(self._executions) <= MEASURED_EXECUTIONS:
            self._executions.append((time.monotonic(), done))
            if len(self._executions) > MEASURED_EXECUTIONS:
                self._shorten()
        if len(self._executions) > MEASURED_EXECUTIONS and done >= self._schedule.steps:
            self.model.stop_training = True

    def _shorten(self) -> None:
        (first, first_done), (now, done) = self._executions[0], self._executions[-1]
        step_seconds = (now - first) / (done - first_done)
        affordable = done + int((self._max_seconds - (now - self._start)) / step_seconds)
        self._schedule.steps = min(self._planned, max(MIN_STEPS, done, affordable))
