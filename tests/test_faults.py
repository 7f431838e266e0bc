"""Tests that a run that is killed while it writes a file ends like an uninterrupted run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy_training import FILE, equal, load_toy

import dltoolkit
from dltoolkit import recipe
from dltoolkit.training import callbacks

HARNESS = Path(__file__).parents[1] / "benchmarks" / "faults.py"


class Killed(BaseException):
    """Ends a training run like a kill: nothing that handles exceptions of users or of programs handles this."""


@pytest.mark.parametrize("complete", [False, True], ids=["before renaming", "after renaming"])
def test_resume_is_exact_after_a_kill_at_a_file(tmp_path, monkeypatch, complete):
    """Kill the process at its fourth file, and the resumed process at its next ones, until one ends."""
    monkeypatch.setattr(callbacks, "EXPECTED_SECONDS", 0.0)  # write a checkpoint after every epoch
    toy = recipe.load(str(FILE))
    config = toy.Config(epochs=2, out_dir=str(tmp_path), name="uninterrupted")
    uninterrupted = toy.train(config)
    remaining, kills, replace = 4, 0, os.replace

    def replace_and_die(source, target):
        nonlocal remaining
        remaining -= 1
        if remaining == 0 and not complete:
            raise Killed
        replace(source, target)
        if remaining == 0:
            raise Killed

    monkeypatch.setattr(os, "replace", replace_and_die)
    path = uninterrupted.path.parent / "killed"
    while True:
        try:
            if (path / "run.json").exists():
                dltoolkit.resume(load_toy(path))
            else:
                toy.train(toy.Config(epochs=2, out_dir=str(tmp_path), name="killed"))
            break
        except Killed:
            kills += 1
            remaining = 4 + kills  # more files than before, so that the run makes progress
    assert kills >= 2
    assert equal(load_toy(path), uninterrupted)


@pytest.mark.slow
def test_fault_benchmark_reports_no_lost_run():
    command = [
        sys.executable,
        str(HARNESS),
        "--kills",
        "2",
        "--workers",
        "0",
        "--no-conditions",
        "--recipe",
        "image-classifier",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kills" in done.stdout
    assert "0 runs lost or different from the uninterrupted run" in done.stdout
