"""Texts word by word: which token IDs of a model stand for which word of the raw text, and texts without some words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dltoolkit.data.text.encoders import KerasHubEncoder, TextEncoder, VocabularyEncoder
from dltoolkit.data.text.ragged import Ragged
from dltoolkit.data.text.vocabulary import FIRST_ID
from dltoolkit.data.text.words import WORD
from dltoolkit.explanation import text_offsets
from dltoolkit.explanation.text_offsets import AlignedText

# Words with the white space before them, which is a part of their tokens in byte-pair encoding
WORDS = re.compile(rf"\s*(?:[^\w\s]+|{WORD.pattern})|\s+")
CHUNKS = re.compile(r"\s*\S+|\s+")  # what is between white space, for tokenizers that cannot read words by themselves
SENTENCE_END = re.compile(r"[.!?…؟۔।]+[\"'”’»)\]]*(?=\s|<|$)|[。！？]+|\n")


@dataclass(frozen=True)
class ReadText:
    """A text word by word as a model reads it.

    Attributes:
        text: The raw text.
        spans: Start and end in the raw text of each word that the model reads.
        unknown: Numbers of the words that the model does not know.
        unread: Start and end of the middle that the model does not read, because the text is too long, or None.
        unread_words: Number of words in it.
    """

    text: str
    spans: list[tuple[int, int]]
    unknown: list[int]
    unread: tuple[int, int] | None
    unread_words: int

    def variants(self, kept: np.ndarray) -> np.ndarray:
        """Return what the model reads if only some of the words are in the text.

        Args:
            kept: Which words are in each variant, bool (variants, words).

        Returns:
            Token IDs, int32 (variants, time), padded with 0.
        """
        raise NotImplementedError

    @property
    def sentences(self) -> np.ndarray:
        """The number of the sentence of each word, int (words,), ascending."""
        ends = [match.end() for match in SENTENCE_END.finditer(self.text)]
        numbers = np.searchsorted(ends, [start for start, _ in self.spans], side="right")
        return np.unique(numbers, return_inverse=True)[1] if len(numbers) else numbers


@dataclass(frozen=True)
class SequenceText(ReadText):
    """A text that a model reads as a sequence.

    Attributes:
        token_ids: Token IDs with those of the start and the end, int32 (tokens,).
        words: Number of the word of each token, int (tokens,); -1 for the start and the end.
    """

    token_ids: np.ndarray
    words: np.ndarray

    def variants(self, kept: np.ndarray) -> np.ndarray:
        in_variant = np.concatenate([kept, np.ones((len(kept), 1), bool)], axis=1)[:, self.words]
        values = np.broadcast_to(self.token_ids, in_variant.shape)[in_variant]
        return Ragged.from_row_lengths(values, in_variant.sum(axis=1)).to_padded()


@dataclass(frozen=True)
class BagText(ReadText):
    """A text that a model reads as a bag of n-grams.

    Attributes:
        word_list: The words in lower case.
        encoder: Finds the n-grams.
    """

    word_list: list[str]
    encoder: VocabularyEncoder

    def variants(self, kept: np.ndarray) -> np.ndarray:
        distinct, word_ids = np.unique(np.array(self.word_list, object), return_inverse=True)
        values = np.broadcast_to(word_ids.astype(np.int32), kept.shape)[kept]
        rows = Ragged.from_row_lengths(values, kept.sum(axis=1))
        return self.encoder.vocabulary.encode_bags(SplitTexts(distinct.tolist(), rows)).to_padded()

    def entries(self) -> tuple[np.ndarray, list[tuple[str, list[tuple[int, int]]]]]:
        """Return what the model knows of the text.

        Returns:
            The token IDs of the entries of the vocabulary, int32 (entries,), and for each entry its spelling and its
            occurrences: the numbers of the first word and of the word after the last one.
        """
        vocabulary, words = self.encoder.vocabulary, self.word_list
        ids = self.variants(np.ones((1, len(words)), bool))[0]
        ids = ids[ids > 0]
        places: dict[str, list[tuple[int, int]]] = {vocabulary.entries[i - FIRST_ID]: [] for i in ids.tolist()}
        for start, word in enumerate(words):
            for end in range(start + 1, min(len(words), start + vocabulary.ngrams) + 1):
                if (found := places.get(" ".join(words[start:end]))) is not None:
                    found.append((start, end))
            length = vocabulary.prefix_length
            if length and (found := places.get(f"{word[:length]}*")) is not None and len(word) >= length:
                found.append((start, start + 1))
        return ids, list(places.items())


@dataclass(frozen=True)
class SplitTexts:
    """Texts whose words are known, in place of a ``TokenizedTexts``."""

    words: list[str]
    word_ids: Ragged


def read(text: str, encoder: TextEncoder) -> ReadText:
    """Return a text word by word as a model reads it.

    Args:
        text: The raw text.
        encoder: The encoder of the model.
    """
    if isinstance(encoder, VocabularyEncoder):
        word_list, spans = text_offsets.words(text)
        if encoder.max_length is None:
            rows = Ragged.from_row_lengths(np.arange(len(word_list), dtype=np.int32), np.ones(len(word_list), int))
            in_vocabulary = encoder.vocabulary.encode_bags(SplitTexts(word_list, rows)).lengths > 0
            unknown = np.flatnonzero(~in_vocabulary).tolist()
            return BagText(text, spans, unknown, None, 0, word_list, encoder)
        rows = Ragged.from_row_lengths(np.arange(len(word_list), dtype=np.int32), np.array([len(word_list)]))
        token_ids = encoder.vocabulary.encode_sequences(SplitTexts(word_list, rows), len(word_list) + 1).values
        return _sequence(text, spans, token_ids, np.arange(len(word_list)), encoder)
    aligned = AlignedText.of(text).without_html()
    if hasattr(encoder, "strip_accents"):
        # As `encoders` does for a pretrained tokenizer
        aligned = AlignedText(aligned.text.replace("\0", " "), aligned.starts, aligned.ends).strip()
        aligned = aligned.lower() if encoder.lowercase else aligned
        aligned = aligned.without_accents() if encoder.strip_accents else aligned
    spans, tokens, words = pieces(aligned, tokenize(encoder))
    return _sequence(text, spans, 1 + tokens, words, encoder)


def tokenize(encoder: TextEncoder) -> Callable[[list[str]], list[np.ndarray]]:
    """Return the function of an encoder from texts to tokens without those of the start and the end."""
    if isinstance(encoder, KerasHubEncoder) and hasattr(encoder.tokenizer, "merges"):
        return lambda texts: _rows(encoder.tokens(texts))
    if isinstance(encoder, KerasHubEncoder):
        return lambda texts: [np.asarray(row, np.int64) for row in encoder.tokenizer(texts)]
    return lambda texts: [np.asarray(encoder.tokenizer.encode(text), np.int64) for text in texts]


def _rows(ragged: Ragged) -> list[np.ndarray]:
    return np.split(ragged.values.astype(np.int64), ragged.row_splits[1:-1])


def pieces(
    aligned: AlignedText, encode: Callable[[list[str]], list[np.ndarray]]
) -> tuple[list[tuple[int, int]], np.ndarray, np.ndarray]:
    """Return the words of a text and the tokens of each one.

    Args:
        aligned: The text as its tokenizer reads it.
        encode: From texts to tokens.

    Returns:
        Start and end of the words in the raw text, the tokens int (tokens,), and the numbers of their words.
    """
    for pattern in (WORDS, CHUNKS):
        matches = list(pattern.finditer(aligned.text))
        whole, *parts = encode([aligned.text, *(match[0] for match in matches)])
        joined = np.concatenate([*parts, whole[:0]])
        words = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        if np.array_equal(joined, whole):
            break
    else:
        words = _align(joined, words, whole)
    spans = []
    for match in matches:
        text = match[0]
        start = match.end() - len(text.lstrip())
        spans.append(aligned.span(start, match.end()) if text.strip() else None)
    # White space at the end, which some tokenizers read, belongs to the word before it
    if spans and spans[-1] is None and len(spans) > 1:
        words = np.minimum(words, len(spans) - 2)
        spans.pop()
    return [span or aligned.span(0, len(aligned.text)) for span in spans], whole, words


def _align(parts: np.ndarray, words: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return the words of the tokens of a text from those of nearly the same tokens, int (len(whole),)."""
    blocks = difflib.SequenceMatcher(None, parts.tolist(), whole.tolist(), autojunk=False).get_matching_blocks()
    aligned = np.full(len(whole), -1)
    for block in blocks:
        aligned[block.b : block.b + block.size] = words[block.a : block.a + block.size]
    return np.maximum.accumulate(np.maximum(aligned, 0))


