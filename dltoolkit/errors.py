"""The one exception that is meant for people: what is wrong, and what to do about it."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Wrong input. The message is one sentence (or two) that says what is wrong and what to do.

    The command line prints it as a single ``Error: …`` line and exits with code 2.
    """


def suggestion(word: str, choices: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the choice nearest to ``word``, or an empty string if none is near."""
    by_folded = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(word.lower(), by_folded, n=1, cutoff=0.6)
    return f" Did you mean '{by_folded[near[0]]}'?" if near else ""
