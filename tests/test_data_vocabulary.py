"""From texts to numbers: words of all scripts, n-grams, and the vocabulary that travels with a run."""

import numpy as np
import pytest

from dltoolkit.data.text import vocabulary
from dltoolkit.data.text.vocabulary import FIRST, UNKNOWN, Corpus, Vocabulary
from dltoolkit.errors import UserError

TEXTS = [
    "the plot was not good",
    "the plot was good",
    "not the plot",
    "good good good",
    "a plot, good & <b>not</b> bad",
]


def words(written: str) -> list[str]:
    return vocabulary.words_of(written)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Don't <br />stop!!", ["don't", "stop", "!", "!"]),
        ("Fish &amp; chips: 3/5", ["fish", "chips", "3", "5"]),
        ("I <3 x<y> it", ["i", "3", "x", "it"]),
        ("“Café”, l’été …", ["café", "l’été"]),
        ("cafe\u0301", ["café"]),
        ("शानदार फिल्म", ["शानदार", "फिल्म"]),
        ("שלום עולם", ["שלום", "עולם"]),
        ("好电影 ok", ["好", "电", "影", "ok"]),
        ("great 😀👍 :-)", ["great", "😀", "👍", ":-)"]),
        ("Meh :D", ["meh", ":d"]),
        ("<!-- gone --> here", ["here"]),
    ],
)
def test_words(written, expected):
    assert words(written) == expected


def bag(vocab: Vocabulary, written: str) -> set[str]:
    return {vocab.entries[number - FIRST] for number in vocab.bags(Corpus([written])).numbers}


@pytest.mark.parametrize("ngrams", [1, 2, 3])
def test_a_bag_holds_every_known_ngram_once(ngrams):
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcdefgh"), rng.integers(1, 30))) for _ in range(200)]
    vocab = Vocabulary.build(Corpus(texts), np.arange(150), ngrams=ngrams, size=10_000, minimum=3)
    counts: dict[str, int] = {}
    for written in texts[:150]:
        for entry in grams(written, ngrams):
            counts[entry] = counts.get(entry, 0) + 1
    assert set(vocab.entries) == {entry for entry, count in counts.items() if count >= 3}
    together = vocab.bags(Corpus(texts))
    for i, written in enumerate(texts):
        numbers = together.take(np.array([i])).numbers
        assert len(set(numbers)) == len(numbers)
        assert {vocab.entries[n - FIRST] for n in numbers} == grams(written, ngrams) & set(vocab.entries)


def test_beginnings_stand_for_all_words_that_begin_so():
    texts = ["wonderful film", "wonderfully made", "a wonder", "wond", "won"]
    vocab = Vocabulary.build(Corpus(texts), np.arange(3), ngrams=2, size=1000, minimum=1, letters=4)
    assert {"wond*", "film*", "made*", "wonderful", "wonderful film"} <= set(vocab.entries)
    assert bag(vocab, "wondrous made up") == {"wond*", "made", "made*"}
    assert bag(vocab, "won") == set()
    assert bag(Vocabulary.read(vocab.text()), "wondrous made up") == {"wond*", "made", "made*"}
    rare = Vocabulary.build(Corpus([*texts[:3], "a film"]), np.arange(4), size=1000, minimum=2, letters=4)
    assert set(rare.entries) == {"film", "a", "wond*", "film*"}


def grams(written: str, ngrams: int) -> set[str]:
    found = words(written)
    return {" ".join(found[i : i + n]) for n in range(1, ngrams + 1) for i in range(len(found) - n + 1)}


def test_ascii_texts_are_cut_like_all_others():
    text = "it's :-) a=b 'quoted' don't! x_1 3.5 (no) ;) what?? end' :d :/ o'clock's"
    assert vocabulary.WORD.findall(text) == vocabulary.ASCII_WORD.findall(text)


