"""The planned number of steps: from epochs, or from a maximum time and the measured speed."""

import pytest

from dltoolkit.training.time_budget import TimeBudget


class Clock:
    """A clock that the test sets."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.mark.parametrize(("max_seconds", "expected"), [(8.0, 5.0), (12.0, None), (None, None)])
def test_long_compilation_is_more_than_half_of_the_maximum_time(clock, max_seconds, expected):
    budget = TimeBudget(10, None if max_seconds else 4, max_seconds, 0.0, clock=clock)
    budget.start()
    assert budget.long_compilation is None
    for step in (1, 2):
        clock.now += 5.0 if step == 1 else 0.1
        budget.step_done(step)
        assert budget.long_compilation == expected


def simulate(
    budget: TimeBudget, clock: Clock, step_seconds: float, validation_seconds: float, steps_per_epoch: int
) -> tuple[float, int]:
    """Simulate a training whose compilation takes one second, and return its seconds and steps."""
    start = clock.now
    budget.start()
    step = 0
    clock.now += 1.0
    while True:
        step += 1
        clock.now += step_seconds
        budget.step_done(step)
        done = (budget.steps is not None and step >= budget.steps) or budget.out_of_time
        if done or step % steps_per_epoch == 0:
            clock.now += validation_seconds
            budget.validation_done(step, validation_seconds)
        if done:
            return clock.now - start, step


def test_budget_of_epochs_fixes_the_length(clock):
    budget = TimeBudget(steps_per_epoch=10, epochs=3, max_seconds=None, validation_ratio=0.2, clock=clock)
    assert (budget.steps, budget.epochs, budget.may_change, budget.seconds_left(1)) == (30, 3, False, None)
    assert simulate(budget, clock, 1.0, 0.5, 10)[1] == 30


def test_limit_is_the_maximum_before_the_plan_is_made(clock):
    budget = TimeBudget(10, None, 100.0, validation_ratio=0.2, clock=clock, max_steps=7)
    assert (budget.steps, budget.limit) == (None, 7)
    assert TimeBudget(10, 3, 100.0, validation_ratio=0.2, clock=clock).limit == 30
    assert TimeBudget(10, None, 100.0, validation_ratio=0.2, clock=clock).limit is None


@pytest.mark.parametrize("step_seconds", [0.05, 1.0])
@pytest.mark.parametrize("validation_seconds", [0.0, 4.0])
def test_budget_of_time_is_kept_and_used(clock, step_seconds, validation_seconds):
    budget = TimeBudget(steps_per_epoch=40, epochs=None, max_seconds=100.0, validation_ratio=0.2, clock=clock)
    seconds, steps = simulate(budget, clock, step_seconds, validation_seconds, 40)
    assert 90 < seconds <= 101
    assert steps == budget.steps
    assert budget.epochs == -(-budget.steps // 40)
    assert budget.may_change


def test_budget_is_planned_again_on_a_slower_machine(clock):
    budget = TimeBudget(steps_per_epoch=50, epochs=None, max_seconds=20.0, validation_ratio=0.1, clock=clock)
    budget.start()
    for step in range(1, 51):
        clock.now += 0.03
        budget.step_done(step)
    first = budget.steps
    for step in range(51, 101):
        clock.now += 0.12
        budget.step_done(step)
    assert budget.validation_done(100, 3.0)
    assert budget.steps < first


def test_budget_is_corrected_when_the_first_steps_were_faster(clock):
    """The first batches can hold shorter texts than the rest."""
    budget = TimeBudget(steps_per_epoch=1000, epochs=None, max_seconds=200.0, validation_ratio=0.0, clock=clock)
    budget.start()
    planned = []
    for step in range(1, 101):
        clock.now += 0.5 if step < 10 else 1.0
        if budget.step_done(step):
            planned.append(budget.steps)
    assert planned[0] > 350
    assert budget.steps == planned[-1] == pytest.approx(200, abs=30), "before the epoch ends"


def test_budget_of_time_is_limited_by_epochs(clock):
    budget = TimeBudget(steps_per_epoch=5, epochs=2, max_seconds=30.0, validation_ratio=0.2, clock=clock)
    assert simulate(budget, clock, 0.3, 0.1, 5)[1] == budget.steps == 10


def test_seconds_left_include_the_validations(clock):
    budget = TimeBudget(steps_per_epoch=10, epochs=3, max_seconds=100.0, validation_ratio=0.2, clock=clock)
    budget.start()
    for step in range(1, 11):
        clock.now += 1.0
        budget.step_done(step)
    budget.validation_done(10, 2.0)
    assert (budget.steps, budget.seconds_left(10)) == (30, pytest.approx(20 * 1.0 + 2 * 2.0))
