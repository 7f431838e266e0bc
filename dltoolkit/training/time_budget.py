"""The number of steps of a training run: from ``--epochs``, or from ``--max-time`` and the measured speed."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

MEASURE_SECONDS = 3.0  # seconds after compilation in which steps are measured before the length is planned
RESERVE = 0.03  # fraction of the remaining time that is not planned, in case the machine becomes slower
REPLAN = 0.05  # the plan is made again if it would miss the end by more than this fraction of the maximum time
RECENT_STEPS = 500  # number of measurements from which the duration of a step is estimated


class TimeBudget:
    """A plan of the number of steps that respects a maximum time.

    Args:
        steps_per_epoch: Optimizer steps in an epoch.
        epochs: Maximum number of epochs, or None.
        max_seconds: Maximum time in seconds from :meth:`start` on, or None.
        validation_ratio: Examples validated per example trained in an epoch.
        clock: Returns the time in seconds.
        max_steps: Maximum number of steps if ``epochs`` is None.

    Attributes:
        steps: The planned number of steps; None before it is planned.
    """

    def __init__(
        self,
        steps_per_epoch: int,
        epochs: int | None,
        max_seconds: float | None,
        validation_ratio: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        max_steps: int | None = None,
    ):
        self._clock = clock
        self._steps_per_epoch = steps_per_epoch
        self._max_steps = max_steps if epochs is None else epochs * steps_per_epoch
        self._max_seconds = max_seconds
        self._validation_seconds = None if max_seconds is None else 0.0
        self._validation_ratio = validation_ratio
        self._durations: list[float] = []
        self.steps: int | None = self._max_steps if max_seconds is None else None

    @property
    def limit(self) -> int | None:
        """The number of steps at which training ends: the plan or, before it is made, the maximum; None if neither."""
        return self._max_steps if self.steps is None else self.steps

    @property
    def epochs(self) -> int | None:
        """The planned number of epochs, including an incomplete last one; None before it is planned."""
        return None if self.steps is None else max(1, math.ceil(self.steps / self._steps_per_epoch))

    @property
    def may_change(self) -> bool:
        """Whether the plan is made of measured durations, so that it may be made again."""
        return self._max_seconds is not None

    def start(self) -> None:
        """Start the clock. The maximum time includes everything from here on, also compilation."""
        self._start = self._last = self._clock()
        self._compiled: float | None = None
        needs_no_plan = self.steps is not None or self._max_seconds is None  # a resumed run keeps its plan
        self._next = math.inf if needs_no_plan else min(MEASURE_SECONDS, 0.05 * self._max_seconds)
        self._step = 0

    @property
    def long_compilation(self) -> float | None:
        """Seconds up to the end of the first step if they are more than half of the maximum time; None otherwise."""
        if self._max_seconds is None or self._compiled is None:
            return None
        seconds = self._compiled - self._start
        return seconds if seconds > self._max_seconds / 2 else None

    @property
    def out_of_time(self) -> bool:
        """Whether the maximum time has passed."""
        return self._max_seconds is not None and self._clock() - self._start >= self._max_seconds

    def seconds_left(self, step: int) -> float | None:
        """Return the estimated seconds from a step to the end, validations included; None without a maximum time."""
        return self._estimate(self.steps - step, step) if self.may_change and self.steps and self._durations else None

    def step_done(self, step: int) -> bool:
        """Record that training has reached a step, and return whether the plan has changed."""
        now = self._clock()
        seconds, self._last = now - self._last, now
        new_steps, self._step = step - self._step, step
        if self._max_seconds is None:
            return False
        if self._compiled is None:  # the first call includes the compilation
            self._compiled = now
            return False
        self._durations.append(seconds / max(1, new_steps))
        if now - self._compiled < self._next:
            return False
        self._next = 2 * (now - self._compiled)  # check again, because steps differ, for example with the text length
        if self.steps is None:
            if self._validation_seconds == 0.0:  # estimate a validation step, forward only, as a third of a step
                self._validation_seconds = (
                    statistics.median(self._durations) * self._steps_per_epoch * self._validation_ratio / 3
                )
            return self._make_plan(step)
        return self._replan_if_wrong(step)

    def validation_done(self, step: int, seconds: float) -> bool:
        """Record the duration of a validation, and return whether the plan has changed."""
        self._last = self._clock()
        if self._max_seconds is None or self.steps is None or not self._durations:
            return False
        self._validation_seconds = seconds
        return self._replan_if_wrong(step)

    def _replan_if_wrong(self, step: int) -> bool:
        remaining = self._max_seconds - (self._clock() - self._start)
        needed = self._estimate(self.steps - step, step)
        if abs(needed - remaining) <= REPLAN * self._max_seconds or step >= self.steps:
            return False
        return self._make_plan(step)

    def _estimate(self, steps: int, done: int) -> float:
        """Return the estimated seconds of further steps and their validations, after ``done`` steps."""
        validations = math.ceil((done + steps) / self._steps_per_epoch) - done // self._steps_per_epoch
        return steps * self._step_seconds() + validations * self._validation_seconds

    def _step_seconds(self) -> float:
        recent = self._durations[-RECENT_STEPS:]
        return sum(recent) / len(recent)

    def _make_plan(self, step: int) -> bool:
        remaining = (self._max_seconds - (self._clock() - self._start)) * (1 - RESERVE)
        epoch_seconds = self._steps_per_epoch * self._step_seconds() + self._validation_seconds
        steps = int(remaining / epoch_seconds * self._steps_per_epoch)
        while steps > 1 and self._estimate(steps, step) > remaining:
            steps -= max(1, steps // 100)
        planned = step + max(1, steps)
        old, self.steps = self.steps, planned if self._max_steps is None else min(planned, self._max_steps)
        return self.steps != old
