"""Tests of resuming runs that were killed, damaged or changed: the result is exact, or an error names the problem."""

import itertools
import json
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from toy_training import FILE, command, equal, load_toy, reproducible_history, stop_at, weights

import dltoolkit
from dltoolkit import files, recipe
from dltoolkit.config import RunConfig
from dltoolkit.errors import UserError
from dltoolkit.interrupt import Interrupted
from dltoolkit.run import Run
from dltoolkit.training import callbacks, checkpoint, fit, optimizer
from dltoolkit.training.time_budget import TimeBudget


@pytest.fixture
def train(tmp_path):
    toy = recipe.load(str(FILE))

    def train_toy(**options):
        return toy.train(toy.Config(out_dir=str(tmp_path), **options))

    return train_toy


def checkpoints(run: Run) -> list[Path]:
    return sorted((run.path / "checkpoint").iterdir())


def flip_bit(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << position % 8
    path.write_bytes(content)


# Damaged files


def test_restore_detects_every_changed_byte(train, capfd):
    import keras

    run = train(epochs=2)
    dltoolkit.resume(run, epochs=4)
    newest = checkpoints(run)[-1]
    model = run.model
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    optimizer.compile(model, run.config, 64, loss=loss, metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)

    def restore() -> bytes:
        state, best, _ = checkpoint.restore(run, model)
        variables = [*model.variables, *model.optimizer.variables]
        return repr(state).encode() + b"".join(np.asarray(each).tobytes() for each in [*variables, *best])

    content, expected = newest.read_bytes(), restore()
    newest.unlink()
    previous = restore()
    # the end of the file contains the digest and most metadata
    for position in [*range(0, len(content), 509), *range(len(content) - 300, len(content), 7)]:
        newest.write_bytes(content)
        flip_bit(newest, position)
        assert restore() == previous, f"byte {position}"
    assert "is damaged" in capfd.readouterr().err
    for size in (0, 10, 1000, len(content) - 1):
        newest.write_bytes(content[:size])
        assert restore() == previous
    newest.write_bytes(content)
    assert restore() == expected


def test_save_writes_arrays_under_the_paths_of_the_variables(train):
    run = train(epochs=1, ema_decay=0.9)
    with np.load(checkpoints(run)[-1]) as file:
        keys = set(file.files)
    expected = {"state", "model/logits/kernel", "model/logits/bias", "best/logits/kernel", "optimizer/adam_w/iteration"}
    assert expected <= keys
    assert any(key.startswith("model/seed_generator") for key in keys), "the state of dropout"
    assert any(key.startswith("optimizer/adam_w/logits_kernel") for key in keys), "the slots of the optimizer"
    assert {key.partition("/")[0] for key in keys} == {"state", "model", "optimizer", "metrics", "best"}


def test_by_key_does_not_depend_on_the_numbers_that_keras_gives():
    import keras

    def paths():
        layers = [keras.layers.Dense(2), keras.layers.Dense(2), keras.layers.Dense(2, name="block_7")]
        return list(checkpoint.by_key(keras.Sequential([keras.Input((2,)), *layers]).variables))

    first = paths()
    assert len(first) == 6
    assert first == paths()


def test_resume_starts_again_if_all_checkpoints_are_damaged(train, monkeypatch, capfd):
    uninterrupted = train(epochs=3, name="uninterrupted")
    stop_at(20, lambda: train(epochs=3, name="cut"), monkeypatch)
    cut = load_toy(uninterrupted.path.parent / "cut")
    for path in checkpoints(cut):
        flip_bit(path, path.stat().st_size // 2)
    damaged = checkpoints(cut)
    stop_at(6, lambda: dltoolkit.resume(cut), monkeypatch)
    assert "No checkpoint can be read; training starts from the beginning." in capfd.readouterr().err
    assert [path.name for path in checkpoints(cut)] == ["step-00000006.npz"], f"not {damaged}"
    assert equal(dltoolkit.resume(cut), uninterrupted)


def test_resume_refuses_a_checkpoint_of_another_network(train):
    run = train(epochs=1)
    run.update(config={"hidden": 8})  # edited by hand
    with pytest.raises(UserError, match="does not fit the network"):
        dltoolkit.resume(run, epochs=2)


def test_resume_names_a_damaged_run_json(train):
    run = train(epochs=1)
    (run.path / "run.json").write_bytes((run.path / "run.json").read_bytes()[:100])
    with pytest.raises(UserError, match=r"run\.json is damaged: .* at character \d+ of line 5"):
        dltoolkit.resume(load_toy(run.path))


def test_resume_writes_other_damaged_files_again(train):
    run = train(epochs=2)
    before, trained = reproducible_history(run), weights(run)
    for name in ("history.csv", "model.keras"):
        (run.path / name).write_bytes(b"damaged")
    again = dltoolkit.resume(load_toy(run.path))
    assert reproducible_history(again) == before
    assert all((a == b).all() for a, b in zip(weights(again), trained, strict=True))


# Changed options and data


def test_resume_refuses_to_change_other_options(train, tmp_path):
    run = train(epochs=1)
    before = (run.path / "run.json").read_bytes()
    with pytest.raises(
        UserError, match="so batch_size, learning_rate cannot be changed: only epochs, max_time, device"
    ):
        dltoolkit.resume(run, learning_rate=0.1, batch_size=3, epochs=3)
    words = command("resume", str(run.path), "--learning-rate", "0.1", out_dir=tmp_path)
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2
    assert "a resumed run keeps its other options" in done.stderr
    assert done.stderr.count("\n") == 1
    assert (run.path / "run.json").read_bytes() == before


def test_resume_refuses_changed_data(train):
    run = train(epochs=1)
    run.update(data={"fingerprint": "other data"})
    before = (run.path / "run.json").read_bytes()
    with pytest.raises(UserError, match="have changed since"):
        dltoolkit.resume(run, epochs=2)
    assert (run.path / "run.json").read_bytes() == before


def test_resume_to_another_length_explains_if_the_result_differs(train, monkeypatch, capfd):
    uninterrupted = train(epochs=3, name="uninterrupted")
    stop_at(11, lambda: train(epochs=3, name="cut"), monkeypatch)
    cut = load_toy(uninterrupted.path.parent / "cut")
    capfd.readouterr()
    assert equal(dltoolkit.resume(cut, epochs=3), uninterrupted)
    assert "learning rate" not in capfd.readouterr().err
    longer = dltoolkit.resume(cut, epochs=5)
    assert (
        "learning rate of the first 24 steps was planned for 24 steps, so the result is not" in capfd.readouterr().err
    )
    assert len(longer.history) == 5


def test_resume_records_a_new_length_immediately(train, monkeypatch):
    run = train(epochs=2)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", lambda *_: (_ for _ in ()).throw(Interrupted(9)))
        with pytest.raises(Interrupted):
            dltoolkit.resume(run, epochs=5)
    assert load_toy(run.path).info["plan"]["steps"] == 40
    assert len(dltoolkit.resume(load_toy(run.path)).history) == 5


def test_resume_follows_the_plan_that_was_made_from_the_speed(train, tmp_path, monkeypatch):
    reads = itertools.count()

    def steady_budget(*arguments, clock, **options):
        return TimeBudget(*arguments, clock=lambda: next(reads) * 0.05, **options)

    def record_and_die(self, record=callbacks.TrainingStateCallback._record_plan):
        record(self)
        if self._state.planned_steps:
            raise Interrupted(9)

    with monkeypatch.context() as patch:
        patch.setattr(fit, "TimeBudget", steady_budget)
        patch.setattr(callbacks.TrainingStateCallback, "_record_plan", record_and_die)
        with pytest.raises(Interrupted):
            train(max_time="20s", name="cut")
    cut = load_toy("cut", tmp_path)
    planned = cut.info["plan"]["steps"]
    assert 50 < planned < 250
    assert len(checkpoints(cut)) >= 1
    other = shutil.copytree(cut.path, cut.path.parent / "other")
    one, two = dltoolkit.resume(cut), dltoolkit.resume(load_toy(other))
    assert one.history[-1]["step"] == planned
    assert one.history[-1]["learning_rate"] < 0.1 * max(row["learning_rate"] for row in one.history)
    assert equal(one, two)


# Killed processes


@pytest.mark.parametrize(
    "options",
    [{"precision": "float16"}, {"optimizer": "muon"}, {"optimizer": "sgd", "ema_decay": 0.9, "metric": "macro_f1"}],
)
def test_resume_is_exact_for_every_optimizer_and_precision(train, monkeypatch, options):
    uninterrupted = train(epochs=2, name="uninterrupted", **options)
    stop_at(11, lambda: train(epochs=2, name="cut", **options), monkeypatch)
    assert equal(dltoolkit.resume(load_toy(uninterrupted.path.parent / "cut")), uninterrupted)


def test_resume_trains_a_run_that_was_killed_before_training(train, tmp_path):
    uninterrupted = train(epochs=2, name="uninterrupted")
    killed = Run.create(
        str(FILE), uninterrupted.config.__class__(out_dir=str(tmp_path), epochs=2, name="killed"), "toy"
    )
    (killed.path / ".model.keras.partial.keras").write_bytes(b"partial")
    (killed.path / "checkpoint").mkdir()
    (killed.path / "checkpoint" / ".step-00000004.npz.partial").write_bytes(b"partial")
    resumed = dltoolkit.resume(load_toy(killed.path))
    assert equal(resumed, uninterrupted)
    assert [path.name for path in resumed.path.rglob("*") if files.PARTIAL_MARK in path.name] == []


def test_resume_keeps_a_run_that_was_killed_before_training_if_it_is_refused(train, tmp_path):
    config = train(epochs=1).config
    killed = Run.create(str(FILE), config, "toy")
    with pytest.raises(UserError, match="GPU"):
        dltoolkit.resume(load_toy(killed.path), device="gpu:99")
    assert load_toy(killed.path).info["state"] == "starting"


def test_create_takes_over_a_directory_that_a_killed_process_left(tmp_path):
    path = tmp_path / "image-classifier" / "mine"
    path.mkdir(parents=True)
    (path / ".run.json.partial").write_text("{")
    shipped = str(recipe.names()["image-classifier"])
    options = RunConfig(out_dir=str(tmp_path), name="mine")
    assert Run.create(shipped, options, "digits").path == path
    assert {one.name for one in path.iterdir()} == {"run.json", ".lock"}
    (path / "run.json").rename(path / "notes.txt")
    with pytest.raises(UserError, match="already exists"):
        Run.create(shipped, options, "digits")


def test_resume_is_refused_while_another_process_uses_the_run(train, tmp_path):
    run = train(epochs=1)
    before = (run.path / "run.json").read_bytes()
    code = """
        import sys, time
        from pathlib import Path
        from dltoolkit import files
        with files.exclusive_lock(Path(sys.argv[1])):
            print("locked", flush=True)
            time.sleep(60)
    """
    first = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(run.path)], stdout=subprocess.PIPE, text=True
    )
    assert first.stdout.readline() == "locked\n"
    words = command("resume", str(run.path), "--recipe", str(FILE), "--epochs", "2", out_dir=tmp_path)
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        2,
        f"Error: Another process is using {run.path}: wait until that process has ended, or stop it.\n",
    )
    assert (run.path / "run.json").read_bytes() == before
    first.kill()
    first.wait()
    assert len(dltoolkit.resume(run, epochs=2).history) == 2


