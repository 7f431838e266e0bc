"""Tests of splitting texts into words."""

import numpy as np
import pytest

from dltoolkit.data.text import words
from dltoolkit.data.text.words import TokenizedTexts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't <br />stop!!", ["don't", "stop", "!", "!"]),
        ("Fish &amp; chips: 3/5", ["fish", "chips", "3", "5"]),
        ("I <3 x<y> it", ["i", "3", "x", "y", "it"]),
        ("x<y and not worth it; then z>w", ["x", "y", "and", "not", "worth", "it", "then", "z", "w"]),
        ("p<i and not worth it; b>a", ["p", "i", "and", "not", "worth", "it", "b", "a"]),
        ("<user> <URL> <jo@x.org>", ["user", "url", "jo", "x", "org"]),
        ("<p class='a b' id=c>one</p><BR/><input type=\"x\" checked > two</ b>", ["one", "two", "b"]),
        ("<!DOCTYPE html><a href='http://x.org/?a=1&amp;b=2'\n>link</a>", ["link"]),
        ("?a=1&section=2&copy=3 &#8364; &hearts;", ["?", "a", "1", "section", "2", "copy", "3", "€", "♥"]),
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
def test_split_words_handles_any_script_and_html(text, expected):
    assert words.split_words(text) == expected


def test_ascii_pattern_equals_the_general_pattern():
    text = "it's :-) a=b 'quoted' don't! x_1 3.5 (no) ;) what?? end' :d :/ o'clock's"
    assert words.WORD.findall(text) == words.ASCII_WORD.findall(text)


def test_tokenized_texts_number_words_by_first_occurrence(monkeypatch):
    monkeypatch.setattr(words, "TEXTS_PER_BLOCK", 2)
    tokenized = TokenizedTexts(["b a b", "", "a c"])
    assert tokenized.words == ["b", "a", "c"]
    assert tokenized.word_ids.values.tolist() == [0, 1, 0, 1, 2]
    assert tokenized.word_ids.row_splits.tolist() == [0, 3, 3, 5]
    assert len(TokenizedTexts([]).word_ids) == 0


def test_hashes_are_equal_for_equal_words_in_any_case():
    texts = ["Straße, naïve!", "STRASSE NAÏVE !", "strasse <b>naïve</b>!", "straße naïve", "naïve straße!", "…", "-"]
    own = np.arange(len(texts), dtype=np.uint64)
    first, second, third, *others = TokenizedTexts(texts).hashes(own).tolist()
    assert first == second == third
    assert len({first, *others}) == 5
    assert others[2:] == [5, 6]  # texts without a word
    assert TokenizedTexts(["other words", "straße naïve!"]).hashes(own[:2])[1] == first
