"""One clock and one word to stop for all workers of a training.

Whatever depends on the time or on a signal, such as the plan of ``--max-time``, the next checkpoint or the end, must
happen on all workers after the same step, or they wait for each other for ever. So all of them go by the chief's clock,
and hear of everybody's signals, at the same steps; what follows from these is then the same everywhere.
"""

from __future__ import annotations

import pickle
import signal
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dltoolkit import interrupt
from dltoolkit.training.distribute.strategy import Devices

LOOK_SECONDS = 0.25  # between two looks at the common clock
AT_ONCE = 1 << 24  # numbers of four bytes that are sent together
STRIDE = 2.0  # by which that distance, in steps, grows at most from one look to the next


class SharedClock:
    """The clock of a training.

    Args:
        devices: what it runs on; a process that trains by itself has its own clock, and looks at it after each step.

    Attributes:
        alone: whether this is such a process.
    """

    def __init__(self, devices: Devices):
        self._devices, self.alone = devices, devices.workers == 1
        self._now, self._signal = 0.0, None
        self._next = self._last = 0
        if not self.alone:
            self._look(0)

    def look(self, step: int, *, surely: bool = False) -> bool:
        """Look at clock and signals, if it is time for that after this step, or ``surely``; tell whether it was."""
        if self.alone:
            return True
        if step < self._next and not surely:
            return False
        self._look(step)
        return True

    def now(self) -> float:
        """Return the time in seconds, as of the last look."""
        return time.monotonic() if self.alone else self._now

    def signal(self) -> int | None:
        """Return the number of the signal that has come to any worker, as of the last look."""
        return interrupt.pending() if self.alone else self._signal

    def of_chief(self, values: Sequence[float]) -> tuple[float, ...]:
        """Return the chief's values, as many as this worker's."""
        if self.alone:
            return tuple(values)
        shared = tf.constant(values if self._devices.chief else [0.0] * len(values), tf.float64)
        return tuple(self._sum(shared).numpy().tolist())

    def object_of_chief(self, value: Any) -> Any:
        """Return the chief's value, of any kind; what the others give is not looked at."""
        if self.alone:
            return value
        written = np.frombuffer(pickle.dumps(value) if self._devices.chief else b"", np.uint8)
        (length,) = self.of_chief([len(written)])
        padded = np.zeros(-(-int(length) // 4) * 4, np.uint8)
        padded[: len(written)] = written
        parts = np.split(padded.view(np.int32), range(AT_ONCE, len(padded) // 4, AT_ONCE))
        return pickle.loads(np.concatenate([self._sum(tf.constant(part)).numpy() for part in parts]).tobytes())

    def _look(self, step: int) -> None:
        now, asked = time.monotonic(), interrupt.pending()
        mine = [0.0, 0.0, float(asked == signal.SIGINT), float(asked not in (None, signal.SIGINT))]
        if self._devices.chief:
            seconds = (now - self._now) / max(1, step - self._last)
            stride = min(STRIDE * max(1, step - self._last), LOOK_SECONDS / max(seconds, 1e-6))
            mine[:2] = now, float(max(1, int(stride)))
        self._now, stride, interrupts, terms = self._sum(tf.constant(mine, tf.float64)).numpy().tolist()
        self._last, self._next = step, step + int(stride)
        self._signal = int(signal.SIGTERM) if terms else int(signal.SIGINT) if interrupts else None

    def _sum(self, values: tf.Tensor) -> tf.Tensor:
        """Add up what all workers give here."""
        return self._devices.strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)
