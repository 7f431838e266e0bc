"""``dltoolkit launch``: real workers on this machine, and what becomes of the rest when one of them is gone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import dltoolkit

FILE = str(Path(__file__).parent / "toy_recipe.py")
SAME = ["--optimizer", "sgd", "--dropout", "0", "--precision", "float32"]


def launch(folder: Path, *words: str, options: tuple[str, ...] = ("--workers", "2")) -> subprocess.Popen:
    command = [sys.executable, "-m", "dltoolkit", "launch", *options, "--", *words]
    return subprocess.Popen(
        [*command, "--out-dir", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def workers_of(launcher: subprocess.Popen) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()]


def until_trained(run: Path, launcher: subprocess.Popen) -> None:
    """Wait for the first epoch's end."""
    deadline = time.monotonic() + 120
    while not (run / "history.csv").exists():
        assert launcher.poll() is None and time.monotonic() < deadline, launcher.communicate()
        time.sleep(0.05)


def test_two_workers_train_like_one_and_speak_with_their_numbers(tmp_path):
    words = ("train", FILE, "--epochs", "2", *SAME)
    subprocess.run(
        [sys.executable, "-m", "dltoolkit", *words, "--name", "one", "--out-dir", str(tmp_path)],
        check=True,
        capture_output=True,
    )
    launcher = launch(tmp_path, *words, "--name", "two")
    out, errors = launcher.communicate(timeout=240)
    assert launcher.returncode == 0, errors
    assert out.count("report.html") == 1, "the chief alone says what came of it"
    lines = errors.splitlines()
    assert [line[:20] for line in lines if "epoch" in line] == ["worker 0: epoch 1/2 ", "worker 0: epoch 2/2 "]
    one, two = (dltoolkit.load(tmp_path / "toy-recipe" / name) for name in ("one", "two"))
    assert two.info["device"]["workers"] == two.info["device"]["replicas"] == 2
    for a, b in zip(one.model.get_weights(), two.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert sorted(path.name for path in (tmp_path / "toy-recipe").iterdir()) == ["one", "two"], "the chief alone writes"
    assert {path.name for path in one.path.iterdir()} == {path.name for path in two.path.iterdir()}


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_a_worker_that_is_gone_ends_all_and_the_command_that_is_said_goes_on(tmp_path, fault):
    run = tmp_path / "toy-recipe" / "lost"
    launcher = launch(tmp_path, "train", FILE, "--epochs", "100000", "--name", "lost", *SAME)
    until_trained(run, launcher)
    workers = workers_of(launcher)
    os.kill(workers[1], fault)
    began = time.monotonic()
    _, errors = launcher.communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert launcher.returncode == 1, errors
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    (error,) = [line for line in errors.splitlines() if "Error: " in line]
    assert error.startswith("Error: "), errors
    assert error.endswith(f"dltoolkit launch --workers 2 -- resume {run}"), error
    assert dltoolkit.load(run).info["state"] in ("interrupted", "running")
    if fault == signal.SIGKILL:
        steps = dltoolkit.load(run).history[-1]["step"]
        again = launch(tmp_path, "resume", str(run), "--epochs", "3")
        _, errors = again.communicate(timeout=240)
        assert again.returncode == 0, errors
        assert dltoolkit.load(run).info["state"] == "finished"
        assert dltoolkit.load(run).history[-1]["step"] >= min(steps, 24)


def test_a_signal_reaches_all_workers_and_all_is_saved(tmp_path):
    run = tmp_path / "toy-recipe" / "cut"
    launcher = launch(tmp_path, "train", FILE, "--epochs", "100000", "--name", "cut", *SAME)
    until_trained(run, launcher)
    launcher.send_signal(signal.SIGTERM)
    _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == 143, errors
    assert errors.splitlines()[-1].startswith("Error: Interrupted; the run is saved.")
    assert errors.splitlines()[-1].endswith(f"dltoolkit launch --workers 2 -- resume {run}")
    cut = dltoolkit.load(run)
    assert cut.info["state"] == "interrupted"
    newest = sorted((run / "checkpoint").iterdir())[-1].name
    assert int(newest.removeprefix("step-").removesuffix(".npz")) >= cut.history[-1]["step"]


def test_a_wrong_option_is_said_once(tmp_path):
    launcher = launch(tmp_path, "train", "image-classifier", "--epochs", "many")
    out, errors = launcher.communicate(timeout=60)
    assert (launcher.returncode, out) == (2, "")
    assert errors == "Error: --epochs must be a whole number, not 'many'.\n"
    assert not list(tmp_path.iterdir())


def test_devices_that_make_no_cluster_are_refused(tmp_path):
    launcher = launch(tmp_path, "train", FILE, "--device", "cpu:2")
    _, errors = launcher.communicate(timeout=120)
    assert launcher.returncode == 2
    assert errors.splitlines()[-1].startswith("Error: --device cpu:2 is for one process")
    assert not list(tmp_path.glob("*/*"))


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        (("predict", "latest", "x.png"), ("--workers", "2"), "Error: launch is for training"),
        (("train", FILE), ("--workers", "2", "--timeout", "soon"), "Error: --timeout must be a time"),
        (("train", FILE), ("--workers", "1"), "Error: Invalid value for '--workers'"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, words, options, message):
    launcher = launch(tmp_path, *words, options=options)
    _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == 2
    assert errors.startswith(message), errors
