"""The fault harness of benchmarks/, briefly: what it does at length must not have come to an end."""

import subprocess
import sys
from pathlib import Path

HARNESS = Path(__file__).parents[1] / "benchmarks" / "faults.py"


def test_a_run_that_is_killed_again_and_again_is_the_run_that_was_not():
    done = subprocess.run(
        [sys.executable, str(HARNESS), "--kills", "4", "--workers", "0", "--recipe", "image-classifier"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 kills" in done.stdout
    assert "0 lost, or other than the run that nothing happened to" in done.stdout
