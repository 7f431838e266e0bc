"""Ctrl-C and SIGTERM as one exception, which training puts off until the step is done."""

import contextlib
import signal
import threading
from collections.abc import Iterator

SIGINT = int(signal.SIGINT)

_deferring = False
_pending: int | None = None


class Interrupted(KeyboardInterrupt):
    """The process was asked to stop. ``signal`` is the signal's number; the exit code is 128 more."""

    def __init__(self, signal: int):
        super().__init__(f"interrupted by signal {signal}")
        self.signal = signal


@contextlib.contextmanager
def signals_raise() -> Iterator[None]:
    """Raise :class:`Interrupted` on SIGINT and SIGTERM inside the block (in the main thread; elsewhere do nothing)."""
    global _pending
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {number: signal.signal(number, _on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        _pending = None
        for number, handler in old.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Only note a signal inside the block, where :func:`pending` tells of it, and raise it at the block's end.

    A second signal raises at once.
    """
    global _deferring
    _deferring = True
    try:
        yield
    finally:
        _deferring = False
    if _pending is not None:
        raise Interrupted(_pending)


def pending() -> int | None:
    """Return the number of the signal that came while deferred, or None."""
    return _pending


def _on_signal(number: int, _frame: object) -> None:
    global _pending
    if _deferring and _pending is None:
        _pending = number
        return
    raise Interrupted(number)
