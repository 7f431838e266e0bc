"""The time limit of small networks that are trained for comparison."""

import keras
import numpy as np
import pytest

from dltoolkit.config import OptimizerOptions
from dltoolkit.training import optimizer, time_limit
from dltoolkit.training.time_limit import TimeLimit


class Clock:
    """A clock that advances by a fixed time at each reading."""

    def __init__(self, seconds):
        self.now, self.seconds = 0.0, seconds

    def monotonic(self):
        self.now += self.seconds
        return self.now


@pytest.mark.parametrize(
    ("max_seconds", "steps", "limited"),
    [
        (None, 400, None),
        (1e6, 400, None),
        (200.5, 200, 200),  # a call takes one second by the clock, and the first call counts too
        (3.0, 100, 100),  # the minimum
    ],
)
def test_time_limit_shortens_the_training_to_what_the_first_steps_suggest(monkeypatch, max_seconds, steps, limited):
    monkeypatch.setattr(time_limit, "time", Clock(1.0))
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    schedule = optimizer.compile(model, OptimizerOptions(optimizer="sgd"), 4, loss="mse", jit_compile=False)
    schedule.steps = 400
    limit = TimeLimit(schedule, max_seconds)
    model.fit(np.zeros((1600, 2)), np.zeros((1600, 1)), batch_size=4, epochs=1, verbose=0, callbacks=[limit])
    assert (int(model.optimizer.iterations), limit.limited_steps) == (steps, limited)
    assert schedule.steps == steps
