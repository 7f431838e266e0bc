"""Tokenizers of pretrained networks without TensorFlow: WordPiece and SentencePiece.

The token IDs are those of KerasHub's tokenizers, of which these are counterparts.
"""

from __future__ import annotations

import base64
import re
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from dltoolkit.errors import UserError

WORD_PIECE = ("pieces", "unknown", "suffix", "lowercase", "strip_accents", "split_on_cjk")  # fields of its description
MAX_WORD_BYTES = 100  # longer words are unknown
MAX_CACHED_WORDS = 1 << 16  # words whose tokens are kept
PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")  # of ASCII; that of other scripts has the category P
ASCII_WORD = re.compile(r"[^\x00- !-/:-@\[-`{-\x7f]+|[!-/:-@\[-`{-~]")
# Ideographs, each of which is a word (https://github.com/google-research/bert/blob/master/tokenization.py)
CJK = (
    *((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F)),
    *((0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)),
)
# Default_Ignorable_Code_Point of Unicode, which the mapping NFKC_Casefold removes
IGNORABLE = re.compile(
    r"[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def separates(character: str) -> bool:
    """Return whether a character ends a word and is none itself: white space of ASCII or a control character."""
    return character == " " or unicodedata.category(character) in ("Cc", "Cf")


def is_word(character: str, split_on_cjk: bool) -> bool:
    """Return whether a character is a word: a punctuation mark or, if they are split, an ideograph."""
    if PUNCTUATION.match(character) or unicodedata.category(character)[0] == "P":
        return True
    return split_on_cjk and any(first <= ord(character) <= last for first, last in CJK)


def without_accents(text: str) -> str:
    """Return a text in Unicode's decomposed form NFD without its accents."""
    return "".join(each for each in unicodedata.normalize("NFD", text) if unicodedata.category(each) != "Mn")


def casefold(word: str) -> str:
    """Return a word without case, as Unicode's mapping NFKC_Casefold defines it."""
    if word.isascii():
        return word.lower()
    return IGNORABLE.sub("", unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", word).casefold()))


class WordPieceTokenizer:
    """The tokenizer of BERT (Devlin et al. 2019), which divides words into the longest pieces that it knows.

    Args:
        pieces: The pieces of the tokens 0, 1, ….
        unknown: The token of words that have no such pieces.
        suffix: Beginning of the pieces that are not at the beginning of a word.
        lowercase: Whether case is ignored.
        strip_accents: Whether accents are ignored.
        split_on_cjk: Whether each ideograph is a word.
    """

    def __init__(
        self,
        pieces: Sequence[str],
        unknown: str,
        suffix: str,
        lowercase: bool,
        strip_accents: bool,
        split_on_cjk: bool,
    ):
        self._pieces, self._suffix = list(pieces), suffix
        self.lowercase, self.strip_accents, self.split_on_cjk = lowercase, strip_accents, split_on_cjk
        self._tokens = {piece: token for token, piece in enumerate(self._pieces)}
        self.vocab_size, self.unknown_id = len(self._pieces), self._tokens[unknown]
        self._spacing = _Spacing(split_on_cjk)
        self._cache: dict[str, list[int]] = {}

    def encode(self, text: str) -> np.ndarray:
        """Return the token IDs of a text, int32 (n,)."""
        if len(self._cache) > MAX_CACHED_WORDS:
            self._cache.clear()
        tokens: list[int] = []
        for word in self.split(text):
            if (divided := self._cache.get(word)) is None:
                divided = self._cache[word] = self._divide(casefold(word) if self.lowercase else word)
            tokens += divided
        return np.array(tokens, np.int32)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of token IDs, with a space before each word."""
        words: list[str] = []
        for piece in (self._pieces[token] for token in token_ids):
            if words and piece.startswith(self._suffix) and len(piece) > len(self._suffix):
                words[-1] += piece[len(self._suffix) :]
            else:
                words.append(piece)
        return " ".join(words)

    def unknown(self, text: str) -> list[str]:
        """Return the distinct characters of a text that the vocabulary lacks."""
        return [each for each in dict.fromkeys(text) if self.unknown_id in self.encode(each)]

    def to_json(self) -> dict[str, Any]:
        """Return a description from which `tokenizers.from_json` restores the tokenizer."""
        pieces = {"pieces": self._pieces, "unknown": self._pieces[self.unknown_id], "suffix": self._suffix}
        options = {name: getattr(self, name) for name in ("lowercase", "strip_accents", "split_on_cjk")}
        return {"tokenizer": "word_piece", **pieces, **options}

    def split(self, text: str) -> list[str]:
        """Return the words of a text."""
        if text.isascii():
            return ASCII_WORD.findall(text)
        if self.strip_accents:
            text = without_accents(text)
        return [word for word in text.translate(self._spacing).split(" ") if word]

    def _divide(self, word: str) -> list[int]:
        """Return the tokens of a word."""
        if len(word.encode("utf-8", "surrogatepass")) > MAX_WORD_BYTES:
            return [self.unknown_id]
        tokens, start = [], 0
        while start < len(word):
            prefix = self._suffix if start else ""
            for end in range(len(word), start, -1):
                if (token := self._tokens.get(prefix + word[start:end])) is not None:
                    break
            else:
                return [self.unknown_id]
            tokens.append(token)
            start = end
        return tokens


def patterns(tokenizer: WordPieceTokenizer) -> dict[str, Any]:
    """Return how a tokenizer finds words, as regular expressions, for programs in other languages.

    Returns:
        ``word`` matches a word, ``ignorable`` a character that has no meaning; ``max_word_bytes``.
    """
    characters = [chr(code) for code in range(sys.maxunicode + 1)]
    separators = _ranges([code for code, character in enumerate(characters) if separates(character)])
    marks = {code for code, character in enumerate(characters) if is_word(character, split_on_cjk=False)}
    ideographs = {code for first, last in CJK for code in range(first, last + 1)} if tokenizer.split_on_cjk else set()
    words = _ranges(sorted(marks | ideographs))
    word = f"[^{separators}{words}]+|[{words}]"
    return {"word": word, "ignorable": IGNORABLE.pattern, "max_word_bytes": MAX_WORD_BYTES}


def _ranges(codes: Sequence[int]) -> str:
    """Return ascending code points as the inside of a character class of a regular expression."""
    ranges: list[list[int]] = []
    for code in codes:
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join("-".join(f"\\U{code:08x}" for code in dict.fromkeys(each)) for each in ranges)


class _Spacing(dict):
    """What replaces each character so that words are between spaces, by code point."""

    def __init__(self, split_on_cjk: bool):
        super().__init__()
        self._split_on_cjk = split_on_cjk

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if separates(character):
            self[code] = " "
        else:
            self[code] = f" {character} " if is_word(character, self._split_on_cjk) else character
        return self[code]


class SentencePieceTokenizer:
    """A tokenizer of the sentencepiece package (Kudo & Richardson 2018).

    Args:
        proto: The contents of its file.

    Raises:
        UserError: If the package is missing.
    """

    def __init__(self, proto: bytes):
        try:
            import sentencepiece
        except ImportError:
            raise UserError("This tokenizer needs the sentencepiece package: pip install sentencepiece.") from None
        self._proto = proto
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=proto)
        self.vocab_size, self.unknown_id = self._processor.vocab_size(), self._processor.unk_id()

    def encode(self, text: str) -> np.ndarray:
        """Return the token IDs of a text, int32 (n,)."""
        return np.array(self._processor.encode(text), np.int32)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of token IDs."""
        return self._processor.decode([int(token) for token in token_ids])

    def unknown(self, text: str) -> list[str]:
        """Return the distinct characters of a text that the vocabulary lacks."""
        if self.unknown_id not in self.encode(text):
            return []
        return [each for each in dict.fromkeys(text) if self.unknown_id in self.encode(each)]

    def to_json(self) -> dict[str, Any]:
        """Return a description from which `tokenizers.from_json` restores the tokenizer."""
        return {"tokenizer": "sentencepiece", "proto": base64.b64encode(self._proto).decode()}