def forge(path: Path, **arrays) -> None:
    """Write a checkpoint with a valid digest."""
    with path.open("w+b") as file:
        np.savez(file, **arrays)
        file.write(checkpoint._digest(file, file.seek(0, 2)))


def test_checkpoints_with_a_valid_digest_are_data(train, tmp_path, capfd):
    import keras

    run = train(epochs=1)
    newest = checkpoints(run)[-1]
    with np.load(newest) as archive:
        arrays = dict(archive)
    executed = tmp_path / "executed"

    class Evil:
        def __reduce__(self):
            return (executed.touch, ())

    state = json.loads(arrays["state"].tobytes())
    key = next(name for name in arrays if name.startswith("model/"))
    wrong_states = [
        *({**state, "step": value} for value in ("many", -1, 2.5, [])),
        *(
            {**state, "history": value}
            for value in (3, [3], [{"epoch": "one"}], [{"epoch": 1}], [{"epoch": 1, "step": -1}])
        ),
        {**state, "history": [*state["history"], {"epoch": 2, "step": 9, "=cmd()": 1.0}]},
        {**state, "best_score": [1]},
        {**state, "unknown": 3},
    ]
    encoded = [np.frombuffer(json.dumps(each).encode(), np.uint8) for each in wrong_states]
    encoded += [np.frombuffer(text, np.uint8) for text in (b"[" * 100_000, b"\xff", b"", b'{"step": 1, "step": 2}')]
    cases = [
        ({**arrays, key: np.array([Evil()], dtype=object)}, "holds Python objects, which are not loaded"),
        ({**arrays, key: arrays[key].astype("U3")}, "does not fit the network"),
        ({**arrays, key: arrays[key].astype("float64")}, "does not fit the network"),
        ({**arrays, key: arrays[key][..., :1]}, "does not fit the network"),
        ({name: array for name, array in arrays.items() if name != "state"}, "does not fit the network"),
        *(({**arrays, "state": content}, "does not fit the network") for content in encoded),
        ({**arrays, "state": np.frombuffer(b"{}", np.uint8)}, "is incomplete: it has no 'best_score'"),
    ]
    model = run.model
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    optimizer.compile(model, run.config, 64, loss=loss, metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    for forged, words in cases:
        for path in checkpoints(run):
            path.unlink()
        forge(newest, **forged)
        capfd.readouterr()
        message = ""
        try:
            assert checkpoint.restore(run, model) is None
        except UserError as error:
            message = str(error)
        assert words in message + capfd.readouterr().err
    assert not executed.exists()
    history = checkpoint.TrainingState(history=[{"epoch": 1, "step": 8}])
    clock = SimpleNamespace(now=lambda: 0.0)
    callback = callbacks.HistoryCSV(run, history, lambda step: 0.1, clock)
    callback.on_epoch_begin(1)
    callback.on_test_begin()
    with pytest.raises(UserError, match="has other columns of history.csv than this training"):
        callback.on_epoch_end(1, {"loss": 1.0})


# Failing writes


def test_resume_continues_after_a_full_disk(train, tmp_path):
    """The kernel refuses files above a limit, as it would on a full disk."""
    uninterrupted = train(epochs=3, hidden=300, name="uninterrupted")
    code = """
        import resource
        from dltoolkit.cli import app
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
        app.main()
    """
    words = command("train", str(FILE), "--epochs", "3", "--hidden", "300", "--name", "cut", out_dir=tmp_path)[3:]
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), *words], capture_output=True, text=True)
    path = uninterrupted.path.parent / "cut"
    assert done.returncode == 2
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    assert error == done.stderr.splitlines()[-1]
    assert "Cannot write" in error
    assert error.endswith(f"resume with: dltoolkit resume {path} --recipe {FILE}")
    assert not [one for one in path.rglob("*") if files.PARTIAL_MARK in one.name]
    assert load_toy(path).info["state"] == "failed"
    assert equal(dltoolkit.resume(load_toy(path)), uninterrupted)


