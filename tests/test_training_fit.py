"""The training loop, on a recipe small enough to train here: what a user would miss if it broke."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import dltoolkit
from dltoolkit import interrupt, recipe
from dltoolkit.errors import UserError
from dltoolkit.training import fit
from dltoolkit.training import time_budget as plan
from dltoolkit.training.distribute import strategy

FILE = Path(__file__).parent / "toy_recipe.py"


@pytest.fixture(scope="module")
def toy():
    return recipe.load(str(FILE))


@pytest.fixture
def train(toy, tmp_path):
    def go(**options):
        return toy.train(toy.Config(out_dir=str(tmp_path), **options))

    return go


def same_but_seconds(run) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in run.history]


def weights(run) -> list[np.ndarray]:
    return run.model.get_weights()


def stopped_at(step: int, training, monkeypatch) -> None:
    """Call ``training``, and let a signal arrive at that step of it."""
    steps = []

    class Counted(plan.TimeBudget):
        def step_done(self, number):
            steps.append(number)
            return super().step_done(number)

    with monkeypatch.context() as patch:
        patch.setattr(interrupt, "pending", lambda: int(signal.SIGTERM) if len(steps) >= step else None)
        patch.setattr(fit, "TimeBudget", Counted)
        with pytest.raises(KeyboardInterrupt):
            training()
    assert len(steps) == step


def accuracy(toy, run) -> float:
    inputs, answers = toy.build_data(None)
    held_out = slice(toy.EXAMPLES, None)
    return float(np.mean(toy.predict(run, inputs[held_out]) == answers[held_out].argmax(axis=1)))


def command(*words: str, cwd: Path) -> list[str]:
    return [sys.executable, "-m", "dltoolkit", *words, "--out-dir", str(cwd)]


def test_it_learns_and_records(train):
    run = train(epochs=12, learning_rate=0.02)
    assert run.history[-1]["validation_accuracy"] > 0.9
    assert [row["epoch"] for row in run.history] == list(range(1, 13))
    assert run.history[-1]["step"] == run.info["plan"]["steps"] == 12 * 8
    assert run.history[-1]["learning_rate"] < 0.001 < max(row["learning_rate"] for row in run.history)
    assert list(run.history[0])[:2] == ["epoch", "step"]
    assert run.info["state"] == "finished"
    assert 0 < run.info["time"]["train_seconds"] <= run.info["time"]["total_seconds"]
    assert {path.name for path in run.path.iterdir()} - {"tensorboard"} == {
        *("run.json", "labels.json", "history.csv", "model.keras", "checkpoint")
    }


def test_equal_seeds_give_equal_runs_and_other_seeds_do_not(train):
    first, second, other = train(epochs=2), train(epochs=2), train(epochs=2, seed=1)
    assert same_but_seconds(first) == same_but_seconds(second)
    assert all((a == b).all() for a, b in zip(weights(first), weights(second), strict=True))
    assert same_but_seconds(first) != same_but_seconds(other)


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "muon"])
def test_every_optimizer_learns(train, optimizer):
    run = train(epochs=8, optimizer=optimizer, learning_rate=None if optimizer == "sgd" else 0.02)
    assert run.history[-1]["validation_loss"] < 0.75 * run.history[0]["validation_loss"]


def test_the_best_epoch_is_kept_not_the_last(train, toy):
    run = train(epochs=6, learning_rate=3.0, optimizer="adam")  # wild steps: the last epoch is not the best
    scores = [(row["validation_accuracy"], -row["validation_loss"]) for row in run.history]
    assert max(scores) > scores[-1], "the case must tell the best from the last"
    assert accuracy(toy, run) == pytest.approx(max(scores)[0], abs=1e-6)


def test_averaged_weights_are_what_is_kept(train):
    plain, averaged = train(epochs=2), train(epochs=2, ema_decay=0.99)
    assert any(not np.allclose(a, b) for a, b in zip(weights(plain), weights(averaged), strict=True))
    assert averaged.history[-1]["loss"] == plain.history[-1]["loss"], "the average must not touch the training itself"


def test_patience_stops_early(train):
    run = train(epochs=50, learning_rate=3.0, optimizer="adam", patience=2)
    assert len(run.history) < 20


def test_nan_is_stopped_with_advice(train, tmp_path):
    with pytest.raises(UserError, match="lower --learning-rate"):
        train(epochs=3, optimizer="sgd", learning_rate=100.0)
    (found,) = dltoolkit.runs(tmp_path)
    assert found.info["state"] == "failed"


@pytest.fixture
def steady(monkeypatch):
    """A clock for the steps on which every look takes 50 ms, so that a busy machine can hardly upset the plan."""
    looks = itertools.count()

    def clocked(*arguments, clock, **options):
        return plan.TimeBudget(*arguments, clock=lambda: next(looks) * 0.05, **options)

    monkeypatch.setattr(fit, "TimeBudget", clocked)


def test_max_time_plans_the_steps_and_brings_the_rate_down(train, steady):
    run = train(max_time="20s")
    assert 100 < run.info["plan"]["steps"] < 250
    assert 0.8 * run.info["plan"]["steps"] < run.history[-1]["step"] <= run.info["plan"]["steps"]
    assert run.history[-1]["learning_rate"] < 0.2 * max(row["learning_rate"] for row in run.history)
    assert len(run.history) <= run.info["plan"]["epochs"]


def test_resume_goes_on_to_more_epochs(train, toy):
    run = train(epochs=2)
    again = dltoolkit.resume(dltoolkit.load(run.path), epochs=5)
    assert [row["epoch"] for row in again.history] == [1, 2, 3, 4, 5]
    assert again.history[-1]["step"] == 5 * 8
    assert again.info["config"]["epochs"] == 5
    untouched = same_but_seconds(dltoolkit.resume(again))
    assert untouched == same_but_seconds(again), "a finished run has nothing to resume"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_and_resumed_is_as_if_nothing_had_happened(train, toy, tmp_path, number, capfd):
    whole = train(epochs=30, name="whole")
    process = subprocess.Popen(
        command("train", str(FILE), "--epochs", "30", "--name", "cut", cwd=tmp_path), stderr=subprocess.PIPE, text=True
    )
    cut_path = whole.path.parent / "cut"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (cut_path / "history.csv").exists():
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert f"dltoolkit resume {cut_path}" in errors.splitlines()[-1]
    cut = dltoolkit.load(cut_path)
    assert cut.info["state"] == "interrupted"
    assert 0 < len(cut.history) < 30
    reached = max((row["validation_accuracy"], -row["validation_loss"]) for row in cut.history)
    assert accuracy(toy, cut) == pytest.approx(reached[0], abs=1e-6), "an interrupted run answers with its best epoch"
    assert "has not finished" in capfd.readouterr().err
    resumed = dltoolkit.resume(cut)
    assert resumed.info["state"] == "finished"
    assert same_but_seconds(resumed) == same_but_seconds(whole)
    assert all((a == b).all() for a, b in zip(weights(resumed), weights(whole), strict=True))


@pytest.mark.parametrize("options", [{}, {"ema_decay": 0.9}], ids=["plain", "averaged"])
@pytest.mark.parametrize("step", [3, 8, 16], ids=["within an epoch", "end of an epoch", "very end"])
def test_stopped_at_any_step_and_resumed_is_as_if_nothing_had_happened(train, monkeypatch, step, options):
    whole = train(epochs=2, name="whole", **options)
    stopped_at(step, lambda: train(epochs=2, name="cut", **options), monkeypatch)
    cut = dltoolkit.load(whole.path.parent / "cut")
    assert cut.info["state"] == "interrupted"
    resumed = dltoolkit.resume(cut)
    assert same_but_seconds(resumed) == same_but_seconds(whole)
    assert all((a == b).all() for a, b in zip(weights(resumed), weights(whole), strict=True))


def test_a_killed_run_that_is_resumed_can_be_interrupted_again(train, monkeypatch):
    killed = train(epochs=1)
    killed.update(state="running")  # as a killed process leaves it
    with monkeypatch.context() as patch:
        patch.setattr(interrupt, "pending", lambda: int(signal.SIGTERM))
        with pytest.raises(KeyboardInterrupt) as stopped:
            dltoolkit.resume(dltoolkit.load(killed.path), epochs=3)
    assert stopped.value.resume_command == f"dltoolkit resume {killed.path}"
    assert dltoolkit.load(killed.path).info["state"] == "interrupted"


def test_resume_takes_another_length_for_the_old_one(train, steady):
    run = train(max_time="3s", batch_size=256)
    steps = run.info["plan"]["steps"]
    longer = dltoolkit.resume(run, max_time="3s")
    assert longer.info["plan"]["steps"] > steps, "as much time again"
    epochs = [row["epoch"] for row in longer.history]
    assert epochs == list(range(1, len(epochs) + 1)), "one row an epoch"
    more = dltoolkit.resume(longer, epochs=len(epochs) + 2)
    assert (more.info["config"]["max_time"], more.info["config"]["epochs"]) == (None, len(epochs) + 2)
    assert len(more.history) == len(epochs) + 2


def test_max_time_shorter_than_the_compilation_still_gives_a_whole_run(train):
    run = train(max_time="1s", hidden=4096)
    assert run.info["state"] == "finished"
    assert run.info["plan"]["steps"] >= run.history[-1]["step"] >= 1


def test_max_time_is_planned_where_an_epoch_is_one_batch(train, steady):
    run = train(max_time="8s", batch_size=512)
    assert run.info["plan"]["steps"] > 20
    assert run.history[-1]["learning_rate"] < 0.2 * max(row["learning_rate"] for row in run.history)


def test_a_refused_resume_leaves_the_run_as_it_was(train):
    run = train(epochs=1)
    before = (run.path / "run.json").read_bytes()
    with pytest.raises(UserError, match="GPU"):
        dltoolkit.resume(dltoolkit.load(run.path), epochs=3, device="gpu:99")
    assert (run.path / "run.json").read_bytes() == before


def test_a_wrong_option_leaves_no_run(train, tmp_path):
    with pytest.raises(UserError):
        train(device="gpu:99")
    assert dltoolkit.runs(tmp_path) == []


def test_a_damaged_checkpoint_is_passed_over(train, capfd):
    run = train(epochs=2)
    dltoolkit.resume(run, epochs=4)
    newest = sorted((run.path / "checkpoint").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    again = dltoolkit.resume(run, epochs=4)
    assert "damaged" in capfd.readouterr().err
    assert [row["epoch"] for row in again.history] == [1, 2, 3, 4]


def test_out_of_memory_halves_the_batch_once_and_says_so(train, capfd):
    """The recipe reports the shortage as TensorFlow does; a real one would shake the whole machine."""
    run = train(epochs=1, memory=32)
    assert "Out of memory with batches of 64; trying 32." in capfd.readouterr().err
    assert (run.info["plan"]["batch_size"], run.info["plan"]["steps"]) == (32, 16)
    with pytest.raises(UserError, match="Out of memory even with batches of 32; use a smaller"):
        train(epochs=1, memory=16)


def test_two_logical_cpus_train_like_one(train, tmp_path):
    one = train(epochs=3, optimizer="sgd", dropout=0.0, precision="float32")
    words = ["train", str(FILE), "--epochs", "3", "--optimizer", "sgd", "--dropout", "0", "--precision", "float32"]
    subprocess.run(command(*words, "--device", "cpu:2", "--name", "two", cwd=tmp_path), check=True, capture_output=True)
    two = dltoolkit.load(one.path.parent / "two")
    assert two.info["device"]["replicas"] == 2
    for a, b in zip(weights(one), weights(two), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    ("device", "message"),
    [("gpu:99", "GPU"), ("cpu:x", "how many logical CPUs"), ("quantum", "is no device"), ("auto:3", "is no device")],
)
def test_devices_that_are_not_there_are_named(train, device, message):
    with pytest.raises(UserError, match=message):
        train(device=device)


@pytest.mark.parametrize(
    ("how", "chosen"), [({}, "bfloat16"), ({"compiled": True}, "float32"), ({"depthwise": True}, "float32")]
)
def test_bfloat16_is_taken_by_itself_where_it_is_faster(how, chosen, monkeypatch):
    monkeypatch.setattr(strategy, "_cpu_has_bfloat16", lambda: True)
    cpu = strategy.devices("cpu")
    assert strategy.precision("auto", cpu, **how) == chosen
    assert strategy.precision("bfloat16", cpu, **how) == "bfloat16", "what is said goes"


def test_the_saved_model_holds_no_optimizer(train):
    run = train(epochs=1)
    assert (run.path / "model.keras").stat().st_size < 60_000
    assert json.loads((run.path / "run.json").read_text())["model"]["parameters"] == 115
    assert os.listdir(run.path / "checkpoint") == ["step-00000008.npz"]
