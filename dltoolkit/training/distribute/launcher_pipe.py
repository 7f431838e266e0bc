"""Stop a worker of ``dltoolkit launch`` when the launcher has ended, even if it was killed."""

from __future__ import annotations

import os
import signal
import threading
import time

PIPE_VARIABLE = "DLTOOLKIT_LAUNCHER_PIPE"  # environment variable with the read end of a pipe that the launcher holds
SAVE_SECONDS = 60.0  # seconds between SIGTERM, after which training writes a checkpoint, and SIGKILL


def stop_with_launcher() -> None:
    """Send SIGTERM to this process when the launcher that started it has ended. Others have no launcher."""
    pipe = os.environ.pop(PIPE_VARIABLE, "")  # processes that this one starts do not have the pipe
    if pipe:
        threading.Thread(target=_wait, args=(int(pipe),), daemon=True).start()


def _wait(pipe: int) -> None:
    os.read(pipe, 1)  # returns at the end of the launcher, which writes nothing
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SAVE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