def test_resume_leaves_a_read_only_run_unchanged(train, request):
    run = train(epochs=1)
    before = (run.path / "run.json").read_bytes()
    run.path.chmod(0o555)
    request.getfixturevalue("unprivileged_user")
    with pytest.raises(UserError, match="Cannot write .*Permission denied"):
        dltoolkit.resume(run, epochs=2)
    assert (run.path / "run.json").read_bytes() == before


# Cost


@pytest.mark.parametrize(
    ("expected", "seconds", "first", "maximum"),
    [(0.0, 0.0, 8, 31), (0.0, 0.3, 8, 2), (10.0, 0.0, 30 * 8, 1)],
    ids=["fast", "slow", "expected to be slow"],
)
def test_checkpoints_are_written_by_their_cost(train, monkeypatch, expected, seconds, first, maximum):
    written = []

    def slow_save(run, state, model, best, save=checkpoint.save):
        time.sleep(seconds)
        written.append(state.step)
        return save(run, state, model, best)

    monkeypatch.setattr(checkpoint, "save", slow_save)
    monkeypatch.setattr(callbacks, "EXPECTED_SECONDS", expected)
    train(epochs=30)
    assert written[0] == first, "the end of an epoch"
    assert written[-1] == 30 * 8, "the end of training"
    assert len(written) <= maximum
