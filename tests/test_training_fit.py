"""Tests of the training loop on the toy recipe: learning, interruption, plans, memory and devices."""

import functools
import itertools
import json
import os
import signal
import subprocess
import time
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from toy_training import FILE, command, equal, load_toy, reproducible_history, stop_at, weights

import dltoolkit
from dltoolkit import interrupt, recipe
from dltoolkit.errors import UserError
from dltoolkit.training import callbacks, fit
from dltoolkit.training.distribute import strategy
from dltoolkit.training.time_budget import TimeBudget


@pytest.fixture(scope="module")
def toy():
    return recipe.load(str(FILE))


@pytest.fixture
def train(toy, tmp_path):
    def train_toy(**options):
        return toy.train(toy.Config(out_dir=str(tmp_path), **options))

    return train_toy


def accuracy(toy, run) -> float:
    inputs, labels = toy.build_data(None)
    held_out = slice(toy.TRAIN_EXAMPLES, None)
    return float(np.mean(toy.predict(run, inputs[held_out]) == labels[held_out].argmax(axis=1)))


def test_fit_learns_and_records(train):
    run = train(epochs=12, learning_rate=0.02)
    assert run.history[-1]["validation_accuracy"] > 0.9
    assert [row["epoch"] for row in run.history] == list(range(1, 13))
    assert run.history[-1]["step"] == run.info["plan"]["steps"] == 12 * 8
    assert run.history[-1]["learning_rate"] < 0.001 < max(row["learning_rate"] for row in run.history)
    assert list(run.history[0])[:2] == ["epoch", "step"]
    assert run.info["state"] == "finished"
    assert 0 < run.info["time"]["train_seconds"] <= run.info["time"]["total_seconds"]
    assert {path.name for path in run.path.iterdir()} - {"tensorboard", ".lock"} == {
        *("run.json", "labels.json", "history.csv", "model.keras", "checkpoint")
    }


def test_fit_says_that_compilation_took_most_of_the_time(train, monkeypatch, capfd):
    monkeypatch.setattr(TimeBudget, "long_compilation", 5.0)
    run = train(epochs=1, max_time="1h")
    assert run.info["plan"]["compile_seconds"] == 5.0
    err = capfd.readouterr().err
    assert err.count("Compilation and the first steps took 5.0 s, more than half of max_time") == 1
    monkeypatch.setattr(fit, "replace", functools.partial(replace, seconds_before=40.0))  # as of a linear probe
    train(epochs=1, max_time="1m")
    assert "more than half of what the 40.0 s before left of max_time" in " ".join(capfd.readouterr().err.split())


def test_fit_is_reproducible_from_the_seed(train):
    first, second, other = train(epochs=2), train(epochs=2), train(epochs=2, seed=1)
    assert equal(first, second)
    assert reproducible_history(first) != reproducible_history(other)


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "muon"])
def test_fit_learns_with_every_optimizer(train, optimizer):
    run = train(epochs=8, optimizer=optimizer, learning_rate=None if optimizer == "sgd" else 0.02)
    assert run.history[-1]["validation_loss"] < 0.75 * run.history[0]["validation_loss"]


def scripted_scores(monkeypatch, scores: list[float]) -> None:
    """Replace the validation scores of the epochs, so that a test does not depend on how training goes."""
    remaining = iter(scores)

    def on_test_end(self, logs=None, method=callbacks.TrainingStateCallback.on_test_end):
        method(self, {**logs, "accuracy": next(remaining)})

    monkeypatch.setattr(callbacks.TrainingStateCallback, "on_test_end", on_test_end)


def test_fit_keeps_the_best_epoch(train, toy, monkeypatch):
    expected = train(epochs=4, name="reference")  # the learning rate of epoch 2 depends on the planned length
    epochs = []

    def on_epoch_end(self, epoch, logs=None, method=callbacks.HistoryCSV.on_epoch_end):
        epochs.append(self.model.get_weights())
        method(self, epoch, logs)

    monkeypatch.setattr(callbacks.HistoryCSV, "on_epoch_end", on_epoch_end)
    scripted_scores(monkeypatch, [0.5, 0.9, 0.7, 0.8])
    best = train(epochs=4, name="best")
    assert all((a == b).all() for a, b in zip(weights(best), epochs[1], strict=True))
    assert any((a != b).any() for a, b in zip(weights(best), weights(expected), strict=True))


def test_fit_keeps_averaged_weights(train):
    plain, averaged = train(epochs=2), train(epochs=2, ema_decay=0.99)
    assert any(not np.allclose(a, b) for a, b in zip(weights(plain), weights(averaged), strict=True))
    assert averaged.history[-1]["loss"] == plain.history[-1]["loss"], "the average does not change the training"


def test_patience_stops_after_epochs_without_improvement(train, monkeypatch, capfd):
    scripted_scores(monkeypatch, [0.5, 0.6, 0.4, 0.7, 0.3, 0.2, 0.9])
    assert len(train(epochs=7, patience=2).history) == 6
    assert (
        "Training stops after epoch 6: no higher validation accuracy for 2 epochs (patience=2)."
        in capfd.readouterr().err
    )


