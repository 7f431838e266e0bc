"""Exceptions whose messages are written for users, and helpers for such messages."""

import difflib
import errno
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from dltoolkit import display

_SPACE = "free some space, or set TMPDIR and XDG_CACHE_HOME to a disk that has some"
_PERMISSION = "use a file or a folder that you may read and write"
# What to do about errors of the operating system, by the names of their numbers, which Windows has not all
ADVICE = {
    "ENOSPC": _SPACE,
    "EDQUOT": _SPACE,
    "EROFS": _PERMISSION,
    "EACCES": _PERMISSION,
    "EPERM": _PERMISSION,
    "EMFILE": "raise the limit of open files (ulimit -n)",
    "ENFILE": "close other programs, because all of them have too many files open",
    "ENOMEM": "free some memory, or raise the limit of this process if it has one (ulimit -v)",
}


class UserError(Exception):
    """Invalid input. The message is one or two sentences that say what is wrong and what to do.

    The command line prints it as a single ``Error: …`` line and exits with code 2. The message holds options as flags,
    and names as they are; converted to a string, it has options as the caller writes them, and no control characters.
    """

    def __str__(self) -> str:
        return display.sentence(super().__str__())


class WorkerLost(Exception):
    """Another worker of a distributed training has ended, so this one cannot continue.

    The command line prints the message as a single ``Error: …`` line and exits with code 1.

    Args:
        resume_command: The command that resumes the run.
    """

    def __init__(self, resume_command: str):
        super().__init__(
            f"Another worker has ended, so this one has stopped. Restart all workers with: {resume_command}"
        )


class ExportRefused(Exception):
    """An exported file does not answer as its run does, so it was deleted.

    The command line prints the message as a single ``Error: …`` line and exits with code 1.
    """

    def __str__(self) -> str:
        return display.sentence(super().__str__())


class NonChiefDone(Exception):
    """Raised on every worker except the chief when training is done, because the chief does the rest alone."""


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the choice most similar to ``word``, or an empty string if none is similar."""
    by_lower = {choice.lower(): choice for choice in choices}
    matches = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f" Did you mean '{by_lower[matches[0]]}'?" if matches else ""


def json_error(error: json.JSONDecodeError, *, line: bool = True) -> str:
    """Return the reason why a text is not JSON: "Unterminated string at character 7 of line 2".

    Args:
        error: The error of ``json.loads``.
        line: Whether the text has several lines, so that the line is named.
    """
    reason = error.msg.removesuffix(" at").removesuffix(" starting")
    return f"{reason} at character {error.colno}" + (f" of line {error.lineno}" if line else "")


def root_cause(error: Exception) -> str:
    """Return the line of an error's message that states the cause, without the context that Keras adds."""
    bold = re.search(r"\x1b\[1m(.+?)\x1b\[0m", str(error), re.DOTALL)
    lines = [line.strip() for line in (bold[1] if bold else str(error)).splitlines() if line.strip()]
    if lines[:1] == ["in user code:"]:
        lines = [line.partition(": ")[2] for line in lines if re.match(r"[\w.]+: \S", line)] or lines
    return display.visible(lines[0]) if lines else "no message"


def machine_error(error: BaseException) -> str | None:
    """Return a sentence about what a machine lacks: memory, space, permission or open files. None for other errors."""
    text = str(error)
    is_exhausted = type(error).__name__ == "ResourceExhaustedError"  # of TensorFlow, also for a full disk
    for number in (errno.ENOSPC, errno.EDQUOT) if is_exhausted else ():
        if os.strerror(number) in text:
            return f"{os.strerror(number)}: {_SPACE}."
    no_memory = isinstance(error, MemoryError) or is_exhausted
    if no_memory or (isinstance(error, ImportError) and "failed to map segment" in text):
        return (
            "Out of memory: free some memory, raise the limit of this process if it has one (ulimit -v), or use less "
            "of the data or a smaller model."
        )
    advice = ADVICE.get(errno.errorcode.get(error.errno, "")) if isinstance(error, OSError) else None
    place = f" ({error.filename})" if advice and error.filename else ""
    return advice and f"{error.strerror}{place}: {advice}."


@dataclass(frozen=True)
class InvalidInput:
    """An input that could not be read, such as a line that is not UTF-8, in its place among the valid ones.

    Attributes:
        input: A name for the input.
        error: The reason, in a few words.
    """

    input: str
    error: str
