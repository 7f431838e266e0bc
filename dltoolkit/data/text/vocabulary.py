"""From texts to numbers: standardisation, words and n-grams, and the vocabulary that travels with a run."""

from __future__ import annotations

import functools
import html
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dltoolkit.errors import UserError
from dltoolkit.files import atomic_write

TAG = re.compile(r"</?[a-z][^<>]{0,300}>|<!--.{0,300}?-->", re.IGNORECASE | re.DOTALL)
_ALONE = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # scripts written without spaces, sign by sign
_MARKS = "\u0300-\u036f\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0900-\u0df3\u0e31-\u0e4e\u200d"  # parts of words too
WORD = re.compile(
    rf"(?:[^\W{_ALONE}][{_MARKS}]*)+(?:['’](?:[^\W{_ALONE}][{_MARKS}]*)+)*"  # don't, naïve, हिन्दी
    rf"|[{_ALONE}]"
    r"|[:;=]-?[()dp/]"  # :-)
    r"|[!?]"
    r"|[^\w\s\x00-\x7f\u00a0-\u00bf\u2000-\u206f\u3000-\u303f\ufe00-\ufe0f]"  # emoji and other signs, not punctuation
)
ASCII_WORD = re.compile(r"\w+(?:'\w+)*|[:;=]-?[()dp/]|[!?]", re.ASCII)  # finds the same, several times as fast
UNKNOWN, FIRST = 1, 2  # numbers that stand for an unknown word and for the first known one; 0 is padding
BITS = 18  # of a word's number in the key of an n-gram, so at most 262,142 words and three of them
LONGEST_NGRAM = 3
TEXT_BITS = 10  # of a text's number beside such a key: so many texts are looked at together
SIEVE_BITS = 24
HEAD = 0.25  # of a sequence that is cut keeps the beginning, the rest the end (after Sun et al. 2019)


def without_html(text: str) -> str:
    """Return ``text`` with HTML's tags taken out and its entities written as what they stand for."""
    if "<" in text:
        text = TAG.sub(" ", text)
    return html.unescape(text) if "&" in text else text


def standardised(text: str) -> str:
    """Return ``text`` in lower case, without HTML tags and entities, composed (NFC)."""
    text = without_html(text)
    return text.lower() if text.isascii() else unicodedata.normalize("NFC", text.lower())


def words_of(text: str) -> list[str]:
    """Return the words of a text, and what else says something: emoji, emoticons, marks of exclamation and question."""
    clean = standardised(text)
    return (ASCII_WORD if clean.isascii() else WORD).findall(clean)


