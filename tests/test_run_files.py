"""Tests of links and special files inside a run: none is followed, opened or waited for."""

import csv
import io
import os
import shutil

import pytest
from conftest import make_special, run_command

import dltoolkit
from dltoolkit import recipe
from dltoolkit.config import RunConfig
from dltoolkit.errors import UserError
from dltoolkit.run import Run

FILES = (
    *("run.json", "metrics.json", "history.csv", "model.keras", "vocabulary.txt", "predictions.csv", ".lock"),
    *("checkpoint/step-00000001.npz", "plots/confusion.png", "samples/epoch-0001.txt", "curve/a/model.keras"),
    *(".history.csv.partial", "plots/.confusion.png.partial", "tensorboard/events", "exports/onnx/model.onnx"),
)
KINDS = ("a pipe", "a device", "a socket", "a symbolic link")


@pytest.fixture
def runs(tmp_path):
    """Make two runs, of which the second one is the latest, and return them."""
    made = []
    for name in ("good", "bad"):
        settings = RunConfig(out_dir=str(tmp_path / "runs"), name=name, data="digits")
        made.append(Run.create(str(recipe.names()["image-classifier"]), settings, "digits"))
    made[1].update(created="2999-01-01T00:00:00+00:00")
    return made


def put(run, name, kind, victim):
    """Put a special file, or a link to ``victim``, in the place of a file of a run."""
    path = run.path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if kind == "a symbolic link":
        path.symlink_to(victim)
    elif kind == "a device":  # without being root, a test cannot make one
        path.symlink_to("/dev/zero")
    else:
        make_special(path, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_load_refuses_links_and_special_files(runs, tmp_path, kind):
    victim = tmp_path / "victim"
    shutil.copy(runs[1].path / "run.json", victim)  # valid contents do not make a link valid
    content = victim.read_bytes()
    shown = kind if kind in ("a pipe", "a socket") else "a symbolic link"
    for name in FILES:
        put(runs[1], name, kind, victim)
        for run in (runs[1].path, "bad"):
            with pytest.raises(UserError, match=f"bad/{name} is {shown}"):
                dltoolkit.load(run, tmp_path / "runs")
        assert [run.path.name for run in dltoolkit.runs(tmp_path / "runs")] == ["good"]
        assert dltoolkit.load("latest", tmp_path / "runs").path.name == "good"
        (runs[1].path / name).unlink()
        shutil.copy(victim, runs[1].path / "run.json")
        assert dltoolkit.load(runs[1].path).info["name"] == "bad"
    assert victim.read_bytes() == content


@pytest.mark.parametrize("name", ["checkpoint", "plots", "samples", "curve", "tensorboard", "anything", "curve/deep"])
def test_no_verb_follows_a_linked_folder(runs, tmp_path, capfd, name):
    victim = tmp_path / "victim"
    for file in ("step-00000000.npz", "step-99999999.npz", "confusion.png", ".epoch-0001.png.partial"):
        (victim / file).parent.mkdir(exist_ok=True)
        (victim / file).write_text("mine")
    link = runs[1].path / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(victim)
    message = f"Error: {link} is a symbolic link, and links inside {runs[1].path} are not followed: replace it with "
    for words in (["show"], ["resume"], ["evaluate"], ["predict", "x.png"], ["generate"]):
        code, out, err = run_command(capfd, words[0], str(runs[1].path), *words[1:])
        assert (code, out) == (2, "")
        assert err.startswith(message)
    assert {(path.name, path.read_text()) for path in victim.iterdir()} == {
        ("step-00000000.npz", "mine"),
        ("step-99999999.npz", "mine"),
        ("confusion.png", "mine"),
        (".epoch-0001.png.partial", "mine"),
    }


def test_list_shows_the_other_runs_and_names_the_bad_one(runs, tmp_path, capfd):
    put(runs[1], "run.json", "a pipe", None)
    code, out, err = run_command(capfd, "list", "runs", "--out-dir", str(tmp_path / "runs"))
    assert (code, "image-classifier/good" in out, "bad/run.json is a pipe, not a regular file" in err) == (
        0,
        True,
        True,
    )


def test_exclusive_lock_refuses_links_that_appeared_since_the_run_was_opened(runs, tmp_path):
    opened = dltoolkit.load(runs[1].path)
    (tmp_path / "victim").mkdir()
    (runs[1].path / "plots").symlink_to(tmp_path / "victim")
    with pytest.raises(UserError, match="plots is a symbolic link"), opened.exclusive_lock():
        pass
    (runs[1].path / "plots").unlink()
    with opened.exclusive_lock():
        pass


def test_runs_may_lie_behind_a_link(runs, tmp_path):
    (tmp_path / "elsewhere").symlink_to(tmp_path / "runs")
    (tmp_path / "runs" / "image-classifier" / "best").symlink_to("good")
    for path in (tmp_path / "elsewhere" / "image-classifier" / "good", tmp_path / "runs" / "image-classifier" / "best"):
        assert dltoolkit.load(path).info["name"] == "good"


@pytest.mark.parametrize("name", ["n" * 300, "n" * 5000, "~nobody-of-this-name/x"])
def test_impossible_names_are_answered_with_a_sentence(tmp_path, monkeypatch, capfd, name):
    monkeypatch.chdir(tmp_path)
    commands = [
        ["show", name],
        ["show", "latest", "--out-dir", name],
        ["copy", "image-classifier", name],
        ["train", f"./{name}.py"],
        ["train", "image-classifier", "--config", name],
        ["check-data", name],
    ]
    for words in commands:
        code, out, err = run_command(capfd, *words)
        assert (code, out, err.count("\n"), err[:7]) == (2, "", 1, "Error: "), (words[0], err[-200:])
    assert list(tmp_path.iterdir()) == []


def test_a_table_with_line_ends_in_its_cells_is_read_as_it_was_written(runs):
    rows = [{"input": text, "finding": "x"} for text in ("a\rb", "a\r\nb", "a\nb", 'a"b', "a,b", " a")]
    content = runs[0].write_rows("findings.csv", rows).read_bytes()
    assert list(csv.DictReader(io.StringIO(content.decode(), newline=""))) == rows
    assert content.endswith(b"\n a,x\n")


def test_a_date_in_the_future_does_not_make_a_run_the_latest(runs, tmp_path):
    os.utime(runs[1].path / "run.json", (10**9, 10**9))
    assert dltoolkit.load("latest", tmp_path / "runs").path.name == "good"


# Some file systems keep times of the years -600 to 11000, which Python's dates cannot hold
@pytest.mark.parametrize("written", [4 * 10**9, 3 * 10**11, -8 * 10**10])
@pytest.mark.parametrize("created", ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"])
def test_no_time_of_a_file_makes_a_run_the_latest(runs, tmp_path, written, created):
    forged, latest = runs
    forged.update(created=created)
    os.utime(forged.path / "run.json", (written, written))
    latest.update()
    assert dltoolkit.load("latest", tmp_path / "runs").path == latest.path
