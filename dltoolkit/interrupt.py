"""Ctrl-C and SIGTERM as one exception, which training delays until the current step is done."""

import contextlib
import signal
import threading
from collections.abc import Iterator

SIGINT = int(signal.SIGINT)

_deferring = False
_pending: int | None = None


class Interrupted(KeyboardInterrupt):
    """The process was asked to stop.

    Args:
        signal: Number of the signal. The exit code of the process is this number plus 128.
    """

    def __init__(self, signal: int):
        super().__init__(f"interrupted by signal {signal}")
        self.signal = signal


@contextlib.contextmanager
def signals_raise() -> Iterator[None]:
    """Raise :class:`Interrupted` on SIGINT and SIGTERM inside the block, if this is the main thread."""
    global _pending
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, _on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        _pending = None
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Delay the exception for a signal to the end of the block; :func:`pending` returns the signal until then.

    A second signal raises immediately.
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
    """Return the number of the delayed signal, or None."""
    return _pending


def _on_signal(number: int, _frame: object) -> None:
    global _pending
    if _deferring and _pending is None:
        _pending = number
        return
    raise Interrupted(number)
