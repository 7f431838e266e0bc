"""How long a run is, in steps: from ``--epochs``, or from ``--max-time`` and the step time of the first seconds."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

MEASURE_SECONDS = 3.0  # after compilation, before the length is planned
RESERVE = 0.03  # of the time left, kept for a machine that slows down
REPLAN = 0.05  # a plan that would miss the end by more than this share of the whole time is made again


class TimeBudget:
    """Plans the number of steps and follows the clock.

    Args:
        steps_per_epoch: optimizer steps in an epoch.
        epochs: at most this many epochs; None for no bound.
        max_seconds: at most this long from :meth:`start` on; None for no bound.
        validation_share: examples validated per example trained in an epoch.
        clock: gives the time in seconds.
        bound: at most this many steps, in place of ``epochs``.
    """

    def __init__(
        self,
        steps_per_epoch: int,
        epochs: int | None,
        max_seconds: float | None,
        validation_share: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        bound: int | None = None,
    ):
        self._clock = clock
        self._per_epoch = steps_per_epoch
        self._bound = bound if epochs is None else epochs * steps_per_epoch
        self._max_seconds = max_seconds
        self._validation_seconds = None if max_seconds is None else 0.0
        self._validation_share = validation_share
        self._durations: list[float] = []
        self.steps: int | None = self._bound if max_seconds is None else None

    @property
    def epochs(self) -> int | None:
        """The planned number of epochs, the last one perhaps cut short; None before the plan is made."""
        return None if self.steps is None else max(1, math.ceil(self.steps / self._per_epoch))

    def start(self) -> None:
        """Start the clock: from here on, all counts, compilation included."""
        self._began = self._last = self._clock()
        self._compiled: float | None = None
        planned = self.steps is not None or self._max_seconds is None  # a run that goes on keeps its plan
        self._next = math.inf if planned else min(MEASURE_SECONDS, 0.05 * self._max_seconds)
        self._step = 0

    @property
    def out_of_time(self) -> bool:
        """Whether ``max_seconds`` have passed."""
        return self._max_seconds is not None and self._clock() - self._began >= self._max_seconds

    def step_done(self, step: int) -> bool:
        """Take note of a step; return True when a plan was made (or made again) that the caller should follow."""
        now = self._clock()
        took, self._last = now - self._last, now
        new, self._step = step - self._step, step
        if self._max_seconds is None:
            return False
        if self._compiled is None:  # the first step held the compilation
            self._compiled = now
            return False
        self._durations.append(took / max(1, new))
        if now - self._compiled < self._next:
            return False
        self._next = 2 * (now - self._compiled)  # steps differ, in the length of their texts too: looked at again
        if self.steps is None:
            if self._validation_seconds == 0.0:  # a guess until the first is measured: forward only, a third of a step
                self._validation_seconds = (
                    statistics.median(self._durations) * self._per_epoch * self._validation_share / 3
                )
            return self._make(step)
        return self._make_if_wrong(step)

    def validation_done(self, step: int, seconds: float) -> bool:
        """Take note of a validation; return True when the plan was made again because it would miss the end."""
        self._last = self._clock()
        if self._max_seconds is None or self.steps is None or not self._durations:
            return False
        self._validation_seconds = seconds
        return self._make_if_wrong(step)

    def _make_if_wrong(self, step: int) -> bool:
        left = self._max_seconds - (self._clock() - self._began)
        needed = self._cost(self.steps - step, step)
        if abs(needed - left) <= REPLAN * self._max_seconds or step >= self.steps:
            return False
        return self._make(step)

    def _cost(self, steps: int, done: int) -> float:
        validations = math.ceil((done + steps) / self._per_epoch) - done // self._per_epoch
        return steps * self._step_seconds() + validations * self._validation_seconds

    def _step_seconds(self) -> float:
        recent = self._durations[-500:]
        return sum(recent) / len(recent)

    def _make(self, step: int) -> bool:
        left = (self._max_seconds - (self._clock() - self._began)) * (1 - RESERVE)
        per_epoch = self._per_epoch * self._step_seconds() + self._validation_seconds
        steps = int(left / per_epoch * self._per_epoch)
        while steps > 1 and self._cost(steps, step) > left:
            steps -= max(1, steps // 100)
        planned = step + max(1, steps)
        old, self.steps = self.steps, planned if self._bound is None else min(planned, self._bound)
        return self.steps != old
