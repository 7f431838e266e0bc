"""Runs that were killed, damaged or changed: they go on as if nothing had happened, or say what is the matter."""

import itertools
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from test_training_fit import FILE, command, same_but_seconds, stopped_at, weights

import dltoolkit
from dltoolkit import files, recipe
from dltoolkit.config import RunConfig
from dltoolkit.errors import UserError
from dltoolkit.interrupt import Interrupted
from dltoolkit.run import Run
from dltoolkit.training import callbacks as watcher
from dltoolkit.training import checkpoint, fit, optimizer
from dltoolkit.training import time_budget as plan


@pytest.fixture
def train(tmp_path):
    toy = recipe.load(str(FILE))

    def go(**options):
        return toy.train(toy.Config(out_dir=str(tmp_path), **options))

    return go


def same(one: Run, two: Run) -> bool:
    """Whether two runs have come to the same."""
    pairs = zip(weights(one), weights(two), strict=True)
    return same_but_seconds(one) == same_but_seconds(two) and all((a == b).all() for a, b in pairs)


def checkpoints(run: Run) -> list[Path]:
    return sorted((run.path / "checkpoint").iterdir())


def flipped(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << place % 8
    path.write_bytes(content)


# What is damaged


def test_no_changed_byte_of_a_checkpoint_goes_unnoticed(train, capfd):
    import keras

    run = train(epochs=2)
    dltoolkit.resume(run, epochs=4)
    newest = checkpoints(run)[-1]
    model = run.model
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    optimizer.compile(model, run.config, 64, loss=loss, metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)

    def restored() -> bytes:
        state, best, _ = checkpoint.restore(run, model)
        variables = [*model.variables, *model.optimizer.variables]
        return repr(state).encode() + b"".join(np.asarray(each).tobytes() for each in [*variables, *best])

    content, good = newest.read_bytes(), restored()
    newest.unlink()
    before = restored()
    for place in [*range(0, len(content), 61), *range(len(content) - 300, len(content))]:  # the end holds most lists
        newest.write_bytes(content)
        flipped(newest, place)
        assert restored() == before, f"byte {place}"
    assert "is damaged" in capfd.readouterr().err
    for size in (0, 10, 1000, len(content) - 1):
        newest.write_bytes(content[:size])
        assert restored() == before
    newest.write_bytes(content)
    assert restored() == good


def test_checkpoints_that_are_all_damaged_do_not_stand_in_the_way(train, monkeypatch, capfd):
    whole = train(epochs=3, name="whole")
    stopped_at(20, lambda: train(epochs=3, name="cut"), monkeypatch)
    cut = dltoolkit.load(whole.path.parent / "cut")
    for path in checkpoints(cut):
        flipped(path, path.stat().st_size // 2)
    damaged = checkpoints(cut)
    stopped_at(6, lambda: dltoolkit.resume(cut), monkeypatch)
    assert "No checkpoint can be read; training begins anew." in capfd.readouterr().err
    assert [path.name for path in checkpoints(cut)] == ["step-00000006.npz"], f"not {damaged}"
    assert same(dltoolkit.resume(cut), whole)


def test_a_checkpoint_of_another_network_is_refused(train):
    run = train(epochs=1)
    run.update(config={"hidden": 8})  # edited by hand
    with pytest.raises(UserError, match="does not fit the network"):
        dltoolkit.resume(run, epochs=2)


def test_a_damaged_run_json_is_named(train):
    run = train(epochs=1)
    (run.path / "run.json").write_bytes((run.path / "run.json").read_bytes()[:100])
    with pytest.raises(UserError, match=r"run\.json is damaged or cannot be read: without it the run cannot go on"):
        dltoolkit.resume(run.path)


def test_other_damaged_files_are_written_again(train):
    run = train(epochs=2)
    before, trained = same_but_seconds(run), weights(run)
    for name in ("history.csv", "model.keras"):
        (run.path / name).write_bytes(b"damaged")
    again = dltoolkit.resume(dltoolkit.load(run.path))
    assert same_but_seconds(again) == before
    assert all((a == b).all() for a, b in zip(weights(again), trained, strict=True))


# What is changed


def test_only_length_and_device_can_change(train, tmp_path):
    run = train(epochs=1)
    before = (run.path / "run.json").read_bytes()
    with pytest.raises(
        UserError, match="so batch_size, learning_rate cannot be changed: only epochs, max_time, device"
    ):
        dltoolkit.resume(run, learning_rate=0.1, batch_size=3, epochs=3)
    words = command("resume", str(run.path), "--learning-rate", "0.1", cwd=tmp_path)
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2
    assert "a run goes on with the options that it began with" in done.stderr
    assert done.stderr.count("\n") == 1
    assert (run.path / "run.json").read_bytes() == before


def test_changed_data_are_refused_and_the_run_is_as_it_was(train):
    run = train(epochs=1)
    run.update(data={"fingerprint": "of what the data were"})
    before = (run.path / "run.json").read_bytes()
    with pytest.raises(UserError, match="have changed since"):
        dltoolkit.resume(run, epochs=2)
    assert (run.path / "run.json").read_bytes() == before


def test_another_length_is_the_same_where_it_can_be_and_says_so_where_not(train, monkeypatch, capfd):
    whole = train(epochs=3, name="whole")
    stopped_at(11, lambda: train(epochs=3, name="cut"), monkeypatch)
    cut = dltoolkit.load(whole.path.parent / "cut")
    capfd.readouterr()
    assert same(dltoolkit.resume(cut, epochs=3), whole)
    assert "learning rate" not in capfd.readouterr().err
    longer = dltoolkit.resume(cut, epochs=5)
    assert "learning rate of the 24 steps so far was planned for 24, so the result is not" in capfd.readouterr().err
    assert len(longer.history) == 5


def test_a_new_length_holds_when_the_resumed_run_is_killed_at_once(train, monkeypatch):
    run = train(epochs=2)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", lambda *_: (_ for _ in ()).throw(Interrupted(9)))
        with pytest.raises(Interrupted):
            dltoolkit.resume(run, epochs=5)
    assert dltoolkit.load(run.path).info["plan"]["steps"] == 40
    assert len(dltoolkit.resume(run.path).history) == 5


def test_a_plan_made_from_the_speed_is_kept_with_where_it_was_made_and_followed(train, tmp_path, monkeypatch):
    ticks = itertools.count()

    def clocked(*arguments, clock, **options):
        return plan.TimeBudget(*arguments, clock=lambda: next(ticks) * 0.05, **options)

    def killed(self, record=watcher.Watcher._record_plan):
        record(self)
        if self._state.planned:
            raise Interrupted(9)

    with monkeypatch.context() as patch:
        patch.setattr(fit, "TimeBudget", clocked)
        patch.setattr(watcher.Watcher, "_record_plan", killed)
        with pytest.raises(Interrupted):
            train(max_time="20s", name="cut")
    cut = dltoolkit.load("cut", tmp_path)
    planned = cut.info["plan"]["steps"]
    assert 100 < planned < 250
    assert len(checkpoints(cut)) >= 1
    other = shutil.copytree(cut.path, cut.path.parent / "other")
    one, two = dltoolkit.resume(cut), dltoolkit.resume(other)
    assert one.history[-1]["step"] == planned
    assert one.history[-1]["learning_rate"] < 0.1 * max(row["learning_rate"] for row in one.history)
    assert same(one, two)


# What is killed


@pytest.mark.parametrize("options", [{"precision": "float16"}, {"optimizer": "muon"}, {"optimizer": "sgd", "ema": 0.9}])
def test_every_optimizer_and_number_format_goes_on_exactly(train, monkeypatch, options):
    whole = train(epochs=2, name="whole", **options)
    stopped_at(11, lambda: train(epochs=2, name="cut", **options), monkeypatch)
    assert same(dltoolkit.resume(whole.path.parent / "cut"), whole)


def test_a_run_killed_before_its_training_begins_anew(train, tmp_path):
    whole = train(epochs=2, name="whole")
    killed = Run.create(str(FILE), whole.config.__class__(out_dir=str(tmp_path), epochs=2, name="killed"), "toy")
    (killed.path / ".model.keras.partial.keras").write_bytes(b"half of it")
    (killed.path / "checkpoint").mkdir()
    (killed.path / "checkpoint" / ".step-00000004.npz.partial").write_bytes(b"half of it")
    resumed = dltoolkit.resume(killed.path)
    assert same(resumed, whole)
    assert [path.name for path in resumed.path.rglob("*") if files.MARK in path.name] == []


def test_a_run_killed_before_its_training_is_kept_when_it_cannot_go_on(train, tmp_path):
    config = train(epochs=1).config
    killed = Run.create(str(FILE), config, "toy")
    with pytest.raises(UserError, match="GPU"):
        dltoolkit.resume(killed.path, device="gpu:99")
    assert dltoolkit.load(killed.path).info["state"] == "starting"


def test_a_directory_without_a_run_does_not_stand_in_the_way(tmp_path):
    path = tmp_path / "image-classifier" / "mine"
    path.mkdir(parents=True)
    (path / ".run.json.partial").write_text("{")
    shipped = str(recipe.names()["image-classifier"])
    options = RunConfig(out_dir=str(tmp_path), name="mine")
    assert Run.create(shipped, options, "digits").path == path
    assert [one.name for one in path.iterdir()] == ["run.json"]
    (path / "run.json").rename(path / "notes.txt")
    with pytest.raises(UserError, match="exists already"):
        Run.create(shipped, options, "digits")


def test_a_second_process_on_a_run_is_refused_until_the_first_is_gone(train, tmp_path):
    run = train(epochs=1)
    before = (run.path / "run.json").read_bytes()
    code = """
        import sys, time
        from pathlib import Path
        from dltoolkit import files
        with files.exclusive_lock(Path(sys.argv[1])):
            print("in", flush=True)
            time.sleep(60)
    """
    first = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(run.path)], stdout=subprocess.PIPE, text=True
    )
    assert first.stdout.readline() == "in\n"
    words = command("resume", str(run.path), "--epochs", "2", cwd=tmp_path)
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        2,
        f"Error: Another process is at work in {run.path}: wait until it has ended, or stop it.\n",
    )
    assert (run.path / "run.json").read_bytes() == before
    first.kill()
    first.wait()
    assert len(dltoolkit.resume(run, epochs=2).history) == 2