@dataclass(frozen=True)
class Packed:
    """Lists of numbers of different lengths in one array.

    Attributes:
        numbers: int32, one list after the other.
        ends: int64 (n + 1,), where each begins and ends.
    """

    numbers: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.ends) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int64 (n,)."""
        return np.diff(self.ends)

    def take(self, rows: np.ndarray) -> Packed:
        """Return the lists at ``rows``."""
        lengths = self.lengths[rows]
        ends = np.concatenate([[0], np.cumsum(lengths)])
        places = np.arange(ends[-1]) + np.repeat(self.ends[:-1][rows] - ends[:-1], lengths)
        return Packed(self.numbers[places], ends)

    def shortest_first(self, rows: np.ndarray) -> np.ndarray:
        """Return ``rows`` in the order of their lengths, in which batches hold little padding."""
        return rows[np.argsort(self.lengths[rows], kind="stable")]

    def shortened(self, longest: int) -> Packed:
        """Return the lists with the middle of those of more than ``longest`` numbers left out."""
        lengths = self.lengths
        if lengths.max(initial=0) <= longest:
            return self
        head = int(HEAD * longest)
        place = np.arange(len(self.numbers)) - np.repeat(self.ends[:-1], lengths)
        left = np.repeat(lengths, lengths) - place
        kept = (place < head) | (left <= longest - head) | np.repeat(lengths <= longest, lengths)
        return Packed(self.numbers[kept], np.concatenate([[0], np.cumsum(np.minimum(lengths, longest))]))

    def padded(self) -> np.ndarray:
        """Return int32 (n, longest), zeros at the ends."""
        lengths = self.lengths
        table = np.zeros((len(self), max(1, int(lengths.max(initial=0)))), np.int32)
        table[np.arange(table.shape[1]) < lengths[:, None]] = self.numbers
        return table


class Corpus:
    """Texts, cut into words once, whatever is made of them afterwards.

    Args:
        texts: raw texts.
    """

    def __init__(self, texts: Sequence[str]):
        self.texts = texts

    @property
    def words(self) -> list[str]:
        """The different words, in the order of their first use."""
        return self._cut[0]

    @property
    def packed(self) -> Packed:
        """For each text the numbers of its words."""
        return self._cut[1]

    @functools.cached_property
    def _cut(self) -> tuple[list[str], Packed]:
        index: defaultdict[str, int] = defaultdict()
        index.default_factory = index.__len__
        pieces, lengths = [], np.zeros(len(self.texts), np.int64)
        for start in range(0, len(self.texts), 1000):
            words: list[str] = []
            for position, text in enumerate(self.texts[start : start + 1000], start=start):
                found = words_of(text)
                lengths[position] = len(found)
                words += found
            pieces.append(np.fromiter(map(index.__getitem__, words), np.int32, len(words)))
        numbers = np.concatenate(pieces) if pieces else np.zeros(0, np.int32)
        return list(index), Packed(numbers, np.concatenate([[0], np.cumsum(lengths)]))


class Vocabulary:
    """The words, or words and n-grams, that a model knows.

    Args:
        entries: words, n-grams as words with a space between (every word of an n-gram is an entry too), and
            beginnings such as ``wond*``, which stand for every word that begins so. Number ``FIRST + i`` stands for
            ``entries[i]``.
        ngrams: the most words in an entry, 1 to 3.
    """

    def __init__(self, entries: Sequence[str], ngrams: int = 1):
        self.entries, self.ngrams = list(entries), ngrams
        self._index = {word: FIRST + i for i, word in enumerate(self.entries) if " " not in word}
        self._letters = next((len(entry) - 1 for entry in self.entries if entry.endswith("*")), 0)

    def __len__(self) -> int:
        """How many numbers there are, padding and unknown included."""
        return FIRST + len(self.entries)

    @classmethod
    def build(
        cls, corpus: Corpus, rows: np.ndarray, *, ngrams: int = 1, size: int, minimum: int = 2, letters: int = 0
    ) -> Vocabulary:
        """Take the entries that occur in most texts.

        Args:
            corpus: the texts.
            rows: which of them count (the training part).
            ngrams: the most words in an entry.
            size: at most so many entries.
            minimum: of texts in which an entry occurs.
            letters: of the words' beginnings that are entries too; 0 for none.

        Raises:
            UserError: if no word is left.
        """
        packed = corpus.packed.take(rows)
        count = _texts_with(packed, len(corpus.words))
        order = np.argsort(-count, kind="stable")
        order = order[: min(size, 2**BITS - FIRST, int((count >= minimum).sum()))]
        if not len(order):
            raise UserError(
                f"No word occurs in {minimum} of the {len(rows)} training texts: give more texts, or --min-df 1."
            )
        words = [corpus.words[i] for i in order]
        beginnings = _beginnings(corpus, packed, letters, minimum)[: 2**BITS - FIRST - len(words)]
        if ngrams == 1:
            return cls([*words, *beginnings])
        number = np.zeros(len(corpus.words), np.int64)
        number[order] = 1 + np.arange(len(order))
        keys = [pairs >> TEXT_BITS for _, pairs in _ngrams(number[packed.numbers], packed.ends, ngrams)]
        found, count_long = _counted(_often([key[key >= 2**BITS] for key in keys], minimum))
        kept = count_long >= minimum
        frequency = np.concatenate([count[order], count_long[kept]])
        best = np.sort(np.argsort(-frequency, kind="stable")[:size])  # a word before the rarer n-grams that hold it
        of_words = np.searchsorted(best, len(words))
        spelled = [_spelled(key, words) for key in found[kept][best[of_words:] - len(words)].tolist()]
        return cls([*(words[i] for i in best[:of_words]), *beginnings, *spelled], ngrams)

    def sequences(self, corpus: Corpus, longest: int) -> Packed:
        """Return the words of each text in order, the middle of texts of more than ``longest`` words left out."""
        numbers = np.array([self._index.get(word, UNKNOWN) for word in corpus.words], np.int32)
        return Packed(numbers[corpus.packed.numbers], corpus.packed.ends).shortened(longest)

    def bags(self, corpus: Corpus) -> Packed:
        """Return the entries that occur in each text, each once, in no particular order."""
        number = np.array([self._index.get(word, UNKNOWN) - UNKNOWN for word in corpus.words], np.int64)
        beginning = None
        if self._letters:
            starts = [_beginning(word, self._letters) for word in corpus.words]
            beginning = np.array([self._index.get(start, UNKNOWN) - UNKNOWN for start in starts], np.int64)
            beginning = beginning[corpus.packed.numbers]
        keys, numbers = self._keys_and_numbers
        found = [np.zeros(0, np.int64)]
        for first, pairs in _ngrams(number[corpus.packed.numbers], corpus.packed.ends, self.ngrams, beginning):
            key = pairs >> TEXT_BITS
            place = np.minimum(np.searchsorted(keys, key), len(keys) - 1)  # ascending keys are found quickly
            known = keys[place] == key
            text = first + (pairs[known] & (2**TEXT_BITS - 1))
            found.append(np.sort(text << 32 | numbers[place[known]]))
        both = np.concatenate(found)
        text, numbers = both >> 32, both & (2**32 - 1)
        return Packed(numbers.astype(np.int32), np.searchsorted(text, np.arange(len(corpus.packed) + 1)))

    @functools.cached_property
    def _keys_and_numbers(self) -> tuple[np.ndarray, np.ndarray]:
        """The entries' keys, ascending, and their numbers."""
        known = {word: number - UNKNOWN for word, number in self._index.items()}
        keys = np.zeros(len(self.entries), np.int64)
        for position, entry in enumerate(self.entries):
            key = 0
            for word in entry.split(" "):
                key = key << BITS | known[word]
            keys[position] = key
        order = np.argsort(keys)
        return keys[order], FIRST + order

    def text(self) -> str:
        """Return what ``read`` takes: a line for each entry."""
        return "".join(f"{entry}\n" for entry in self.entries)

    @classmethod
    def read(cls, text: str) -> Vocabulary:
        """Return the vocabulary that ``text`` wrote.

        Raises:
            ValueError: if it is none.
        """
        entries = text.split("\n")[:-1]
        known = {entry for entry in entries if " " not in entry}
        ngrams = max((1 + entry.count(" ") for entry in entries), default=0)
        if not 1 <= ngrams <= LONGEST_NGRAM or not all(known.issuperset(entry.split(" ")) for entry in entries):
            raise ValueError("not a vocabulary")
        return cls(entries, ngrams)


