"""Tests of counting n-grams that are packed into integers."""

from collections import Counter

import numpy as np
import pytest

from dltoolkit.data.text import ngrams
from dltoolkit.data.text.ragged import Ragged


def test_pack_is_reversible_and_keeps_short_ngrams_below_long_ones():
    largest = 2**ngrams.WORD_BITS - 1
    for numbers in ([1], [largest], [1, 2], [largest, 1], [largest] * 3):
        assert ngrams.unpack(ngrams.pack(numbers)) == numbers
    assert ngrams.pack([largest]) < ngrams.pack([1, 1])
    assert ngrams.pack([largest] * 3) << ngrams.TEXT_BITS < 2**64


@pytest.mark.parametrize("min_count", [1, 2, 3])
def test_count_frequent_equals_a_counter(min_count):
    rng = np.random.default_rng(0)
    blocks = [rng.integers(0, 2**50, 500) * np.int64(4096) for _ in range(3)]
    blocks = [np.concatenate([block, blocks[0][:100]]) for block in blocks]
    keys, counts = ngrams.count_frequent(blocks, min_count)
    expected = {key: n for key, n in Counter(np.concatenate(blocks).tolist()).items() if n >= min_count}
    assert dict(zip(keys.tolist(), counts.tolist(), strict=True)) == expected
    assert (np.diff(keys) > 0).all()


def test_document_frequencies_count_each_text_once():
    ids = Ragged(np.array([0, 2, 2, 2, 0, 3]), np.array([0, 3, 4, 4, 6]))
    assert ngrams.document_frequencies(ids, 5).tolist() == [2, 0, 2, 1, 0]


def test_occurrences_skip_the_number_zero():
    words = Ragged(np.array([1, 0, 2, 3]), np.array([0, 4]))
    ((first, keys, texts),) = ngrams.occurrences(words, 2)
    assert first == 0
    assert [ngrams.unpack(key) for key in keys.tolist()] == [[1], [2], [3], [2, 3]]
    assert texts.tolist() == [0, 0, 0, 0]
