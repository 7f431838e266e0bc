"""The deadline for the connection of the workers, in a process in which no other thread and no signal handler runs."""

import subprocess
import sys

import pytest

from dltoolkit.training.distribute import connection_deadline

PROGRAM = """
import ctypes
from dltoolkit.training.distribute import connection_deadline
with connection_deadline.ends_process(100):
    pass
with connection_deadline.ends_process(0.1):
    print("begins", flush=True)
    ctypes.PyDLL(None).sleep(100)  # unlike time.sleep, it holds Python's global lock, as TensorFlow does
"""


@pytest.mark.skipif(sys.platform == "win32", reason="clusters need POSIX")
def test_a_process_ends_at_the_deadline():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (-9, "begins\n", connection_deadline.MESSAGE)
