"""``dltoolkit launch``: several workers on this machine, to try a command before several machines run it."""

from __future__ import annotations

import json
import os
import secrets
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

from dltoolkit import display, interrupt, streams
from dltoolkit.cluster import TOKEN_VARIABLE, TRUST_VARIABLE
from dltoolkit.errors import UserError
from dltoolkit.option_values import parse_duration
from dltoolkit.run_session import LAUNCHED_VARIABLE, RUN_FILE_VARIABLE
from dltoolkit.training.distribute.launcher_pipe import PIPE_VARIABLE, SAVE_SECONDS
from dltoolkit.training.distribute.rendezvous import TIMEOUT_VARIABLE

VERBS = ("train", "resume")
POLL_SECONDS = 0.1  # seconds between two checks of the workers
GRACE_SECONDS = 10.0  # seconds between SIGTERM and SIGKILL for the other workers when one worker has failed
END_SECONDS = 60.0  # seconds that other workers have to end when the chief is done; a busy machine needs several
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
        answer_lost: The error of stdout if its output cannot be written there.
    """

    index: int
    process: subprocess.Popen
    threads: list[threading.Thread] = field(default_factory=list)
    error: str | None = None
    answer_lost: streams.AnswerLost | None = None

    def signal(self, number: int) -> None:
        """Send a signal if the process is still running."""
        if self.process.poll() is None:
            self.process.send_signal(number)


def launch(
    arguments: Sequence[str], workers: int, timeout: str, *, trust_network: bool = False
) -> tuple[int, str | None]:
    """Run a command in several processes that train together.

    Args:
        arguments: The arguments of the command line, from ``train`` or ``resume`` on.
        workers: Number of processes.
        timeout: How long the processes wait for each other at the start, such as 10m.
        trust_network: Whether other machines may connect to the processes.

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
        shared |= {TOKEN_VARIABLE: secrets.token_hex(16), "NCCL_SOCKET_IFNAME": "lo"}
        if trust_network:
            shared[TRUST_VARIABLE] = "1"
        shared |= {
            name: str(max(1, (os.cpu_count() or 1) // workers)) for name in THREAD_VARIABLES if name not in os.environ
        }
        processes: list[Worker] = []
        stack.callback(lambda: [worker.signal(signal.SIGKILL) for worker in processes])
        pipe, write_end = os.pipe()  # the write end is closed when this process ends, however it ends
        stack.callback(os.close, write_end)
        stack.callback(os.close, pipe)
        shared[PIPE_VARIABLE] = str(pipe)
        addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)]
        for index in range(workers):
            config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            environment = {**os.environ, **shared, "TF_CONFIG": json.dumps(config)}
            processes.append(_start(arguments, index, environment, pipe))
        first = _supervise(processes)
        for worker in processes:
            for thread in worker.threads:
                thread.join(timeout=POLL_SECONDS * 10)
        if first is None:
            for worker in processes:
                if worker.answer_lost:
                    raise worker.answer_lost
            return 0, None
        code = first.process.returncode
        if first.error:
            return max(1, code), first.error
        ending = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        hint = f" Resume with: {run_file.read_text()}" if run_file.exists() else ""
        return max(1, code), f"Worker {first.index} {ending}, so the others were ended.{hint}"


def free_ports(count: int) -> list[int]:
    """Return ports of this machine that no program uses."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def _start(arguments: Sequence[str], index: int, environment: dict[str, str], pipe: int) -> Worker:
    process = subprocess.Popen(
        [sys.executable, "-m", "dltoolkit", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        pass_fds=[pipe],
        start_new_session=True,  # the terminal's Ctrl-C does not reach the worker; this process passes it on
    )
    worker = Worker(index, process)
    for source, sink in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
        worker.threads.append(threading.Thread(target=_forward, args=(worker, source, sink), daemon=True))
        worker.threads[-1].start()
    return worker


def _forward(worker: Worker, source: IO[str], sink: IO[str]) -> None:
    """Print the output of a worker. Lines on stderr get a prefix with its index; on stdout, only the chief prints.

    All output is read to its end, because a worker would wait for a reader.
    """
    is_error_output = source is worker.process.stderr
    for line in source:
        if line.startswith("Error: ") and is_error_output:
            worker.error = line.removeprefix("Error: ").strip()
        elif is_error_output:
            visible = display.visible(line, keep="\n")
            sink.write(f"worker {worker.index}: {visible}")
        elif worker.answer_lost is None:
            try:
                sink.write(line)
                sink.flush()
            except streams.AnswerLost as error:
                worker.answer_lost = error


def _supervise(workers: list[Worker]) -> Worker | None:
    """Wait until all workers have ended, and end the others if one fails.

    Returns:
        The first worker that failed. None if the chief has done its work, because the others end before or are idle.
    """
    received: list[int] = []
    previous = {
        number: signal.signal(number, lambda received_number, _: received.append(received_number))
        for number in interrupt.handled()
    }
    chief, first, deadline, forwarded = workers[0].process, None, None, 0
    try:
        while any(worker.process.poll() is None for worker in workers):
            now = time.monotonic()
            for number in received[forwarded:]:
                deadline = deadline or now + SAVE_SECONDS
                for worker in workers:
                    worker.signal(number)
                forwarded += 1
            if first is None and chief.poll() != 0:
                first = next((worker for worker in workers if worker.process.poll()), None)
                if first is not None:
                    deadline = min(deadline or float("inf"), now + GRACE_SECONDS)
                    for worker in workers if not received else ():
                        worker.signal(signal.SIGTERM)
            elif chief.poll() == 0 and deadline is None:
                deadline = now + END_SECONDS
            if deadline is not None and now > deadline:
                for worker in workers:
                    worker.signal(signal.SIGKILL)
            time.sleep(POLL_SECONDS)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if chief.returncode == 0:
        return None
    return workers[0] if received else first or next(worker for worker in workers if worker.process.returncode)
