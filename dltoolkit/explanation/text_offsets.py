"""Texts as models read them, with the place of each character in the raw text."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dltoolkit.data.text.words import ASCII_WORD, ENTITY, TAG, WORD, without_accents

FIRST_VOWEL, LAST_CONSONANT = "\u1160", "\u11ff"  # letters of Hangul that compose with the letter before them


@dataclass(frozen=True)
class AlignedText:
    """A text that was made from a raw text.

    Attributes:
        text: The text.
        starts: For each of its characters the position in the raw text at which its origin starts.
        ends: For each of its characters the position in the raw text before which its origin ends.
    """

    text: str
    starts: Sequence[int]
    ends: Sequence[int]

    @classmethod
    def of(cls, raw: str) -> AlignedText:
        """Return a raw text itself."""
        return cls(raw, range(len(raw)), range(1, len(raw) + 1))

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return the start and the end in the raw text of the characters from ``start`` to before ``end``."""
        return self.starts[start], self.ends[end - 1]

    def without_html(self) -> AlignedText:
        """Return the text as `words.without_html` does."""
        aligned = self._replace(TAG, lambda match: " ") if "<" in self.text else self
        if "&" in aligned.text:
            aligned = aligned._replace(ENTITY, lambda match: html.unescape(match[0]))
        return aligned

    def strip(self) -> AlignedText:
        """Return the text without white space at its ends."""
        start = len(self.text) - len(self.text.lstrip())
        end = max(start, len(self.text.rstrip()))
        return AlignedText(self.text[start:end], self.starts[start:end], self.ends[start:end])

    def lower(self) -> AlignedText:
        """Return the text in lower case."""
        if self.text.isascii():
            return AlignedText(self.text.lower(), self.starts, self.ends)
        # The letter sigma depends on its neighbors, but the number of characters does not
        aligned = self._map([(i, i + 1) for i in range(len(self.text))], str.lower)
        return AlignedText(self.text.lower(), aligned.starts, aligned.ends)

    def composed(self) -> AlignedText:
        """Return the text with composed characters, in Unicode's form NFC."""
        if unicodedata.is_normalized("NFC", self.text):
            return self
        first = [i for i, character in enumerate(self.text) if i == 0 or not _continues(character)]
        groups = list(zip(first, [*first[1:], len(self.text)], strict=True))
        return self._map(groups, lambda group: unicodedata.normalize("NFC", group))

    def without_accents(self) -> AlignedText:
        """Return the text in Unicode's form NFKD without accents."""
        if self.text.isascii():
            return self
        return self._map([(i, i + 1) for i in range(len(self.text))], without_accents)

    def _map(self, groups: Sequence[tuple[int, int]], change: Callable[[str], str]) -> AlignedText:
        """Return the text with each group of characters, which have no gaps between them, replaced."""
        parts: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        for begin, end in groups:
            new = change(self.text[begin:end])
            first, last = self.span(begin, end)
            parts.append(new)
            starts += [first] * len(new)
            ends += [last] * len(new)
        return AlignedText("".join(parts), starts, ends)

    def _replace(self, pattern: re.Pattern[str], replacement: Callable[[re.Match[str]], str]) -> AlignedText:
        parts: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        position = 0
        for match in [*pattern.finditer(self.text), None]:
            begin = match.start() if match else len(self.text)
            parts.append(self.text[position:begin])
            starts += self.starts[position:begin]
            ends += self.ends[position:begin]
            if match:
                new, position = replacement(match), match.end()
                first, last = self.span(begin, position)
                parts.append(new)
                starts += [first] * len(new)
                ends += [last] * len(new)
        return AlignedText("".join(parts), starts, ends)


def words(raw: str) -> tuple[list[str], list[tuple[int, int]]]:
    """Return the words of a text as `words.split_words` does, and the start and end of each one in the raw text."""
    aligned = AlignedText.of(raw).without_html().lower().composed()
    matches = list((ASCII_WORD if aligned.text.isascii() else WORD).finditer(aligned.text))
    return [match[0] for match in matches], [aligned.span(*match.span()) for match in matches]


def _continues(character: str) -> bool:
    """Return whether a character may compose with the one before it."""
    return unicodedata.category(character)[0] == "M" or FIRST_VOWEL <= character <= LAST_CONSONANT
