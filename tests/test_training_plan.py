"""The length of a run: from epochs, or from a time and the speed that is measured."""

import pytest

from dltoolkit.training.time_budget import TimeBudget


class Clock:
    """A clock that goes only where it is told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def follow(
    plan: TimeBudget, clock: Clock, step_seconds: float, validation_seconds: float, per_epoch: int
) -> tuple[float, int]:
    """Play a training whose compilation takes a second; return its seconds and steps."""
    began = clock.now
    plan.start()
    step = 0
    clock.now += 1.0
    while True:
        step += 1
        clock.now += step_seconds
        plan.step_done(step)
        done = (plan.steps is not None and step >= plan.steps) or plan.out_of_time
        if done or step % per_epoch == 0:
            clock.now += validation_seconds
            plan.validation_done(step, validation_seconds)
        if done:
            return clock.now - began, step


def test_epochs_alone_fix_the_length(clock):
    plan = TimeBudget(steps_per_epoch=10, epochs=3, max_seconds=None, validation_share=0.2, clock=clock)
    assert (plan.steps, plan.epochs) == (30, 3)
    assert follow(plan, clock, 1.0, 0.5, 10)[1] == 30


@pytest.mark.parametrize("step_seconds", [0.05, 1.0])
@pytest.mark.parametrize("validation_seconds", [0.0, 4.0])
def test_a_time_is_kept_and_used(clock, step_seconds, validation_seconds):
    plan = TimeBudget(steps_per_epoch=40, epochs=None, max_seconds=100.0, validation_share=0.2, clock=clock)
    took, steps = follow(plan, clock, step_seconds, validation_seconds, 40)
    assert 90 < took <= 101
    assert steps == plan.steps
    assert plan.epochs == -(-plan.steps // 40)


def test_a_slower_machine_is_planned_for_again(clock):
    plan = TimeBudget(steps_per_epoch=50, epochs=None, max_seconds=20.0, validation_share=0.1, clock=clock)
    plan.start()
    for step in range(1, 51):
        clock.now += 0.03
        plan.step_done(step)
    first = plan.steps
    for step in range(51, 101):
        clock.now += 0.12
        plan.step_done(step)
    assert plan.validation_done(100, 3.0)
    assert plan.steps < first


def test_first_steps_that_were_quicker_than_the_rest_do_not_decide(clock):
    """Such as batches of short texts."""
    plan = TimeBudget(steps_per_epoch=1000, epochs=None, max_seconds=200.0, validation_share=0.0, clock=clock)
    plan.start()
    foreseen = []
    for step in range(1, 101):
        clock.now += 0.5 if step < 10 else 1.0
        if plan.step_done(step):
            foreseen.append(plan.steps)
    assert foreseen[0] > 350
    assert plan.steps == foreseen[-1] == pytest.approx(200, abs=30), "long before the epoch's end"


def test_epochs_bound_a_time(clock):
    plan = TimeBudget(steps_per_epoch=5, epochs=2, max_seconds=30.0, validation_share=0.2, clock=clock)
    assert follow(plan, clock, 0.3, 0.1, 5)[1] == plan.steps == 10