def test_nan_loss_stops_with_advice(train, tmp_path, monkeypatch):
    monkeypatch.setattr(
        keras.losses.CategoricalCrossentropy, "call", lambda self, y_true, y_pred: y_pred[:, 0] * np.nan
    )
    with pytest.raises(UserError, match="The loss became nan in epoch 1; try a lower learning_rate"):
        train(epochs=3)
    (run,) = dltoolkit.runs(tmp_path)
    assert run.info["state"] == "failed"


@pytest.fixture
def steady_clock(monkeypatch):
    """Replace the clock of the time budget by one that advances 50 ms whenever it is read."""
    reads = itertools.count()

    def steady_budget(*arguments, clock, **options):
        return TimeBudget(*arguments, clock=lambda: next(reads) * 0.05, **options)

    monkeypatch.setattr(fit, "TimeBudget", steady_budget)


def test_max_time_plans_the_steps_and_the_learning_rate(train, steady_clock):
    run = train(max_time="20s")
    assert 100 < run.info["plan"]["steps"] < 250
    assert 0.8 * run.info["plan"]["steps"] < run.history[-1]["step"] <= run.info["plan"]["steps"]
    assert run.history[-1]["learning_rate"] < 0.2 * max(row["learning_rate"] for row in run.history)
    assert len(run.history) <= run.info["plan"]["epochs"]


@pytest.mark.parametrize("may_change", [True, False])
def test_display_marks_an_estimated_length_and_prints_each_change_of_the_plan(monkeypatch, capfd, may_change):
    seconds = 0.0
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: seconds)
    state = SimpleNamespace(step=0, finished=False, stale_epochs=1, history=[{"loss": 2.5, "seconds": 1.0}])
    budget = SimpleNamespace(
        steps=440, epochs=44, may_change=may_change, seconds_left=lambda step: 20.0 if may_change else None
    )
    display = callbacks.ProgressDisplay(state, budget, 10, "validation_loss")
    display.set_params({"steps": 10})
    for epoch in range(5):
        display.on_epoch_begin(epoch)
        for batch in range(10):
            display.on_train_batch_end(batch)
            seconds, state.step = seconds + 0.15, state.step + 1
        if epoch == 3:
            budget.steps, budget.epochs = 540, 54
        state.finished = epoch == 4
        display.on_epoch_end(epoch)
    mark, left = ("~", "about 20 s of training left") if may_change else ("", "about 1 min of training left")
    assert capfd.readouterr().err.splitlines() == [
        f"epoch  1/{mark}44  loss 2.500  1.0 s",
        f"epoch  2/{mark}44  loss 2.500  1.0 s",
        f"Planned: 44 epochs, 440 steps in total; {left}.",
        "epoch  3/44  loss 2.500  1.0 s",
        "Planned again, because the speed has changed: 54 epochs, 540 steps in total.",
        "epoch  4/54  loss 2.500  1.0 s",
        "epoch  5/54  loss 2.500  1.0 s",
    ]


def test_resume_trains_more_epochs(train):
    run = train(epochs=2)
    again = dltoolkit.resume(load_toy(run.path), epochs=5)
    assert [row["epoch"] for row in again.history] == [1, 2, 3, 4, 5]
    assert again.history[-1]["step"] == 5 * 8
    assert again.info["config"]["epochs"] == 5
    history = reproducible_history(again)
    assert reproducible_history(dltoolkit.resume(again)) == history, "a finished run has nothing to resume"
    before = {path: path.read_bytes() for path in again.path.rglob("*") if path.is_file()}
    for epochs in (3, 5):
        with pytest.raises(UserError, match="has already trained 5 epochs: give a larger number of epochs"):
            dltoolkit.resume(load_toy(again.path), epochs=epochs)
    assert {path: path.read_bytes() for path in before} == before, "runs that use its model would refuse another one"


@pytest.mark.parametrize(
    "number", [signal.SIGHUP, *(pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGTERM, signal.SIGINT))]
)
def test_resume_continues_a_process_that_was_interrupted_exactly(train, toy, tmp_path, number, capfd):
    uninterrupted = train(epochs=30, name="uninterrupted")
    process = subprocess.Popen(
        command("train", str(FILE), "--epochs", "30", "--name", "cut", out_dir=tmp_path),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # whatever started the tests, such as nohup
    )
    cut_path = uninterrupted.path.parent / "cut"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (cut_path / "history.csv").exists():
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert f"dltoolkit resume {cut_path} --recipe {FILE}" in errors.splitlines()[-1]
    cut = load_toy(cut_path)
    assert cut.info["state"] == "interrupted"
    assert 0 < len(cut.history) < 30
    best = max((row["validation_accuracy"], -row["validation_loss"]) for row in cut.history)
    assert accuracy(toy, cut) == pytest.approx(best[0], abs=1e-6), "an interrupted run predicts with its best epoch"
    assert "has not finished" in capfd.readouterr().err
    resumed = dltoolkit.resume(cut)
    assert resumed.info["state"] == "finished"
    assert equal(resumed, uninterrupted)


