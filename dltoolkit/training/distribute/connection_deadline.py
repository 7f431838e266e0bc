"""A deadline for the moment in which TensorFlow connects the workers.

If a worker ends or freezes between the rendezvous and its connection, TensorFlow lets the others wait for an hour. It
holds Python's global lock meanwhile and takes SIGTERM for itself, so only another process can end them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

SECONDS = 120.0  # that workers which have met may take to connect; on a busy machine, they take several
MESSAGE = (
    "Error: A worker has ended or does not answer, so TensorFlow cannot connect the workers: restart all of them.\n"
)
# The program of the other process. Its stdin ends when the block does, or when this process has ended.
_PROGRAM = """
import os, select, signal, sys
process, seconds, message = sys.argv[1:]
if not select.select([0], [], [], float(seconds))[0]:
    os.write(2, message.encode())
    os.kill(int(process), signal.SIGKILL)
"""


@contextlib.contextmanager
def ends_process(seconds: float = SECONDS) -> Iterator[None]:
    """End this process with a message on stderr if the block takes longer than ``seconds``."""
    words = [sys.executable, "-I", "-S", "-c", _PROGRAM, str(os.getpid()), str(seconds), MESSAGE]
    # in a session of its own, Ctrl-C does not end it
    watching = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
    finally:
        watching.stdin.close()
        watching.wait()
