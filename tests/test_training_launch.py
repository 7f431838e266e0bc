"""Tests of ``dltoolkit launch`` with real workers on this machine."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import toy_training

import dltoolkit
from dltoolkit import recipe
from dltoolkit.training.distribute import launch as launcher_module
from dltoolkit.training.distribute import launcher_pipe
from dltoolkit.training.distribute.launch import Worker

FILE = str(toy_training.FILE)
# Options with which the result does not depend on the number of replicas
EXACT = ["--optimizer", "sgd", "--dropout", "0", "--precision", "float32"]


def launch(folder: Path, *arguments: str, options: tuple[str, ...] = ("--workers", "2")) -> subprocess.Popen:
    command = [sys.executable, "-m", "dltoolkit", "launch", *options, "--", *arguments]
    environment = {**os.environ, "http_proxy": "http://127.0.0.1:9"}  # a proxy that workers must not use
    command += ["--out-dir", str(folder)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, preexec_fn=take_signals, **pipes)


def take_signals() -> None:
    """Let a process end on signals that what started the tests, such as nohup, may ignore."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def worker_ids(launcher: subprocess.Popen) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()]


def ports_of(worker: int) -> list[int]:
    """Return the ports of all workers, from the environment of one."""
    variables = Path(f"/proc/{worker}/environ").read_bytes().split(b"\0")
    (tf_config,) = [value.removeprefix(b"TF_CONFIG=") for value in variables if value.startswith(b"TF_CONFIG=")]
    return [int(address.rpartition(":")[2]) for address in json.loads(tf_config)["cluster"]["worker"]]


def wait_for_first_epoch(run: Path, launcher: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not (run / "history.csv").exists():
        assert launcher.poll() is None and time.monotonic() < deadline, launcher.communicate()
        time.sleep(0.05)


@pytest.mark.slow
def test_launch_trains_with_two_workers_as_with_one(tmp_path):
    toy = recipe.load(FILE)
    toy.train(
        toy.Config(
            epochs=2, optimizer="sgd", dropout=0.0, precision="float32", device="cpu", name="one", out_dir=str(tmp_path)
        )
    )
    launcher = launch(tmp_path, "train", FILE, "--epochs", "2", *EXACT, "--name", "two")
    output, errors = launcher.communicate(timeout=240)
    assert launcher.returncode == 0, errors
    assert output.count("report.html") == 1, "only the chief prints the summary"
    lines = errors.splitlines()
    assert [line[:20] for line in lines if "epoch" in line] == ["worker 0: epoch 1/2 ", "worker 0: epoch 2/2 "]
    one, two = (dltoolkit.load(tmp_path / "toy-recipe" / name) for name in ("one", "two"))
    assert two.info["device"]["workers"] == two.info["device"]["replicas"] == 2
    for a, b in zip(one.model.get_weights(), two.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)  # float32 rounding over 16 steps
    assert sorted(path.name for path in (tmp_path / "toy-recipe").iterdir()) == ["one", "two"], "only the chief writes"
    assert {path.name for path in one.path.iterdir()} == {path.name for path in two.path.iterdir()}


@pytest.mark.parametrize(
    "fault",
    [pytest.param(signal.SIGKILL, id="killed"), pytest.param(signal.SIGSTOP, marks=pytest.mark.slow, id="frozen")],
)
def test_launch_ends_all_workers_when_one_is_lost(tmp_path, fault):
    run = tmp_path / "toy-recipe" / "lost"
    launcher = launch(tmp_path, "train", FILE, "--epochs", "100000", "--name", "lost", *EXACT)
    wait_for_first_epoch(run, launcher)
    workers = worker_ids(launcher)
    for port in ports_of(workers[0]):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        with pytest.raises(TimeoutError):  # another address of this machine is a stranger, too
            socket.create_connection(("127.0.0.1", port), timeout=0.2, source_address=("127.0.0.2", 0))
    os.kill(workers[1], fault)
    _, errors = launcher.communicate(timeout=120)
    assert launcher.returncode == 1, errors
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    (error,) = [line for line in errors.splitlines() if "Error: " in line]
    assert error.startswith("Error: "), errors
    assert error.endswith(f"dltoolkit launch --workers 2 -- resume {run} --recipe {FILE}"), error
    assert dltoolkit.load(run).info["state"] in ("interrupted", "running")
    if fault == signal.SIGSTOP:  # the slow case also resumes the run
        epochs = len(dltoolkit.load(run).history) + 1
        again = launch(tmp_path, "resume", str(run), "--recipe", FILE, "--epochs", str(epochs))
        _, errors = again.communicate(timeout=240)
        assert again.returncode == 0, errors
        assert dltoolkit.load(run).info["state"] == "finished"
        assert len(dltoolkit.load(run).history) == epochs


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_launch_forwards_a_signal_and_the_run_is_saved(tmp_path, number):
    run = tmp_path / "toy-recipe" / "cut"
    launcher = launch(tmp_path, "train", FILE, "--epochs", "100000", "--name", "cut", *EXACT)
    wait_for_first_epoch(run, launcher)
    launcher.send_signal(number)
    _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == 128 + number, errors
    assert errors.splitlines()[-1].startswith("Error: Interrupted")
    assert errors.splitlines()[-1].endswith(f"dltoolkit launch --workers 2 -- resume {run} --recipe {FILE}")
    cut = dltoolkit.load(run)
    assert cut.info["state"] == "interrupted"
    newest = sorted((run / "checkpoint").iterdir())[-1].name
    assert int(newest.removeprefix("step-").removesuffix(".npz")) >= cut.history[-1]["step"]


def test_launch_prints_the_error_of_a_wrong_option_once(tmp_path):
    launcher = launch(tmp_path, "train", "image-classifier", "--epochs", "many")
    output, errors = launcher.communicate(timeout=60)
    assert (launcher.returncode, output) == (2, "")
    assert errors == "Error: --epochs must be a whole number, not 'many'.\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("predict", "latest", "x.png"), ("--workers", "2"), "Error: launch is for training"),
        (("train", FILE), ("--workers", "2", "--timeout", "soon"), "Error: --timeout must be a time"),
        (("train", FILE), ("--workers", "1"), "Error: Invalid value for '--workers'"),
    ],
)
def test_launch_refuses_invalid_arguments(tmp_path, arguments, options, message):
    launcher = launch(tmp_path, *arguments, options=options)
    _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == 2
    assert errors.startswith(message), errors


