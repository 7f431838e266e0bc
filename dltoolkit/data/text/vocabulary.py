"""The vocabulary of a text classifier: words, word prefixes and n-grams."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import numpy as np

from dltoolkit.data.text import ngrams as ngram_keys
from dltoolkit.data.text.ngrams import MAX_NGRAM, WORD_BITS
from dltoolkit.data.text.ragged import Ragged
from dltoolkit.data.text.words import TokenizedTexts
from dltoolkit.errors import UserError

UNKNOWN_ID, FIRST_ID = 1, 2  # IDs of unknown words and of the first entry; ID 0 is padding
MAX_WORDS = 2**WORD_BITS - FIRST_ID  # words and prefixes together, limited by the bits of a word number


class Vocabulary:
    """The entries that a model distinguishes. The ID ``FIRST_ID + i`` stands for ``entries[i]``.

    Args:
        entries: Words; prefixes such as ``wond*``, which stand for all words that begin so; and n-grams, which are
            words separated by spaces. The words of an n-gram are entries too.
        ngrams: Maximum number of words in an entry, 1 to 3.
    """

    def __init__(self, entries: Sequence[str], ngrams: int = 1):
        self.entries, self.ngrams = list(entries), ngrams
        self._index = {word: FIRST_ID + i for i, word in enumerate(self.entries) if " " not in word}
        self.prefix_length = next((len(entry) - 1 for entry in self.entries if entry.endswith("*")), 0)

    def __len__(self) -> int:
        """Return the number of IDs, including those of padding and unknown words."""
        return FIRST_ID + len(self.entries)

    @classmethod
    def build(
        cls,
        tokenized: TokenizedTexts,
        rows: np.ndarray,
        *,
        ngrams: int = 1,
        max_size: int,
        min_df: int = 2,
        prefix_length: int = 0,
    ) -> Vocabulary:
        """Return a vocabulary of the entries that occur in the most texts.

        Args:
            tokenized: The texts.
            rows: Indices of the texts that count, which are the training texts.
            ngrams: Maximum number of words in an entry.
            max_size: Maximum number of words and n-grams.
            min_df: Minimum number of texts that contain an entry.
            prefix_length: Number of letters of the word prefixes; 0 for no prefixes.

        Raises:
            UserError: If no word occurs in ``min_df`` texts.
        """
        word_ids = tokenized.word_ids.take(rows)
        frequencies = ngram_keys.document_frequencies(word_ids, len(tokenized.words))
        order = np.argsort(-frequencies, kind="stable")
        order = order[: min(max_size, MAX_WORDS, int((frequencies >= min_df).sum()))]
        if not len(order):
            raise UserError(
                f"No word occurs in {min_df} of the {len(rows)} training texts: use more texts or --min-df=1."
            )
        words = [tokenized.words[i] for i in order]
        prefixes = _frequent_prefixes(tokenized.words, word_ids, prefix_length, min_df)[: MAX_WORDS - len(words)]
        if ngrams == 1:
            return cls([*words, *prefixes])
        numbers = np.zeros(len(tokenized.words), np.int32)
        numbers[order] = 1 + np.arange(len(order))
        numbered = Ragged(numbers[word_ids.values], word_ids.row_splits)
        blocks = [keys for _, keys, _ in ngram_keys.occurrences(numbered, ngrams)]
        keys, counts = ngram_keys.count_frequent([block[block >= 2**WORD_BITS] for block in blocks], min_df)
        frequencies = np.concatenate([frequencies[order], counts])
        # A word precedes the n-grams that contain it, because the sort is stable and they are not more frequent
        best = np.sort(np.argsort(-frequencies, kind="stable")[:max_size])
        word_count = np.searchsorted(best, len(words))
        selected = [ngram_keys.unpack(key) for key in keys[best[word_count:] - len(words)].tolist()]
        spelled = [" ".join(words[number - 1] for number in numbers) for numbers in selected]
        return cls([*(words[i] for i in best[:word_count]), *prefixes, *spelled], ngrams)

    def encode_sequences(self, tokenized: TokenizedTexts, max_length: int) -> Ragged:
        """Return the IDs of the words of each text, without the middle of texts of more than ``max_length`` words."""
        ids = np.array([self._index.get(word, UNKNOWN_ID) for word in tokenized.words], np.int32)
        word_ids = tokenized.word_ids
        return Ragged(ids[word_ids.values], word_ids.row_splits).truncate_middle(max_length)

    def encode_bags(self, tokenized: TokenizedTexts) -> Ragged:
        """Return the distinct IDs of the entries that occur in each text, ascending."""
        word_ids = tokenized.word_ids
        numbers = self._numbers(tokenized.words)[word_ids.values]
        prefixes = None
        if self.prefix_length:
            prefixes = self._numbers([_prefix(word, self.prefix_length) for word in tokenized.words])[word_ids.values]
        entry_keys, entry_ids = self._keys_and_ids
        blocks, lengths = [np.zeros(0, np.int32)], np.zeros(len(word_ids), np.int64)
        numbered = Ragged(numbers, word_ids.row_splits)
        for first, keys, texts in ngram_keys.occurrences(numbered, self.ngrams, prefixes):
            # The search is fast because the keys are ascending
            index = np.minimum(np.searchsorted(entry_keys, keys), len(entry_keys) - 1)
            in_vocabulary = entry_keys[index] == keys
            texts = texts[in_vocabulary]
            pairs = np.sort(texts << 32 | entry_ids[index[in_vocabulary]])  # text and ID in one number
            blocks.append((pairs & (2**32 - 1)).astype(np.int32))
            counts = np.bincount(texts)
            lengths[first : first + len(counts)] = counts
        return Ragged.from_row_lengths(np.concatenate(blocks), lengths)

    def _numbers(self, words: Sequence[str]) -> np.ndarray:
        """Return the numbers of words in the keys of n-grams, int32; 0 for unknown words."""
        return np.array([self._index.get(word, UNKNOWN_ID) - UNKNOWN_ID for word in words], np.int32)

    @functools.cached_property
    def _keys_and_ids(self) -> tuple[np.ndarray, np.ndarray]:
        """The keys of the entries, ascending, and their IDs."""
        keys = self._entry_keys()
        order = np.argsort(keys)
        return keys[order], FIRST_ID + order

    def _entry_keys(self) -> np.ndarray:
        """Return the keys of all entries, int64; 0 for an n-gram with a word that is not an entry.

        Loops over millions of entries in Python would take most of the time of a prediction.
        """
        if not self.entries:
            return np.zeros(0, np.int64)
        lengths = 1 + np.fromiter(map(str.count, self.entries, itertools.repeat(" ")), np.int64, len(self.entries))
        words = map(self._index.get, " ".join(self.entries).split(" "), itertools.repeat(UNKNOWN_ID))
        numbers = np.fromiter(words, np.int64, int(lengths.sum())) - UNKNOWN_ID
        first = np.cumsum(lengths) - lengths
        keys, complete = numbers[first], numbers[first] > 0
        for position in range(1, int(lengths.max())):
            longer = np.flatnonzero(lengths > position)
            following = numbers[first[longer] + position]
            keys[longer] = keys[longer] << WORD_BITS | following
            complete[longer] &= following > 0
        return np.where(complete, keys, 0)

    def to_text(self) -> str:
        """Return the entries, one per line."""
        return "".join(f"{entry}\n" for entry in self.entries)

    @classmethod
    def from_text(cls, text: str) -> Vocabulary:
        """Return the vocabulary that `to_text` wrote.

        Raises:
            ValueError: If the text is not a vocabulary.
        """
        entries = text.split("\n")[:-1]
        if len(set(entries)) < len(entries):
            raise ValueError("an entry stands in two lines")
        ngrams = max((1 + entry.count(" ") for entry in entries), default=0)
        vocabulary = cls(entries, ngrams)
        if len(vocabulary._index) > MAX_WORDS:
            raise ValueError(f"more than {MAX_WORDS:,} words")
        if not 1 <= ngrams <= MAX_NGRAM or not vocabulary._keys_and_ids[0].all():
            raise ValueError("the lines are not words and n-grams of them")
        return vocabulary


def log_count_ratios(bags: Ragged, labels: np.ndarray, vocab_size: int, classes: int) -> np.ndarray:
    """Return the log-count ratios of Wang & Manning (2012), each class against all others.

    A ratio is the logarithm of how much more frequent an entry is in the texts of a class than in the other texts.

    Args:
        bags: IDs of the entries that occur in each text.
        labels: Class of each text, int (n,).
        vocab_size: Number of IDs.
        classes: Number of classes.

    Returns:
        float32 (vocab_size, classes), from counts that are smoothed by one; zeros for padding and unknown words.
    """
    label = np.repeat(labels, bags.lengths).astype(np.int64)
    counts = np.bincount(bags.values * np.int64(classes) + label, minlength=vocab_size * classes)
    counts = counts.reshape(vocab_size, classes)[FIRST_ID:] + 1.0
    others = counts.sum(axis=1, keepdims=True) - counts
    ratios = np.zeros((vocab_size, classes), np.float32)
    ratios[FIRST_ID:] = np.log(counts / counts.sum(axis=0)) - np.log(others / others.sum(axis=0))
    return ratios


def _prefix(word: str, length: int) -> str:
    return word[:length] + "*" if len(word) >= length else ""


def _frequent_prefixes(words: Sequence[str], word_ids: Ragged, length: int, min_df: int) -> list[str]:
    """Return the prefixes of words that occur in at least ``min_df`` texts, the most frequent first."""
    if not length:
        return []
    index: dict[str, int] = {"": 0}
    prefix_ids = np.array([index.setdefault(_prefix(word, length), len(index)) for word in words], np.int32)
    by_text = Ragged(prefix_ids[word_ids.values], word_ids.row_splits)
    frequencies = ngram_keys.document_frequencies(by_text, len(index))
    frequencies[0] = 0  # words that are too short
    order = np.argsort(-frequencies, kind="stable")
    prefixes = list(index)
    return [prefixes[i] for i in order[: int((frequencies >= min_df).sum())]]
