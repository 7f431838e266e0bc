"""Tests of what the machine must provide."""

import subprocess
import sys
import time

import pytest
from conftest import run_command

from dltoolkit import machine


def test_a_clock_before_1980_is_refused_before_training(capfd, tmp_path, monkeypatch):
    """The zip file of a model cannot hold such a time, so that training would end without a model."""
    monkeypatch.setattr(machine.time, "localtime", lambda: time.gmtime(0))
    code, out, err = run_command(capfd, "train", "image-classifier", "--out-dir", str(tmp_path))
    assert (code, out) == (2, "")
    assert err == ("Error: A model cannot be saved, because the clock of this machine stands at 1970: set the clock.\n")
    assert not list(tmp_path.iterdir())


def test_a_limit_that_tensorflow_would_crash_at_is_refused():
    resource = pytest.importorskip("resource")
    code = "from dltoolkit.cli import app; app.main(['doctor'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31)),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "Error: The memory of this process is limited to 2.0 GiB (ulimit -v), but TensorFlow needs 3 GiB: raise the "
        "limit.\n"
    )
