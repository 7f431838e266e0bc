"""Standard streams that may be closed, full or without a reader, and what the command line writes on a terminal.

A message on stderr that nobody can read stops no work. An answer on stdout that cannot be written is an error.
"""

import codecs
import contextlib
import errno
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TextIO

from dltoolkit import display


class AnswerLost(Exception):
    """The answer cannot be written to stdout.

    Args:
        error: The reason.
    """

    def __init__(self, error: OSError):
        reason = "it is closed" if error.errno == errno.EBADF else error.strerror or error
        super().__init__(f"The answer cannot be written to stdout: {reason}.")
        self.reader_has_ended = isinstance(error, BrokenPipeError)


class Answers(io.TextIOWrapper):
    """The stdout of the command line. A terminal shows control characters, which it would execute otherwise."""

    def write(self, text: str) -> int:
        if not isinstance(text, str):  # click tries whether a stream takes bytes
            raise TypeError("write() argument must be str")
        super().write(display.visible(text, keep="\n\t") if self.isatty() else text)
        return len(text)

    def write_bold(self, text: str) -> None:
        """Write a text, in bold on a terminal."""
        if self.isatty():
            text = f"\x1b[1m{display.visible(text)}\x1b[0m"
        super().write(text)


class _AnswerFile(io.FileIO):
    def write(self, data: bytes) -> int | None:
        try:
            return super().write(data)
        except OSError as error:
            raise AnswerLost(error) from error


class _UnfailingFile(io.FileIO):
    def write(self, data: bytes) -> int | None:
        try:
            return super().write(data)
        except OSError:  # a closed pipe, a full disk or a terminal that is gone
            return len(data)


def unfailing(descriptor: int, *, encoding: str, close: bool = True) -> TextIO:
    """Return a stream of text that drops what cannot be written.

    Args:
        descriptor: The file descriptor.
        encoding: Character encoding; other characters are written as their escapes.
        close: Whether the file descriptor is closed with the stream.
    """
    file = io.BufferedWriter(_UnfailingFile(descriptor, "w", closefd=close))
    return io.TextIOWrapper(file, encoding, "backslashreplace", line_buffering=True)


@contextlib.contextmanager
def standard_streams() -> Iterator[None]:
    """Make the standard streams usable for the command line inside the block, unless a program has replaced them.

    Closed file descriptors are opened, so that no file takes their numbers: a stdin without input, and a stdout on
    which writing fails. Raises :class:`AnswerLost` inside the block if stdout cannot be written. Warnings and log
    messages of other packages show control characters.
    """
    before = sys.stdout, sys.stderr
    for descriptor in range(3):
        _open_if_closed(descriptor)
    if sys.stderr is sys.__stderr__:
        sys.stderr = unfailing(2, encoding=_encoding(sys.stderr), close=False)
    if sys.stdout is sys.__stdout__:
        file = io.BufferedWriter(_AnswerFile(1, "w", closefd=False))
        # a file name may hold bytes that are not UTF-8
        sys.stdout = Answers(file, _encoding(sys.stdout), "backslashreplace", line_buffering=os.isatty(1))
    elif hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    format_warning, make_record = warnings.formatwarning, logging.getLogRecordFactory()
    warnings.formatwarning = lambda *arguments: display.visible(format_warning(*arguments), keep="\n")
    logging.setLogRecordFactory(lambda *arguments, **options: _visible_record(make_record(*arguments, **options)))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        warnings.formatwarning = format_warning
        logging.setLogRecordFactory(make_record)


def discard_answers() -> None:
    """Let what is written to stdout from now on disappear, so that Python ends without another error."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _visible_record(record: logging.LogRecord) -> logging.LogRecord:
    with contextlib.suppress(TypeError, ValueError):  # arguments that do not fit, which the handler reports
        record.msg, record.args = display.visible(record.getMessage(), keep="\n"), None
    return record


def _encoding(stream: TextIO | None) -> str:
    """Return the encoding for a stream in the place of another one; UTF-8 instead of ASCII, as click does."""
    encoding = (stream and stream.encoding) or "utf-8"
    return "utf-8" if codecs.lookup(encoding).name == "ascii" else encoding


def _open_if_closed(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        opened = os.open(os.devnull, os.O_WRONLY if descriptor == 2 else os.O_RDONLY)
        if opened != descriptor:
            os.dup2(opened, descriptor)
            os.close(opened)
        os.set_inheritable(descriptor, True)
