"""Tests of vocabularies of words, prefixes and n-grams."""

import numpy as np
import pytest

from dltoolkit.data.text import ngrams
from dltoolkit.data.text import vocabulary as vocabulary_module
from dltoolkit.data.text.vocabulary import FIRST_ID, UNKNOWN_ID, Vocabulary, log_count_ratios
from dltoolkit.data.text.words import TokenizedTexts, split_words
from dltoolkit.errors import UserError

TEXTS = [
    "the plot was not good",
    "the plot was good",
    "not the plot",
    "good good good",
    "a plot, good & <b>not</b> bad",
]


def build(texts, rows=None, *, max_size=10_000, **options):
    rows = np.arange(len(texts)) if rows is None else rows
    return Vocabulary.build(TokenizedTexts(texts), rows, max_size=max_size, **options)


def encode_bag(vocabulary: Vocabulary, text: str) -> set[str]:
    return {vocabulary.entries[id_ - FIRST_ID] for id_ in vocabulary.encode_bags(TokenizedTexts([text])).values}


def list_ngrams(text: str, ngrams: int) -> set[str]:
    words = split_words(text)
    return {" ".join(words[i : i + n]) for n in range(1, ngrams + 1) for i in range(len(words) - n + 1)}


@pytest.mark.parametrize("ngrams", [1, 2, 3])
def test_vocabulary_and_bags_contain_every_frequent_ngram_once(ngrams):
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcdefgh"), rng.integers(1, 30))) for _ in range(200)]
    vocabulary = build(texts, np.arange(150), ngrams=ngrams, min_df=3)
    frequencies: dict[str, int] = {}
    for text in texts[:150]:
        for entry in list_ngrams(text, ngrams):
            frequencies[entry] = frequencies.get(entry, 0) + 1
    assert set(vocabulary.entries) == {entry for entry, frequency in frequencies.items() if frequency >= 3}
    bags = vocabulary.encode_bags(TokenizedTexts(texts))
    for i, text in enumerate(texts):
        ids = bags.take(np.array([i])).values
        assert len(set(ids)) == len(ids)
        assert {vocabulary.entries[id_ - FIRST_ID] for id_ in ids} == list_ngrams(text, ngrams) & set(
            vocabulary.entries
        )


def test_prefixes_stand_for_all_words_that_begin_so():
    texts = ["wonderful film", "wonderfully made", "a wonder", "wond", "won"]
    vocabulary = build(texts, np.arange(3), ngrams=2, min_df=1, prefix_length=4)
    assert {"wond*", "film*", "made*", "wonderful", "wonderful film"} <= set(vocabulary.entries)
    assert encode_bag(vocabulary, "wondrous made up") == {"wond*", "made", "made*"}
    assert encode_bag(vocabulary, "won") == set()
    assert encode_bag(Vocabulary.from_text(vocabulary.to_text()), "wondrous made up") == {"wond*", "made", "made*"}
    frequent = build([*texts[:3], "a film"], min_df=2, prefix_length=4)
    assert set(frequent.entries) == {"film", "a", "wond*", "film*"}


def test_bags_of_more_texts_than_one_block_are_correct():
    texts = [f"a{i % 7} b{i % 11}" for i in range(2500)]
    vocabulary = build(texts, ngrams=2)
    assert len(vocabulary.entries) == 7 + 11 + 77
    bags = vocabulary.encode_bags(TokenizedTexts(texts))
    for i in (0, 1023, 1024, 2048, 2499):
        ids = bags.take(np.array([i])).values
        assert {vocabulary.entries[id_ - FIRST_ID] for id_ in ids} == list_ngrams(texts[i], 2)


def test_ngrams_do_not_span_two_texts():
    vocabulary = build(["a b", "b a"] * 3, ngrams=2)
    assert set(vocabulary.entries) == {"a", "b", "a b", "b a"}
    assert vocabulary.encode_bags(TokenizedTexts(["a", "b", "a"])).lengths.tolist() == [1, 1, 1]


def test_max_size_selects_the_most_frequent_and_every_word_of_an_ngram():
    full = build(TEXTS, ngrams=3, min_df=1)
    small = build(TEXTS, ngrams=3, min_df=1, max_size=6)
    assert len(small.entries) == 6 < len(full.entries)
    assert {"plot", "good"} <= set(small.entries)
    for entry in small.entries:
        assert set(entry.split(" ")) <= set(small.entries)


def test_build_counts_the_given_rows_only():
    assert set(build(TEXTS, np.array([0, 1])).entries) == {"the", "plot", "was", "good"}


def test_sequences_keep_the_order_and_both_ends_of_long_texts():
    vocabulary = build(["a b c d e f g h i j"], min_df=1)
    sequences = vocabulary.encode_sequences(TokenizedTexts(["a x b", "", "a b c d e f g h i j"]), 4).to_padded()
    entries = [["?" if i == UNKNOWN_ID else vocabulary.entries[i - FIRST_ID] for i in row if i] for row in sequences]
    assert entries == [["a", "?", "b"], [], ["a", "h", "i", "j"]]


@pytest.mark.parametrize("ngrams", [1, 3])
def test_vocabulary_survives_writing(ngrams):
    vocabulary = build(TEXTS, ngrams=ngrams, min_df=1)
    restored = Vocabulary.from_text(vocabulary.to_text())
    assert restored.entries == vocabulary.entries
    for text in TEXTS:
        assert encode_bag(restored, text) == encode_bag(vocabulary, text) == list_ngrams(text, ngrams)


@pytest.mark.parametrize("text", ["", "a\na b\n", "a b c d\n", "a\na  a\n", "a\n a\n"])
def test_from_text_refuses_other_texts(text):
    with pytest.raises(ValueError, match="the lines are not words and n-grams of them"):
        Vocabulary.from_text(text)


def test_from_text_bounds_the_words(monkeypatch):
    monkeypatch.setattr(vocabulary_module, "MAX_WORDS", 3)
    assert len(Vocabulary.from_text("a\nb\nc\na b\nb c\na b c\n").entries) == 6
    with pytest.raises(ValueError, match="more than 3 words"):
        Vocabulary.from_text("a\nb\nc\nd\n")


def test_keys_of_entries_are_packed_words():
    entries = ["a", "b", "wo*", "a b", "b a b", "wo*", "b", "c"]
    numbers = {"a": 1, "b": 7, "wo*": 6, "c": 8}  # the last of equal entries
    expected = [ngrams.pack([numbers[word] for word in entry.split(" ")]) for entry in entries]
    assert Vocabulary(entries, 3)._entry_keys().tolist() == expected


def test_build_refuses_texts_without_a_frequent_word():
    with pytest.raises(UserError, match="No word occurs in 2 of the 2 training texts: .* min_df=1"):
        build(["a b", "c d"])


def test_log_count_ratios_equal_those_of_the_paper():
    texts, labels = ["good plot", "good", "bad plot", "bad bad"], np.array([1, 1, 0, 0])
    vocabulary = build(texts, min_df=1)
    ratios = log_count_ratios(vocabulary.encode_bags(TokenizedTexts(texts)), labels, len(vocabulary), 2)
    of_entry = {entry: ratios[FIRST_ID + i] for i, entry in enumerate(vocabulary.entries)}
    # Counts plus one in the texts of class 1: good 3, plot 2, bad 1, of 6; of class 0: good 1, plot 2, bad 3, of 6
    np.testing.assert_allclose(of_entry["good"], [-np.log(3), np.log(3)], rtol=1e-6)
    np.testing.assert_allclose(of_entry["plot"], [0, 0], atol=1e-6)
    assert not ratios[:FIRST_ID].any()