@pytest.mark.parametrize("options", [{}, {"ema_decay": 0.9}], ids=["plain", "averaged"])
def test_resume_is_exact_wherever_training_was_stopped(train, monkeypatch, options):
    uninterrupted = train(epochs=2, name="uninterrupted", **options)
    for step, name in [(3, "within an epoch"), (8, "at the end of an epoch"), (16, "at the end")]:
        stop_at(step, lambda name=name: train(epochs=2, name=f"cut-{len(name)}", **options), monkeypatch)
        cut = load_toy(uninterrupted.path.parent / f"cut-{len(name)}")
        assert cut.info["state"] == "interrupted"
        assert equal(dltoolkit.resume(cut), uninterrupted), name


def test_resume_of_a_killed_run_can_be_interrupted(train, monkeypatch):
    killed = train(epochs=1)
    killed.update(state="running")  # the state that a killed process leaves
    with monkeypatch.context() as patch:
        patch.setattr(interrupt, "pending", lambda: int(signal.SIGTERM))
        with pytest.raises(KeyboardInterrupt) as stopped:
            dltoolkit.resume(load_toy(killed.path), epochs=3)
    assert stopped.value.resume_command == f"dltoolkit resume {killed.path} --recipe {FILE}"
    assert load_toy(killed.path).info["state"] == "interrupted"


def test_resume_replaces_the_length(train, steady_clock):
    run = train(max_time="3s", batch_size=256)
    steps = run.info["plan"]["steps"]
    longer = dltoolkit.resume(run, max_time="3s")
    assert longer.info["plan"]["steps"] > steps, "the time starts again"
    epochs = [row["epoch"] for row in longer.history]
    assert epochs == list(range(1, len(epochs) + 1)), "one row per epoch"
    more = dltoolkit.resume(longer, epochs=len(epochs) + 2)
    assert (more.info["config"]["max_time"], more.info["config"]["epochs"]) == (None, len(epochs) + 2)
    assert len(more.history) == len(epochs) + 2


def test_max_time_shorter_than_the_compilation_still_gives_a_finished_run(train):
    run = train(max_time="1s", hidden=4096)
    assert run.info["state"] == "finished"
    assert run.info["plan"]["steps"] >= run.history[-1]["step"] >= 1


def test_max_time_is_planned_if_an_epoch_is_one_batch(train, steady_clock):
    run = train(max_time="8s", batch_size=512)
    assert run.info["plan"]["steps"] > 20
    assert run.history[-1]["learning_rate"] < 0.2 * max(row["learning_rate"] for row in run.history)


def test_resume_leaves_the_run_unchanged_if_it_is_refused(train):
    run = train(epochs=1)
    before = (run.path / "run.json").read_bytes()
    with pytest.raises(UserError, match="GPU"):
        dltoolkit.resume(load_toy(run.path), epochs=3, device="gpu:99")
    assert (run.path / "run.json").read_bytes() == before


def test_fit_leaves_no_run_after_a_wrong_option(train, tmp_path):
    with pytest.raises(UserError):
        train(device="gpu:99")
    assert dltoolkit.runs(tmp_path) == []


def test_resume_skips_a_damaged_checkpoint(train, capfd):
    run = train(epochs=2)
    dltoolkit.resume(run, epochs=4)
    newest = sorted((run.path / "checkpoint").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    again = dltoolkit.resume(run)
    assert "damaged" in capfd.readouterr().err
    assert [row["epoch"] for row in again.history] == [1, 2, 3, 4]


def test_fit_halves_the_batch_size_once_when_memory_runs_out(train, capfd):
    """The toy recipe raises the error of TensorFlow; really exhausting the memory would affect the whole machine."""
    run = train(epochs=1, memory=32)
    assert "Out of memory with batches of 64; trying 32." in capfd.readouterr().err
    assert (run.info["plan"]["batch_size"], run.info["plan"]["steps"]) == (32, 16)
    with pytest.raises(UserError, match="Out of memory even with batches of 32; use a smaller"):
        train(epochs=1, memory=16)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu:99", "GPU"),
        ("cpu:x", "number of logical CPUs"),
        ("quantum", "is not a device"),
        ("auto:3", "is not a device"),
    ],
)
def test_fit_names_devices_that_do_not_exist(train, device, message):
    with pytest.raises(UserError, match=message):
        train(device=device)


@pytest.mark.parametrize(
    ("options", "dtype"), [({}, "bfloat16"), ({"xla": True}, "float32"), ({"depthwise": True}, "float32")]
)
def test_set_precision_selects_bfloat16_if_it_is_faster(options, dtype, monkeypatch):
    monkeypatch.setattr(strategy, "_cpu_has_bfloat16", lambda: True)
    cpu = strategy.devices("cpu")
    assert strategy.set_precision("auto", cpu, **options) == dtype
    assert strategy.set_precision("bfloat16", cpu, **options) == "bfloat16", "an explicit precision is used"


def test_fit_saves_the_model_without_optimizer(train):
    run = train(epochs=1)
    assert (run.path / "model.keras").stat().st_size < 60_000
    assert json.loads((run.path / "run.json").read_text())["model"]["parameters"] == 115
    assert os.listdir(run.path / "checkpoint") == ["step-00000008.npz"]