# What cannot be written


def test_a_full_disk_stops_a_run_which_goes_on_when_there_is_room(train, tmp_path):
    """A real failing write: the kernel refuses files above a limit."""
    whole = train(epochs=3, hidden=300, name="whole")
    code = """
        import resource
        from dltoolkit import cli
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
        cli.main()
    """
    words = command("train", str(FILE), "--epochs", "3", "--hidden", "300", "--name", "cut", cwd=tmp_path)[3:]
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), *words], capture_output=True, text=True)
    path = whole.path.parent / "cut"
    assert done.returncode == 2
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    assert error == done.stderr.splitlines()[-1]
    assert "Cannot write" in error
    assert error.endswith(f"go on with: dltoolkit resume {path}")
    assert not [one for one in path.rglob("*") if files.MARK in one.name]
    assert dltoolkit.load(path).info["state"] == "failed"
    assert same(dltoolkit.resume(path), whole)


def test_a_run_that_may_not_be_written_is_as_it_was(train, request):
    run = train(epochs=1)
    before = (run.path / "run.json").read_bytes()
    run.path.chmod(0o555)
    request.getfixturevalue("unprivileged_user")
    with pytest.raises(UserError, match="Cannot write .*Permission denied"):
        dltoolkit.resume(run, epochs=2)
    assert (run.path / "run.json").read_bytes() == before


# What it costs


@pytest.mark.parametrize(
    ("expected", "seconds", "first", "most"),
    [(0.0, 0.0, 8, 31), (0.0, 0.3, 8, 2), (10.0, 0.0, 30 * 8, 1)],
    ids=["cheap", "dear", "feared"],
)
def test_checkpoints_are_written_by_what_they_cost(train, monkeypatch, expected, seconds, first, most):
    written = []

    def saved(run, state, model, best, save=checkpoint.save):
        time.sleep(seconds)
        written.append(state.step)
        return save(run, state, model, best)

    monkeypatch.setattr(checkpoint, "save", saved)
    monkeypatch.setattr(watcher, "EXPECTED_SECONDS", expected)
    train(epochs=30)
    assert written[0] == first, "an epoch's end"
    assert written[-1] == 30 * 8, "the end"
    assert len(written) <= most
