"""Text for people: control characters become visible, and commands are quoted for the shell."""

import re
import shlex
from pathlib import Path

from dltoolkit import option_names

# Characters that a terminal executes, that reverse or break lines, or that cannot be seen: the control characters C0
# and C1, invisible and bidirectional format characters, separators of lines, and bytes of file names that are not
# UTF-8. The joiners U+200C and U+200D belong to the spelling of words and emoji, so they stay.
HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)


def visible(text: object, *, keep: str = "") -> str:
    r"""Return a text whose control characters are written as Python writes them: ``\x1b``, ``\n``, ``\u202e``.

    Args:
        text: A text, or an object that is converted to one.
        keep: Characters that stay what they are, such as the ends of lines.
    """
    text = str(text)
    if text.isprintable():
        return text
    return HIDDEN.sub(lambda match: match[0] if match[0] in keep else _escape(match[0]), text)


def sentence(text: object) -> str:
    """Return a message for people: its control characters are visible, and its options are what the caller writes.

    See :func:`dltoolkit.option_names.spell`.
    """
    return option_names.spell(visible(text))


def quote(word: str | Path) -> str:
    """Return a word of a command as a shell takes it, on one line and without control characters.

    Control characters need the quotation ``$'…'``, which bash, zsh and POSIX 2024 know. A path that begins with a dash
    becomes one that is no option.
    """
    text = f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word)
    if not HIDDEN.search(text):
        return shlex.quote(text)
    quoted = HIDDEN.sub(lambda match: "".join(f"\\x{byte:02x}" for byte in _encode(match[0])), _escape_quotes(text))
    return f"$'{quoted}'"


def command(*words: str | Path) -> str:
    """Return a command line that a shell takes apart into these words."""
    return " ".join(map(quote, words))


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _escape_quotes(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


def _encode(character: str) -> bytes:
    """Return the bytes of a character in a file name."""
    is_byte = "\udc80" <= character <= "\udcff"  # a byte that is not UTF-8
    return character.encode(errors="surrogateescape" if is_byte else "surrogatepass")
