"""What is wrong and what to do about it: the one exception that is meant for people, and inputs that are no good."""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass


class UserError(Exception):
    """Wrong input. The message is one sentence (or two) that says what is wrong and what to do.

    The command line prints it as a single ``Error: …`` line and exits with code 2.
    """


class WorkerLost(Exception):
    """Another worker of a training is gone, and the rest cannot go on; the message is the command that does.

    The command line prints it as a single ``Error: …`` line and exits with code 1.
    """

    def __init__(self, resume_command: str):
        super().__init__(
            f"Another worker is gone, so this one has stopped. Start all of them again with: {resume_command}"
        )


class NonChiefDone(Exception):
    """Training is done, and what is left to do is the chief's: this worker may go home."""


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the choice nearest to ``word``, or an empty string if none is near."""
    by_folded = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(word.lower(), by_folded, n=1, cutoff=0.6)
    return f" Did you mean '{by_folded[near[0]]}'?" if near else ""


def root_cause(error: Exception) -> str:
    """Return the line of an error's text that says what is wrong; Keras and TensorFlow put others around it."""
    bold = re.search(r"\x1b\[1m(.+?)\x1b\[0m", str(error), re.DOTALL)
    lines = [line.strip() for line in (bold[1] if bold else str(error)).splitlines() if line.strip()]
    if lines[:1] == ["in user code:"]:
        lines = [line.partition(": ")[2] for line in lines if re.match(r"[\w.]+: \S", line)] or lines
    return lines[0] if lines else "no message"


@dataclass(frozen=True)
class InvalidInput:
    """Stands among many inputs for one that could not be received, such as a line that is not UTF-8.

    Attributes:
        input: what to call it.
        error: what is the matter, in a few words.
    """

    input: str
    error: str
