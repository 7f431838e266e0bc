"""Words of texts in any script."""

from __future__ import annotations

import functools
import hashlib
import html
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from dltoolkit.data import split
from dltoolkit.data.text.ragged import Ragged

# Elements of HTML; other words after "<" are text, as in "x<y and z>w"
_ELEMENTS = """a abbr acronym address applet area article aside audio b base basefont bdi bdo big blink blockquote body
br button canvas caption center cite code col colgroup data datalist dd del details dfn dialog dir div dl dt em embed
fieldset figcaption figure font footer form frame frameset h1 h2 h3 h4 h5 h6 head header hgroup hr html i iframe img
input ins kbd label legend li link main map mark marquee menu meta meter nav nobr noframes noscript object ol optgroup
option output p param pre progress q rp rt ruby s samp script search section select slot small source span
strike strong style sub summary sup svg table tbody td template textarea tfoot th thead time title tr track tt u ul var
video wbr picture"""
_VALUE = r"""\s*=\s*(?:"[^"<>]{0,300}"|'[^'<>]{0,300}'|[^\s"'<>=]{1,300})"""
_SWITCHES = "async|autoplay|checked|compact|controls|defer|disabled|hidden|loop|multiple|muted|noshade|nowrap|selected"
TAG = re.compile(
    rf"</?(?:{'|'.join(_ELEMENTS.split())})(?:\s+(?:[\w:-]+{_VALUE}|(?:{_SWITCHES})\b))*\s*/?>"
    r"|<!--.{0,300}?-->|<!doctype\s[^<>]{1,300}>",
    re.IGNORECASE | re.DOTALL,
)
ENTITY = re.compile(r"&(?:#\d{1,7}|#x[\da-f]{1,6}|[a-z][a-z\d]{1,31});", re.IGNORECASE)
_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # each character is a word
_MARKS = "\u0300-\u036f\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0900-\u0df3\u0e31-\u0e4e\u200d"  # part of a word
WORD = re.compile(
    rf"(?:[^\W{_CJK}][{_MARKS}]*)+(?:['’](?:[^\W{_CJK}][{_MARKS}]*)+)*"  # don't, naïve, हिन्दी
    rf"|[{_CJK}]"
    r"|[:;=]-?[()dp/]"  # :-)
    r"|[!?]"
    r"|[^\w\s\x00-\x7f\u00a0-\u00bf\u2000-\u206f\u3000-\u303f\ufe00-\ufe0f]"  # emoji and symbols, not punctuation
)
ASCII_WORD = re.compile(r"\w+(?:'\w+)*|[:;=]-?[()dp/]|[!?]", re.ASCII)  # WORD for ASCII texts, several times as fast
TEXTS_PER_BLOCK = 1000  # texts whose words are looked up together, which bounds the memory for their strings


def without_accents(text: str) -> str:
    """Return a text in Unicode's form NFKD without accents."""
    return "".join(each for each in unicodedata.normalize("NFKD", text) if not unicodedata.combining(each))


def without_html(text: str) -> str:
    """Return a text without HTML tags, and with HTML entities replaced by their characters."""
    if "<" in text:
        text = TAG.sub(" ", text)
    if "&" in text:
        text = ENTITY.sub(lambda match: html.unescape(match[0]), text)
    return text


def standardize(text: str) -> str:
    """Return a text in lower case, without HTML, and with composed characters (NFC)."""
    text = without_html(text)
    return text.lower() if text.isascii() else unicodedata.normalize("NFC", text.lower())


def split_words(text: str) -> list[str]:
    """Return the words of a text, and its emoji, emoticons, exclamation marks and question marks."""
    standardized = standardize(text)
    return (ASCII_WORD if standardized.isascii() else WORD).findall(standardized)


class TokenizedTexts:
    """Texts that are split into words once, on first use.

    Args:
        texts: The texts as they were read.
        progress: Function that is called with the task, the number of processed texts and the total.
    """

    def __init__(self, texts: Sequence[str], progress: Callable[[str, int, int], None] | None = None):
        self.texts = texts
        self._progress = progress

    @property
    def words(self) -> list[str]:
        """The distinct words, in the order of their first occurrence."""
        return self._split[0]

    @property
    def word_ids(self) -> Ragged:
        """For each text, the indices of its words in ``words``."""
        return self._split[1]

    def hashes(self, wordless: np.ndarray) -> np.ndarray:
        """Return a 64-bit hash of each text's sequence of words in any case, uint64 (n,).

        Texts with equal hashes differ only in case, punctuation, white space or HTML.

        Args:
            wordless: uint64 (n,), the hashes of texts without any word.
        """
        folded = (hashlib.blake2b(word.casefold().encode(errors="surrogatepass"), digest_size=8) for word in self.words)
        word_hashes = np.frombuffer(b"".join(word.digest() for word in folded), np.uint64)
        hashes = wordless.copy()
        for row in np.flatnonzero(self.word_ids.lengths):
            words = word_hashes[self.word_ids.values[self.word_ids.row_splits[row] : self.word_ids.row_splits[row + 1]]]
            hashes[row] = split.content_hash(words)
        return hashes

    @functools.cached_property
    def _split(self) -> tuple[list[str], Ragged]:
        index: defaultdict[str, int] = defaultdict()
        index.default_factory = index.__len__  # a new word gets the next index
        blocks, lengths = [np.zeros(0, np.int32)], np.zeros(len(self.texts), np.int64)
        for start in range(0, len(self.texts), TEXTS_PER_BLOCK):
            if self._progress:
                self._progress("Splitting texts into words", start, len(self.texts))
            block: list[str] = []
            for row, text in enumerate(self.texts[start : start + TEXTS_PER_BLOCK], start=start):
                words = split_words(text)
                lengths[row] = len(words)
                block += words
            blocks.append(np.fromiter(map(index.__getitem__, block), np.int32, len(block)))
        return list(index), Ragged.from_row_lengths(np.concatenate(blocks), lengths)