@dataclass(frozen=True)
class Encoder:
    """How a model's texts become numbers.

    Attributes:
        vocabulary: what the model knows.
        longest: words of a text at most; None where the model takes a bag of entries instead of words in order.
    """

    vocabulary: Vocabulary
    longest: int | None = None
    hidden = UNKNOWN
    spared = ()

    def __call__(self, corpus: Corpus) -> Packed:
        """Return the numbers of each text."""
        if self.longest is None:
            return self.vocabulary.bags(corpus)
        return self.vocabulary.sequences(corpus, self.longest)

    def save(self, folder: Path) -> None:
        """Write the vocabulary, which ``encoders.load`` reads."""
        with atomic_write(folder / "vocabulary.txt") as beside:
            beside.write_text(self.vocabulary.text(), encoding="utf-8")


def log_count_ratios(packed: Packed, labels: np.ndarray, size: int, classes: int) -> np.ndarray:
    """Return how much likelier each entry is in a text of a class than in one of the others, as a logarithm.

    The ratio r of Wang & Manning (2012), one class against the rest.

    Args:
        packed: the entries that occur in each text.
        labels: int (texts,).
        size: of the vocabulary.
        classes: how many there are.

    Returns:
        float32 (size, classes), counts smoothed by one; zeros for padding and unknown.
    """
    label = np.repeat(labels, packed.lengths).astype(np.int64)
    counts = np.bincount(packed.numbers * np.int64(classes) + label, minlength=size * classes)
    counts = counts.reshape(size, classes)[FIRST:] + 1.0
    others = counts.sum(axis=1, keepdims=True) - counts
    ratios = np.zeros((size, classes), np.float32)
    ratios[FIRST:] = np.log(counts / counts.sum(axis=0)) - np.log(others / others.sum(axis=0))
    return ratios


