"""The first answer of a file, in a process of its own: ``python -m dltoolkit.export.trial FILE DESCRIPTION``.

A runtime executes what a file says: a file of LiteRT can call itself until the stack is full or ask for more memory
than there is, and loops of any format may never end. In another process, none of it ends this one, and it has limits.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from dltoolkit import memory
from dltoolkit.errors import UserError
from dltoolkit.export import consistency, sessions

SECONDS = 20  # of a processor, for one input; the largest networks of keras.applications take 5
TEXT_TOKENS = 64  # tokens of a text, unless the network reads fewer
REFUSED = 3  # exit code after a sentence on stdout


def check(file: Path, info: dict[str, Any], steps: dict[str, Any]) -> None:
    """Raise a UserError if a file does not answer one input, such as because it crashes.

    Args:
        file: The file.
        info: The contents of export.json.
        steps: The contents of preprocessing.json.
    """
    if not sys.executable:  # a program with Python inside
        return
    names = ("runtime", "inputs", "outputs")
    description = {**{name: info[name] for name in names}, "seconds": SECONDS, "arrays": _inputs(info, steps)}
    done = run_module("dltoolkit.export.trial", str(file), json.dumps(description))
    if done.returncode == 0:
        return
    if done.returncode == REFUSED:
        raise UserError(done.stdout.decode(errors="replace").strip())
    if done.returncode == -getattr(signal, "SIGXCPU", 0):
        raise UserError(f"{file} has no answer to one input after {SECONDS} seconds: export the run again.")
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise UserError(f"{file} makes its runtime crash ({name}): export the run again.")
    lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
    raise UserError(f"{file} cannot be tried ({lines[-1]}): export the run again.")


def run_module(name: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess:
    """Run a module in a process that imports what this one does, but nothing from the current folder.

    A file there may have the name of any module, such as ``json.py``.

    Args:
        name: The module.
        arguments: Its arguments.
        options: Further options of ``subprocess.run``.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-P", "-m", name, *arguments]
    return subprocess.run(command, capture_output=True, env=environment, **options)


def example_tokens(empty_state: dict[str, list[int]], max_length: int | None) -> int:
    """Return the number of tokens of an example: one if the others are in a state, or at most ``max_length``."""
    return 1 if empty_state else min(TEXT_TOKENS, max_length or TEXT_TOKENS)


def _inputs(info: dict[str, Any], steps: dict[str, Any]) -> dict[str, tuple[str, list[int]]]:
    """Return type and shape of inputs, by name: one image, one text, the noise of one image, or one token."""
    state, arrays = steps.get("empty_state", {}), {}
    tokens = example_tokens(state, steps.get("max_length") or steps.get("context_length"))
    for tensor in info["inputs"]:
        first, *rest = tensor["shape"] or [1]
        sizes = [first or 1, *(tokens if size is None else size for size in rest)]
        arrays[tensor["name"]] = (tensor["dtype"], state.get(tensor["name"], sizes))
    return arrays


def main(path: str, description: str) -> int:
    """Let the file answer arrays of zeros, and return the exit code."""
    file, info = Path(path), json.loads(description)
    _limit(info["seconds"])
    try:
        session = sessions.SESSIONS[info["runtime"]](file, threads=1)
        consistency.check_file(session, info, file)
        session.run({name: np.zeros(shape, dtype) for name, (dtype, shape) in info["arrays"].items()})
    except (UserError, MemoryError, ValueError, TypeError) as error:  # arrays of sizes and types that do not exist
        message = str(error) if isinstance(error, UserError) else f"{file} needs inputs that cannot be: {error}."
        sys.stdout.buffer.write(message.encode(errors="replace"))
        return REFUSED
    return 0


def _limit(seconds: int) -> None:
    """Limit the time of this process on a processor, and its memory to half of what is free."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if (statm := Path("/proc/self/statm")).exists():
        used = int(statm.read_text().split()[0]) * resource.getpagesize()
        limit = used + max(memory.GIGABYTE, memory.available() // 2)
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