def _sequence(
    text: str, spans: Sequence[tuple[int, int]], token_ids: np.ndarray, words: np.ndarray, encoder: TextEncoder
) -> SequenceText:
    """Return the text of tokens without the middle that the model does not read."""
    ends = [
        np.array([1 + token for token in getattr(encoder, name, ())], np.int32)
        for name in ("start_tokens", "end_tokens")
    ]
    places = Ragged(np.arange(len(token_ids), dtype=np.int32), np.array([0, len(token_ids)]))
    read = places.truncate_middle(encoder.max_length - sum(map(len, ends))).values
    numbers = np.unique(words[read])
    unread = np.setdiff1d(words, numbers)
    start, end = (np.full(len(each), -1) for each in ends)
    is_unknown = np.isin(token_ids[read], encoder.unknown_token_ids)
    in_order = np.searchsorted(numbers, words[read])
    is_known = np.bincount(in_order[~is_unknown], minlength=len(numbers)) > 0
    return SequenceText(
        text=text,
        spans=[spans[i] for i in numbers.tolist()],
        unknown=np.flatnonzero(~is_known).tolist(),
        unread=(spans[unread[0]][0], spans[unread[-1]][1]) if len(unread) else None,
        unread_words=len(unread),
        token_ids=np.concatenate([ends[0], token_ids[read], ends[1]]).astype(np.int32),
        words=np.concatenate([start, in_order, end]),
    )


def details(read_text: ReadText) -> dict[str, Any]:
    """Return what JSON says about a text besides its words: what the model does not know and does not read."""
    spans = [read_text.spans[i] for i in read_text.unknown]
    fields: dict[str, Any] = {"unknown": list(dict.fromkeys(read_text.text[start:end] for start, end in spans))}
    if read_text.unread:
        start, end = read_text.unread
        fields["unread"] = {"start": start, "end": end, "words": read_text.unread_words}
    return fields