def _beginning(word: str, letters: int) -> str:
    return word[:letters] + "*" if len(word) >= letters else ""


def _beginnings(corpus: Corpus, packed: Packed, letters: int, minimum: int) -> list[str]:
    """Return the words' beginnings that occur in at least ``minimum`` of the packed texts, the commonest first."""
    if not letters:
        return []
    index: dict[str, int] = {"": 0}
    of_word = [index.setdefault(_beginning(word, letters), len(index)) for word in corpus.words]
    numbers = np.array(of_word, np.int32)[packed.numbers]
    count = _texts_with(Packed(numbers, packed.ends), len(index))
    count[0] = 0
    order = np.argsort(-count, kind="stable")
    spelled = list(index)
    return [spelled[i] for i in order[: int((count >= minimum).sum())]]


def _ngrams(
    words: np.ndarray, ends: np.ndarray, ngrams: int, beginnings: np.ndarray | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield, for some texts at a time, the first one's number and the n-grams that occur in each, ascending.

    Args:
        words: int64, numbers from 1, text after text; 0 is in no n-gram.
        ends: where each text begins and ends.
        beginnings: int64, of each word the number of its beginning, which counts as one more word; 0 for none.

    Yields:
        n-grams as int64, key << TEXT_BITS | text, counted from the first; each once for a text.
    """
    together = 2**TEXT_BITS
    for first in range(0, len(ends) - 1, together):
        span = ends[first : first + together + 1]
        some = words[span[0] : span[-1]]
        text = np.repeat(np.arange(len(span) - 1), np.diff(span))
        pairs = []
        key, whole = np.zeros(len(some), np.int64), np.ones(len(some), bool)
        for length in range(1, ngrams + 1):
            count = max(0, len(some) - length + 1)
            last = some[length - 1 :]
            key = key[:count] << BITS | last
            whole = whole[:count] & (last > 0) & (text[:count] == text[length - 1 :])
            pairs.append((key << TEXT_BITS | text[:count])[whole])
        if beginnings is not None:
            key = beginnings[span[0] : span[-1]]
            pairs.append((key << TEXT_BITS | text)[key > 0])
        yield first, _distinct(np.sort(np.concatenate(pairs)))


def _firsts(ascending: np.ndarray) -> np.ndarray:
    """Return the places at which a new number begins."""
    return np.flatnonzero(np.concatenate([[True], ascending[1:] != ascending[:-1]])[: len(ascending)])


def _distinct(ascending: np.ndarray) -> np.ndarray:
    return ascending[_firsts(ascending)]


def _counted(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct keys, ascending, and how often each occurs."""
    keys = np.sort(keys)
    starts = _firsts(keys)
    return keys[starts], np.diff(np.append(starts, len(keys)))


def _often(pieces: list[np.ndarray], minimum: int) -> np.ndarray:
    """Join keys, without most of those that occur less than ``minimum`` times, which saves sorting them."""
    places = [
        (piece.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - SIEVE_BITS) for piece in pieces
    ]
    count = np.zeros(2**SIEVE_BITS, np.int32)
    for place in places:
        count += np.bincount(place.astype(np.int64), minlength=2**SIEVE_BITS).astype(np.int32)
    return np.concatenate([piece[count[place] >= minimum] for piece, place in zip(pieces, places, strict=True)])


def _texts_with(packed: Packed, size: int) -> np.ndarray:
    """Return in how many texts each of ``size`` numbers occurs, int64 (size,)."""
    text = np.repeat(np.arange(len(packed)), packed.lengths)
    return np.bincount(_distinct(np.sort(text * size + packed.numbers)) % size, minlength=size)


def _spelled(key: int, words: list[str]) -> str:
    numbers = []
    while key:
        numbers.append(key & (2**BITS - 1))
        key >>= BITS
    return " ".join(words[number - 1] for number in reversed(numbers))
