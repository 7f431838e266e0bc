"""Conditions in which a machine can be: full or missing folders, low limits, closed streams, a wrong clock."""

import contextlib
import ctypes
import dataclasses
import os
import resource
import signal
import stat
from collections.abc import Callable
from pathlib import Path

GIGABYTE = 2**30
FULL = "full"  # name of the folder of the full disk
YEAR = 31_557_600  # seconds
DAC_CAPABILITIES = (1, 2, 3)  # the capabilities by which root may ignore the permissions of files
PR_CAPBSET_DROP = 24  # from linux/prctl.h
NOTHING_BELOW = "/proc/nothing"  # a folder that does not exist and that nobody can create
# Modules that Python imports at its start: one with which temporary files have no other folder, and one with which the
# clock is {seconds} behind, from {after} seconds after the start on
TEMPORARY = "import tempfile; tempfile.tempdir = {folder!r}"
CLOCK = """
import time
begin, now, now_ns, local, utc = time.time(), time.time, time.time_ns, time.localtime, time.gmtime
def behind():
    return {seconds} if now() - begin >= {after} else 0
time.time = lambda: now() - behind()
time.time_ns = lambda: now_ns() - behind() * 10**9
time.localtime = lambda seconds=None: local(time.time() if seconds is None else seconds)
time.gmtime = lambda seconds=None: utc(time.time() if seconds is None else seconds)
"""


@dataclasses.dataclass
class Condition:
    """A condition in which a command runs.

    Attributes:
        name: What is the matter, in words.
        environment: Environment variables that it sets, or removes with None.
        prepare: Called in the new process before the command.
        may_fail: Whether the command may end with an error, which must be one sentence.
    """

    name: str
    environment: dict[str, str | None] = dataclasses.field(default_factory=dict)
    prepare: Callable[[], None] | None = None
    may_fail: bool = False


def conditions(folder: Path, *, mount: bool) -> list[Condition]:
    """Return the conditions.

    Args:
        folder: An empty folder for what they need.
        mount: Whether to mount a disk that is full, at ``folder / FULL``.
    """
    home = {"HOME": NOTHING_BELOW, "XDG_CACHE_HOME": None}
    full = _full_folder(folder / FULL) if mount else None
    closed = folder / "closed"
    closed.mkdir()
    closed.chmod(stat.S_IRUSR | stat.S_IXUSR)
    return [
        *([Condition("TMPDIR is full", full)] if full else []),
        *([Condition("TMPDIR is full, HOME does not exist", {**full, **home})] if full else []),
        Condition("TMPDIR does not exist", {"TMPDIR": NOTHING_BELOW}),
        Condition("HOME does not exist", home),
        Condition("HOME is not set", {"HOME": None, "XDG_CACHE_HOME": None}),
        Condition("HOME belongs to another user", {"HOME": str(closed), "XDG_CACHE_HOME": None}, _drop_capabilities),
        Condition("the cache belongs to another user", {"XDG_CACHE_HOME": str(closed)}, _drop_capabilities),
        Condition("ulimit -n 64", prepare=_limit(resource.RLIMIT_NOFILE, 64), may_fail=True),
        *(
            Condition(f"ulimit -v {size} GiB", prepare=_limit(resource.RLIMIT_AS, size * GIGABYTE), may_fail=True)
            for size in (1, 2, 3, 4)
        ),
        *(
            Condition(f"{name} is closed", prepare=lambda number=number: os.close(number), may_fail=number == 1)
            for number, name in enumerate(("stdin", "stdout", "stderr"))
        ),
        Condition("all standard streams are closed", prepare=lambda: os.closerange(0, 3), may_fail=True),
        Condition("LANG=C", {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
        Condition("PYTHONOPTIMIZE=2", {"PYTHONOPTIMIZE": "2"}),
        Condition("nohup", prepare=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN) and None),
        Condition("the clock is set back during training", _clock(folder / "back", 86_400, after=4)),
        Condition("the clock is at 1971", _clock(folder / "early", 55 * YEAR, after=0), may_fail=True),
        Condition("the clock is set to 1971 later", _clock(folder / "reset", 55 * YEAR, after=6), may_fail=True),
    ]


def _full_folder(folder: Path) -> dict[str, str | None] | None:
    """Return the environment of a process whose folder for temporary files is full; None if no disk can be mounted."""
    folder.mkdir()
    code = folder.parent / "full-python"
    code.mkdir()
    (code / "sitecustomize.py").write_text(TEMPORARY.format(folder=str(folder)))
    if os.system(f"mount -t tmpfs -o size=64k none '{folder}' 2>/dev/null"):
        return None
    with contextlib.suppress(OSError), (folder / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return {"TMPDIR": str(folder), "PYTHONPATH": str(code)}


def _clock(folder: Path, seconds: int, after: int) -> dict[str, str]:
    """Return the environment of a process whose clock is behind."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(CLOCK.format(seconds=seconds, after=after))
    return {"PYTHONPATH": str(folder)}


def _limit(which: int, value: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(which, (value, value))


def _drop_capabilities() -> None:
    """Let the permissions of files hold for root, too."""
    if os.geteuid() == 0:
        for capability in DAC_CAPABILITIES:
            ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
