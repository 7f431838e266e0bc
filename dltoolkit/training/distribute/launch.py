"""``dltoolkit launch``: several workers on this machine, to try a command before several machines run it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from dltoolkit import interrupt
from dltoolkit.errors import UserError
from dltoolkit.option_values import parse_duration
from dltoolkit.run_session import LAUNCHED_VARIABLE, RUN_FILE_VARIABLE
from dltoolkit.training.distribute.rendezvous import TIMEOUT_VARIABLE

VERBS = ("train", "resume")
POLL_SECONDS = 0.1  # seconds between two checks of the workers
GRACE_SECONDS = 10.0  # seconds between SIGTERM and SIGKILL for the other workers when one worker has ended
SAVE_SECONDS = 60.0  # seconds between the user's signal and SIGKILL, in which workers write a checkpoint
# Environment variables that limit the threads of a worker, because all workers share the cores
THREAD_VARIABLES = ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS")


@dataclass
class Worker:
    """A worker process.

    Attributes:
        index: Index of the worker.
        process: The process.
        threads: Threads that print its output.
        error: Text of its last line that begins with ``Error:``, which is not printed immediately.
    """

    index: int
    process: subprocess.Popen
    threads: list[threading.Thread] = field(default_factory=list)
    error: str | None = None

    def signal(self, number: int) -> None:
        """Send a signal if the process is still running."""
        if self.process.poll() is None:
            self.process.send_signal(number)


def launch(arguments: Sequence[str], workers: int, timeout: str) -> tuple[int, str | None]:
    """Run a command in several processes that train together.

    Args:
        arguments: The arguments of the command line, from ``train`` or ``resume`` on.
        workers: Number of processes.
        timeout: How long the processes wait for each other at the start, such as 10m.

    Returns:
        The exit code, and an error message or None.

    Raises:
        UserError: If the command does not train, or the timeout is invalid.
    """
    if not arguments or arguments[0] not in VERBS:
        raise UserError("launch is for training: use 'dltoolkit launch --workers 2 -- train RECIPE', or resume RUN.")
    try:
        parse_duration(timeout)
    except ValueError:
        raise UserError(f"--timeout must be a time such as 90s or 10m, not '{timeout}'.") from None
    with tempfile.TemporaryDirectory(prefix="dltoolkit-") as folder, ExitStack() as stack:
        run_file = Path(folder) / "run"
        command_prefix = f"dltoolkit launch --workers {workers} --"
        shared = {TIMEOUT_VARIABLE: timeout, LAUNCHED_VARIABLE: command_prefix, RUN_FILE_VARIABLE: str(run_file)}
        shared |= {
            name: str(max(1, (os.cpu_count() or 1) // workers)) for name in THREAD_VARIABLES if name not in os.environ
        }
        processes: list[Worker] = []
        stack.callback(lambda: [worker.signal(signal.SIGKILL) for worker in processes])
        addresses = [f"localhost:{port}" for port in free_ports(workers)]
        for index in range(workers):
            config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            processes.append(_start(arguments, index, {**os.environ, **shared, "TF_CONFIG": json.dumps(config)}))
        first = _supervise(processes)
        for worker in processes:
            for thread in worker.threads:
                thread.join(timeout=POLL_SECONDS * 10)
        if first is None:
            return 0, None
        code = first.process.returncode
        if code > 0 and first.error:
            return code, first.error
        ending = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        hint = f" Resume with: {run_file.read_text()}" if run_file.exists() else ""
        return max(1, code), f"Worker {first.index} {ending}, so the others were ended.{hint}"


def free_ports(count: int) -> list[int]:
    """Return ports of this machine that no program uses."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def _start(arguments: Sequence[str], index: int, environment: dict[str, str]) -> Worker:
    process = subprocess.Popen(
        [sys.executable, "-m", "dltoolkit", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # the terminal's Ctrl-C does not reach the worker; this process passes it on
    )
    worker = Worker(index, process)
    for source, sink in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
        worker.threads.append(threading.Thread(target=_forward, args=(worker, source, sink), daemon=True))
        worker.threads[-1].start()
    return worker


def _forward(worker: Worker, source: IO[str], sink: IO[str]) -> None:
    """Print the output of a worker. Lines on stderr get a prefix with its index; on stdout, only the chief prints."""
    for line in source:
        if line.startswith("Error: ") and sink is sys.stderr:
            worker.error = line.removeprefix("Error: ").strip()
            continue
        sink.write(line if sink is sys.stdout else f"worker {worker.index}: {line}")
        sink.flush()


def _supervise(workers: list[Worker]) -> Worker | None:
    """Wait until all workers have ended, and end the others if one fails. Return the first worker that failed."""
    received: list[int] = []
    previous = {
        number: signal.signal(number, lambda received_number, _: received.append(received_number))
        for number in interrupt.handled()
    }
    first, deadline, forwarded = None, None, 0
    try:
        while any(worker.process.poll() is None for worker in workers):
            for number in received[forwarded:]:
                deadline = deadline or time.monotonic() + SAVE_SECONDS
                for worker in workers:
                    worker.signal(number)
                forwarded += 1
            if first is None:
                first = next((worker for worker in workers if worker.process.poll()), None)
                chief_done = workers[0].process.poll() == 0
                if first is not None or chief_done:
                    deadline = min(deadline or float("inf"), time.monotonic() + GRACE_SECONDS)
                    if first is not None and not received:
                        for worker in workers:
                            worker.signal(signal.SIGTERM)
            if deadline is not None and time.monotonic() > deadline:
                for worker in workers:
                    worker.signal(signal.SIGKILL)
            time.sleep(POLL_SECONDS)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    failed = [worker for worker in workers if worker.process.returncode]
    return workers[0] if received and workers[0] in failed else first or next(iter(failed), None)