def worker(index: int, code: str) -> Worker:
    """Return a worker that runs Python code."""
    return Worker(index, subprocess.Popen([sys.executable, "-c", code]))


def test_a_worker_that_ends_slowly_after_the_chief_is_no_failure(monkeypatch):
    monkeypatch.setattr(launcher_module, "END_SECONDS", 0.2)
    workers = [worker(0, ""), worker(1, "import time; time.sleep(100)")]
    assert launcher_module._supervise(workers) is None
    assert workers[1].process.returncode == -signal.SIGKILL


def test_a_worker_that_fails_after_the_chief_has_ended_is_no_failure():
    workers = [worker(0, ""), worker(1, "import time; time.sleep(0.3); raise SystemExit(1)")]
    assert launcher_module._supervise(workers) is None


def test_a_worker_that_dies_before_the_others_are_there_ends_them():
    workers = [worker(0, "import time; time.sleep(100)"), worker(1, "import os; os.kill(os.getpid(), 9)")]
    assert launcher_module._supervise(workers) is workers[1]
    assert workers[0].process.returncode == -signal.SIGTERM


def test_a_worker_stops_when_the_launcher_is_killed():
    pipe, write_end = os.pipe()
    code = "from dltoolkit.training.distribute import launcher_pipe as pipe; pipe.stop_with_launcher(); print(); "
    process = subprocess.Popen(
        [sys.executable, "-c", f"{code} import time; time.sleep(100)"],
        env={**os.environ, launcher_pipe.PIPE_VARIABLE: str(pipe), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        pass_fds=[pipe],
    )
    with process:
        os.close(pipe)
        assert process.stdout.readline()
        assert process.poll() is None
        os.close(write_end)
        assert process.wait(timeout=60) == -signal.SIGTERM
