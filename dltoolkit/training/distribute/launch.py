"""Several workers on this machine that train together: for trying what will run on several machines."""

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

from dltoolkit.config import parse_duration
from dltoolkit.errors import UserError
from dltoolkit.run import LAUNCHED_VARIABLE, RUN_FILE_VARIABLE
from dltoolkit.training.distribute.rendezvous import TIMEOUT_VARIABLE

VERBS = ("train", "resume")
LOOK_SECONDS = 0.1  # between two looks at the workers
GRACE_SECONDS = 10.0  # from asking the rest to end, when one worker is gone, to making them
SAVING_SECONDS = 60.0  # likewise when the user asks all to end, which write a checkpoint first
THREADS = ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS")  # of each worker, which share the cores


@dataclass
class Worker:
    """One process, and what became of it.

    Attributes:
        error: its last line that began with ``Error:``, which is held back.
    """

    index: int
    process: subprocess.Popen
    threads: list[threading.Thread] = field(default_factory=list)
    error: str | None = None

    def signal(self, number: int) -> None:
        """Send a signal, if the process is still there."""
        if self.process.poll() is None:
            self.process.send_signal(number)


def launch(words: Sequence[str], workers: int, timeout: str) -> tuple[int, str | None]:
    """Run a command in several processes that train together; return the exit code, and an error to print.

    Args:
        words: of the command line, from ``train`` or ``resume`` on.
        workers: how many processes.
        timeout: how long they wait for each other in the beginning, such as 10m.

    Raises:
        UserError: if the command is not one that trains, or the time is none.
    """
    if not words or words[0] not in VERBS:
        raise UserError("launch is for training: say 'dltoolkit launch --workers 2 -- train RECIPE', or resume RUN.")
    try:
        parse_duration(timeout)
    except ValueError:
        raise UserError(f"--timeout must be a time such as 90s or 10m, not '{timeout}'.") from None
    with tempfile.TemporaryDirectory(prefix="dltoolkit-") as folder, ExitStack() as stack:
        run_file = Path(folder) / "run"
        again = f"dltoolkit launch --workers {workers} --"
        shared = {TIMEOUT_VARIABLE: timeout, LAUNCHED_VARIABLE: again, RUN_FILE_VARIABLE: str(run_file)}
        shared |= {name: str(max(1, (os.cpu_count() or 1) // workers)) for name in THREADS if name not in os.environ}
        all_of_them = []
        stack.callback(lambda: [worker.signal(signal.SIGKILL) for worker in all_of_them])
        addresses = [f"localhost:{port}" for port in free_ports(workers)]
        for index in range(workers):
            config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            all_of_them.append(_start(words, index, {**os.environ, **shared, "TF_CONFIG": json.dumps(config)}))
        first = _watch(all_of_them)
        for worker in all_of_them:
            for thread in worker.threads:
                thread.join(timeout=LOOK_SECONDS * 10)
        if first is None:
            return 0, None
        code = first.process.returncode
        if code > 0 and first.error:
            return code, first.error
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        path = run_file.read_text() if run_file.exists() else None
        further = f" Go on with: {again} resume {shlex.quote(path)}" if path else ""
        return max(1, code), f"Worker {first.index} {how}, and the others were ended.{further}"


def free_ports(count: int) -> list[int]:
    """Return ports of this machine that nobody holds."""
    with ExitStack() as stack:
        doors = [stack.enter_context(socket.create_server(("", 0))) for _ in range(count)]
        return [door.getsockname()[1] for door in doors]


def _start(words: Sequence[str], index: int, environment: dict[str, str]) -> Worker:
    process = subprocess.Popen(
        [sys.executable, "-m", "dltoolkit", *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C comes from here, and once
    )
    worker = Worker(index, process)
    for source, sink in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
        worker.threads.append(threading.Thread(target=_pass_on, args=(worker, source, sink), daemon=True))
        worker.threads[-1].start()
    return worker


def _pass_on(worker: Worker, source: IO[str], sink: IO[str]) -> None:
    """Print what a worker prints: on stderr with its number before each line, on stdout, which the chief has, bare."""
    for line in source:
        if line.startswith("Error: ") and sink is sys.stderr:
            worker.error = line.removeprefix("Error: ").strip()
            continue
        sink.write(line if sink is sys.stdout else f"worker {worker.index}: {line}")
        sink.flush()


def _watch(workers: list[Worker]) -> Worker | None:
    """Wait until all have ended, and see to it that they do when one fails; return that one."""
    asked: list[int] = []
    old = {
        number: signal.signal(number, lambda got, _: asked.append(got)) for number in (signal.SIGINT, signal.SIGTERM)
    }
    first, deadline, passed_on = None, None, 0
    try:
        while any(worker.process.poll() is None for worker in workers):
            for number in asked[passed_on:]:
                deadline = deadline or time.monotonic() + SAVING_SECONDS
                for worker in workers:
                    worker.signal(number)
                passed_on += 1
            if first is None:
                first = next((worker for worker in workers if worker.process.poll()), None)
                chief_done = workers[0].process.poll() == 0
                if first is not None or chief_done:
                    deadline = min(deadline or float("inf"), time.monotonic() + GRACE_SECONDS)
                    if first is not None and not asked:
                        for worker in workers:
                            worker.signal(signal.SIGTERM)
            if deadline is not None and time.monotonic() > deadline:
                for worker in workers:
                    worker.signal(signal.SIGKILL)
            time.sleep(LOOK_SECONDS)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    failed = [worker for worker in workers if worker.process.returncode]
    return workers[0] if asked and workers[0] in failed else first or next(iter(failed), None)
