"""The length of a run: from epochs, or from a time and the speed that is measured."""

import time

import pytest

from dltoolkit.training.plan import Plan


def follow(plan: Plan, step_seconds: float, validation_seconds: float, per_epoch: int) -> tuple[float, int]:
    """Play a training against the real clock; return its seconds and steps."""
    began = time.monotonic()
    plan.start()
    step = 0
    while True:
        step += 1
        time.sleep(step_seconds)
        plan.step_done(step)
        done = (plan.steps is not None and step >= plan.steps) or plan.out_of_time
        if done or step % per_epoch == 0:
            time.sleep(validation_seconds)
            plan.validation_done(step, validation_seconds)
        if done:
            return time.monotonic() - began, step


def test_epochs_alone_fix_the_length():
    plan = Plan(steps_per_epoch=10, epochs=3, max_seconds=None, validation_share=0.2)
    assert (plan.steps, plan.epochs) == (30, 3)
    assert follow(plan, 0.0005, 0.0005, 10)[1] == 30


@pytest.mark.parametrize("validation_seconds", [0.0, 0.15])
def test_a_time_is_kept_and_used(validation_seconds):
    plan = Plan(steps_per_epoch=40, epochs=None, max_seconds=2.0, validation_share=0.2)
    took, steps = follow(plan, 0.005, validation_seconds, 40)
    assert 1.4 < took < 2.4
    assert steps == plan.steps or plan.out_of_time
    assert plan.epochs == -(-plan.steps // 40)


def test_a_slower_machine_is_planned_for_again():
    plan = Plan(steps_per_epoch=50, epochs=None, max_seconds=2.0, validation_share=0.1)
    plan.start()
    for step in range(1, 51):
        time.sleep(0.002)
        plan.step_done(step)
    first = plan.steps
    for step in range(51, 101):
        time.sleep(0.012)
        plan.step_done(step)
    assert plan.validation_done(100, 0.3)
    assert plan.steps < first


def test_epochs_bound_a_time():
    plan = Plan(steps_per_epoch=5, epochs=2, max_seconds=30.0, validation_share=0.2)
    plan.start()
    for step in range(1, 11):
        time.sleep(0.3 if step < 8 else 0.001)
        plan.step_done(step)
    assert plan.steps == 10
