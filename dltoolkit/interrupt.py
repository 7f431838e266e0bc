"""Ctrl-C, SIGTERM and SIGHUP as one exception, which training delays until the current step is done."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator

SIGINT = int(signal.SIGINT)
NUMBERS = tuple(int(getattr(signal, name)) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
# Seconds in which further signals repeat the first one: a terminal that is closed sends SIGHUP by itself and through
# its shell, and a program that starts this one passes on a signal that the whole process group has received
REPEAT_SECONDS = 1.0

_deferring = False
_pending: int | None = None
_received = float("-inf")  # the time of the last signal that was not a repetition


class Interrupted(KeyboardInterrupt):
    """The process was asked to stop.

    Args:
        signal: Number of the signal. The exit code of the process is this number plus 128.
    """

    def __init__(self, signal: int):
        super().__init__(f"interrupted by signal {signal}")
        self.signal = signal


def handled() -> list[int]:
    """Return the numbers of the signals that end the process: all of :data:`NUMBERS`, but not SIGHUP under nohup."""
    return [n for n in NUMBERS if n == SIGINT or signal.getsignal(n) is not signal.SIG_IGN]


@contextlib.contextmanager
def signals_raise() -> Iterator[None]:
    """Raise :class:`Interrupted` on SIGINT, SIGTERM and SIGHUP inside the block, if this is the main thread.

    SIGTERM and SIGHUP stay ignored if the process was started so, as ``nohup`` does.
    """
    global _pending, _received
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if signal.getsignal(SIGINT) is not _on_signal:  # not inside another block
        _received = float("-inf")
    previous = {number: signal.signal(number, _on_signal) for number in handled()}
    try:
        yield
    finally:
        _pending = None
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Delay the exception for a signal to the end of the block; :func:`pending` returns the signal until then.

    A second Ctrl-C raises immediately.
    """
    global _deferring
    _deferring = True
    try:
        yield
    finally:
        _deferring = False
    if _pending is not None:
        raise Interrupted(_pending)


def ignore() -> None:
    """Ignore the signals from now on."""
    if threading.current_thread() is threading.main_thread():
        for number in handled():
            signal.signal(number, signal.SIG_IGN)


def pending() -> int | None:
    """Return the number of the delayed signal, or None."""
    return _pending


def _on_signal(number: int, _frame: object) -> None:
    global _pending, _received
    if time.monotonic() - _received < REPEAT_SECONDS:
        return
    _received = time.monotonic()
    if _deferring and (_pending is None or number != SIGINT):
        _pending = _pending or number
        return
    raise Interrupted(number)
