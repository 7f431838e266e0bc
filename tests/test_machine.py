"""Tests of what the machine must provide."""

import time

from conftest import run_command

from dltoolkit import machine


def test_a_clock_before_1980_is_refused_before_training(capfd, tmp_path, monkeypatch):
    """The zip file of a model cannot hold such a time, so that training would end without a model."""
    monkeypatch.setattr(machine.time, "localtime", lambda: time.gmtime(0))
    code, out, err = run_command(capfd, "train", "image-classifier", "--out-dir", str(tmp_path))
    assert (code, out) == (2, "")
    assert err == ("Error: A model cannot be saved, because the clock of this machine stands at 1970: set the clock.\n")
    assert not list(tmp_path.iterdir())
