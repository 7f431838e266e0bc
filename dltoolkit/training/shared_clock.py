"""One clock and one stop signal for all workers of a training run.

Decisions that depend on time or on a signal, such as the number of steps for ``--max-time``, the next checkpoint or the
end of training, must be made by all workers after the same step, because workers that do different things wait for each
other forever. All workers therefore use the time of the chief and share their signals, at the same steps, and every
decision that follows from them is the same on all workers.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dltoolkit import interrupt
from dltoolkit.training.distribute.strategy import Devices

SYNC_SECONDS = 0.25  # seconds between two synchronizations, each of which costs an all-reduce
MAX_GROWTH = 2.0  # maximum factor by which the number of steps between synchronizations grows
CHUNK = 1 << 24  # maximum number of 4-byte values in one all-reduce


class SharedClock:
    """The clock of a training run.

    Args:
        devices: The devices of the run. A process that trains without other workers reads its own clock at each step.

    Attributes:
        single_worker: Whether this process trains without other workers.
    """

    def __init__(self, devices: Devices):
        self._devices, self.single_worker = devices, devices.workers == 1
        self._now, self._signal = 0.0, None
        self._next_step = self._last_step = 0
        if not self.single_worker:
            self._synchronize(0)

    def synchronize(self, step: int, *, force: bool = False) -> bool:
        """Update the time and the signal of all workers after a step, and return whether that happened.

        Unless ``force`` is given, the update takes place only after steps that are about ``SYNC_SECONDS`` apart.
        """
        if self.single_worker:
            return True
        if step < self._next_step and not force:
            return False
        self._synchronize(step)
        return True

    def now(self) -> float:
        """Return the time in seconds at the last synchronization."""
        return time.monotonic() if self.single_worker else self._now

    def signal(self) -> int | None:
        """Return the number of the signal that any worker had received by the last synchronization, or None."""
        return interrupt.pending() if self.single_worker else self._signal

    def broadcast(self, values: Sequence[float]) -> tuple[float, ...]:
        """Return the chief's values. All workers pass equally many."""
        if self.single_worker:
            return tuple(values)
        shared = tf.constant(values if self._devices.chief else [0.0] * len(values), tf.float64)
        return tuple(self._sum(shared).numpy().tolist())

    def broadcast_object(self, value: Any) -> Any:
        """Return the chief's value, which can be any picklable object. The other workers' values are ignored."""
        if self.single_worker:
            return value
        pickled = np.frombuffer(pickle.dumps(value) if self._devices.chief else b"", np.uint8)
        (length,) = self.broadcast([len(pickled)])
        padded = np.zeros(-(-int(length) // 4) * 4, np.uint8)
        padded[: len(pickled)] = pickled
        chunks = np.split(padded.view(np.int32), range(CHUNK, len(padded) // 4, CHUNK))
        return pickle.loads(np.concatenate([self._sum(tf.constant(chunk)).numpy() for chunk in chunks]).tobytes())

    def _synchronize(self, step: int) -> None:
        now, pending = time.monotonic(), interrupt.pending()
        values = [0.0, 0.0, *(float(pending == number) for number in interrupt.NUMBERS)]
        if self._devices.chief:
            done = max(1, step - self._last_step)
            interval = min(MAX_GROWTH * done, SYNC_SECONDS / max((now - self._now) / done, 1e-6))
            values[:2] = now, float(max(1, int(interval)))
        self._now, interval, *signals = self._sum(tf.constant(values, tf.float64)).numpy().tolist()
        self._last_step, self._next_step = step, step + int(interval)
        self._signal = next((n for n, count in zip(interrupt.NUMBERS, signals, strict=True) if count), None)

    def _sum(self, values: tf.Tensor) -> tf.Tensor:
        """Return the sum of the values of all workers."""
        return self._devices.strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)
