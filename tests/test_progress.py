"""Messages about progress: lines about epochs and durations, and the live display on a terminal."""

import os
import pty
import struct
import subprocess
import sys
import termios
from fcntl import ioctl

import pytest

from dltoolkit import progress

CLASSIFIER = {
    **{"epoch": 3, "step": 10, "accuracy": 0.912, "loss": 1.23456, "validation_accuracy": 0.9321},
    **{"validation_balanced_accuracy": 0.92, "validation_loss": 1.111, "learning_rate": 0.1, "seconds": 12.34},
}
GAN = {
    **{"epoch": 3, "step": 10, "loss": 1.2, "discriminator_loss": 0.91, "real_accuracy": 0.8, "fake_accuracy": 0.7},
    **{"validation_coverage": 0.92, "validation_kernel_distance": 0.0123, "learning_rate": 0.1, "seconds": 12.34},
}


@pytest.mark.parametrize(
    ("row", "monitor", "line"),
    [
        (
            CLASSIFIER,
            "validation_accuracy",
            "epoch   3/100  loss 1.235  val loss 1.111  val acc 0.932  12.3 s  best",
        ),
        (
            CLASSIFIER,
            "validation_balanced_accuracy",
            "epoch   3/100  loss 1.235  val loss 1.111  val bal. acc 0.920  12.3 s  best",
        ),
        (
            GAN,
            "validation_kernel_distance",
            "epoch   3/100  G loss 1.200  D loss 0.910  val kernel dist. 0.012  12.3 s  best",
        ),
    ],
)
def test_epoch_line_fits_80_columns_and_shows_the_monitored_metric_first(row, monitor, line):
    assert progress.epoch_line(3, 100, row, True, monitor) == line
    assert len(line) <= 80


def test_epoch_line_shows_every_metric_that_fits_and_names_the_loss_of_the_generator():
    row = {"loss": 2.5, "accuracy": 0.5, "validation_loss": 0.05, "seconds": 1.0}
    assert progress.epoch_line(1, None, row, False) == "epoch 1  loss 2.500  acc 0.500  val loss 0.050  1.0 s"
    assert "  G loss 1.200  D loss 0.910  val " in progress.epoch_line(3, 9, GAN, False, "validation_kernel_distance")


def test_epoch_line_marks_an_estimated_number_of_epochs():
    row = {"loss": 2.5, "seconds": 1.0}
    assert progress.epoch_line(4, 44, row, False, estimated=True) == "epoch  4/~44  loss 2.500  1.0 s"
    assert progress.epoch_line(4, None, row, False, estimated=True) == "epoch 4  loss 2.500  1.0 s"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (8.6, "9 s"), (33, "35 s"), (57, "1 min"), (200, "3 min"), (5000, "1 h 20 min")]
)
def test_rough_duration_has_one_or_two_digits(seconds, text):
    assert progress.rough_duration(seconds) == text


SHOW = """
import os, time
from dltoolkit import progress
with progress.phase("Fitting the linear baseline " + "x" * 80):
    time.sleep(0.3)
    progress.note("a note")
    with progress.counting() as report:
        report("Reading [images]", 5, 10)
        time.sleep(0.3)
    saved = os.dup(2)  # as while TensorFlow is imported
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    time.sleep(0.3)
    os.dup2(saved, 2)
display = progress.EpochDisplay()
display.start(1, 9, 20)
time.sleep(0.3)
display.step(10, {"loss": 1.5, "accuracy": 0.5})
time.sleep(0.3)
display.close()
print("done", flush=True)
"""


def run_on_a_terminal(code: str, columns: int) -> str:
    """Run Python code whose stderr is a terminal, and return what it wrote there."""
    controller, terminal = pty.openpty()
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1", "COLUMNS": str(columns)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=terminal, stdout=subprocess.PIPE, text=True, env=environment
    )
    os.close(terminal)
    written = b""
    try:
        while chunk := os.read(controller, 65536):
            written += chunk
    except OSError:  # Linux reports the end of a terminal as an error
        pass
    os.close(controller)
    out, _ = process.communicate()
    assert (process.returncode, out) == (0, "done\n"), written
    return written.decode()


def test_live_displays_stay_on_one_line_of_the_terminal():
    written = run_on_a_terminal(SHOW, 80)
    frames = written.replace("\x1b[2K", "\r").replace("\n", "\r").split("\r")
    visible = [frame for frame in frames if frame and "\x1b" not in frame]
    assert max(map(len, visible)) <= 80
    phases = [frame for frame in visible if "Fitting the linear baseline" in frame]
    assert len({frame[0] for frame in phases}) >= 3, "the spinner turns"
    assert "a note" in visible
    assert any("Reading [images]" in frame and "5/10" in frame for frame in visible)
    last_count = max(number for number, frame in enumerate(frames) if "Reading [images]" in frame)
    assert any("Fitting" in frame for frame in frames[last_count:]), "the outer display comes back"
    assert any("epoch 1/9" in frame and "compiling" in frame for frame in visible)
    assert any("10/20" in frame and "loss 1.500  acc 0.500" in frame for frame in visible)


def test_nothing_live_is_written_to_a_pipe(capfd):
    with progress.phase("Fitting"), progress.counting() as report:
        report("Reading", 1, 2)
    assert capfd.readouterr().err == ""


def test_live_metrics_are_whole():
    logs = {"loss": 0.6931, "discriminator_loss": 1.386, "real_accuracy": 0.5, "fake_accuracy": 0.5}
    assert progress.live_metrics(logs) == "G loss 0.693  D loss 1.386"
    assert progress.live_metrics({}) == ""
