"""Tests of how signals become one exception, once, unless the process was started so that it ignores them."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest
from conftest import run_command

from dltoolkit import interrupt, recipe

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def default_handlers():
    """Let no signal be ignored, whatever the process that runs the tests ignores."""
    previous = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    yield
    for number, handler in previous.items():
        signal.signal(number, handler)


def send(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_every_signal_that_ends_a_process_raises(number):
    with pytest.raises(interrupt.Interrupted) as stopped, interrupt.signals_raise(), interrupt.signals_raise():
        send(number)
    assert stopped.value.signal == number
    assert signal.getsignal(number) is signal.default_int_handler, "the handlers are restored"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_that_is_ignored_stays_ignored(number):
    signal.signal(number, signal.SIG_IGN)  # as nohup does
    with interrupt.signals_raise():
        send(number)
        assert number not in interrupt.handled()
    assert signal.getsignal(number) is signal.SIG_IGN


def test_a_repeated_signal_does_not_interrupt_what_saves(monkeypatch):
    """A terminal that is closed sends SIGHUP itself, and its shell sends it once more."""
    done = []
    with pytest.raises(interrupt.Interrupted) as stopped, interrupt.signals_raise():
        try:
            with interrupt.deferred():
                send(signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
                assert interrupt.pending() == signal.SIGHUP
                done.append("step")
        except interrupt.Interrupted:
            send(signal.SIGHUP)
            done.append("state")
            raise
    assert (stopped.value.signal, done) == (signal.SIGHUP, ["step", "state"])


@pytest.mark.parametrize(("number", "raises"), [(signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGHUP, False)])
def test_only_a_later_ctrl_c_does_not_wait_for_the_step(monkeypatch, number, raises):
    monkeypatch.setattr(interrupt, "REPEAT_SECONDS", 0.0)
    done = []
    with pytest.raises(interrupt.Interrupted), interrupt.signals_raise(), interrupt.deferred():
        send(signal.SIGTERM, number)
        done.append("step")
    assert done == ([] if raises else ["step"])


@pytest.mark.parametrize("number", SIGNALS)
def test_a_verb_ends_with_the_number_of_the_signal(number, capfd, monkeypatch):
    def wait(_):
        send(number)

    monkeypatch.setattr(recipe.load("image-classifier"), "train", wait)
    assert run_command(capfd, "train", "image-classifier") == (128 + number, "", "Error: Interrupted.\n")


def test_a_signal_at_the_end_does_not_change_what_is_done():
    code = """
        import atexit, os, signal
        atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))
        from dltoolkit.cli import app
        app.main(["--version"])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