def test_more_texts_than_are_looked_at_together():
    texts = [f"a{i % 7} b{i % 11}" for i in range(2500)]
    vocab = Vocabulary.build(Corpus(texts), np.arange(2500), ngrams=2, size=10_000)
    assert len(vocab.entries) == 7 + 11 + 77
    packed = vocab.bags(Corpus(texts))
    for i in (0, 1023, 1024, 2048, 2499):
        numbers = packed.take(np.array([i])).numbers
        assert {vocab.entries[n - FIRST] for n in numbers} == {f"a{i % 7}", f"b{i % 11}", f"a{i % 7} b{i % 11}"}


def test_ngrams_do_not_cross_from_one_text_to_the_next():
    vocab = Vocabulary.build(Corpus(["a b", "b a"] * 3), np.arange(6), ngrams=2, size=100)
    assert set(vocab.entries) == {"a", "b", "a b", "b a"}
    assert vocab.bags(Corpus(["a", "b", "a"])).lengths.tolist() == [1, 1, 1]


def test_the_size_keeps_the_commonest_and_every_word_of_an_ngram():
    whole = Vocabulary.build(Corpus(TEXTS), np.arange(5), ngrams=3, size=1000, minimum=1)
    small = Vocabulary.build(Corpus(TEXTS), np.arange(5), ngrams=3, size=6, minimum=1)
    assert len(small.entries) == 6 < len(whole.entries)
    assert {"plot", "good"} <= set(small.entries)
    for entry in small.entries:
        assert set(entry.split(" ")) <= set(small.entries)


def test_only_the_training_texts_count():
    vocab = Vocabulary.build(Corpus(TEXTS), np.array([0, 1]), size=100)
    assert set(vocab.entries) == {"the", "plot", "was", "good"}


def test_sequences_keep_the_order_and_of_long_texts_both_ends():
    vocab = Vocabulary.build(Corpus(["a b c d e f g h i j"]), np.arange(1), size=100, minimum=1)
    packed = vocab.sequences(Corpus(["a x b", "", "a b c d e f g h i j"]), 4)
    spelled = [["?" if n == UNKNOWN else vocab.entries[n - FIRST] for n in row if n] for row in packed.padded()]
    assert spelled == [["a", "?", "b"], [], ["a", "h", "i", "j"]]


@pytest.mark.parametrize("ngrams", [1, 3])
def test_a_vocabulary_is_written_and_read(ngrams):
    vocab = Vocabulary.build(Corpus(TEXTS), np.arange(5), ngrams=ngrams, size=100, minimum=1)
    again = Vocabulary.read(vocab.text())
    assert again.entries == vocab.entries
    for written in TEXTS:
        assert bag(again, written) == bag(vocab, written) == grams(written, ngrams)


@pytest.mark.parametrize("written", ["", "a\na b\n", "a b c d\n"])
def test_a_damaged_vocabulary_is_refused(written):
    with pytest.raises(ValueError, match="vocabulary"):
        Vocabulary.read(written)


def test_no_word_often_enough():
    with pytest.raises(UserError, match="--min-df"):
        Vocabulary.build(Corpus(["a b", "c d"]), np.arange(2), size=100)


def test_log_count_ratios_are_those_of_the_paper():
    texts, labels = ["good plot", "good", "bad plot", "bad bad"], np.array([1, 1, 0, 0])
    vocab = Vocabulary.build(Corpus(texts), np.arange(4), size=100, minimum=1)
    ratios = vocabulary.log_count_ratios(vocab.bags(Corpus(texts)), labels, len(vocab), 2)
    row = {entry: ratios[FIRST + i] for i, entry in enumerate(vocab.entries)}
    # class good: counts + 1 are good 3, plot 2, bad 1, of 6; class bad: good 1, plot 2, bad 3, of 6
    np.testing.assert_allclose(row["good"], [-np.log(3), np.log(3)], rtol=1e-6)
    np.testing.assert_allclose(row["plot"], [0, 0], atol=1e-6)
    assert not ratios[:FIRST].any()
