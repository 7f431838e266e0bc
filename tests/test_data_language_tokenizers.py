"""Tests of the tokenizers and of text from tokens that arrive in chunks."""

import json

import numpy as np
import pytest

from dltoolkit.data.language import tokenizers
from dltoolkit.data.language.tokenizers import BPETokenizer, ByteTokenizer, CharTokenizer, IncrementalDetokenizer
from dltoolkit.errors import UserError

TEXT = "Naïve café, 漢字 and 😀.\nThe end of the end.\n" * 20


@pytest.fixture(scope="module", params=["char", "byte", "bpe"])
def tokenizer(request):
    if request.param == "char":
        return CharTokenizer.train([TEXT[:20], TEXT[20:]])
    return ByteTokenizer() if request.param == "byte" else BPETokenizer.train([TEXT], 300)


def test_tokenizer_survives_encoding_and_saving(tokenizer):
    token_ids = tokenizer.encode(TEXT)
    assert token_ids.dtype == np.uint16
    assert token_ids.max() < tokenizer.vocab_size
    assert tokenizer.decode(token_ids.tolist()) == TEXT
    restored = tokenizers.from_json(json.loads(json.dumps(tokenizer.to_json())))
    assert restored.vocab_size == tokenizer.vocab_size
    assert (restored.encode(TEXT) == token_ids).all()


def test_bpe_compresses_repeated_text():
    assert len(BPETokenizer.train([TEXT], 300).encode(TEXT)) < len(ByteTokenizer().encode(TEXT)) / 2


def test_bpe_is_trained_on_the_beginning_of_a_long_text(monkeypatch):
    monkeypatch.setattr(tokenizers, "MAX_TRAINING_CHARACTERS", 100)
    texts = ["ab" * 30, "ab" * 30, "cd" * 500]
    truncated = BPETokenizer.train(texts, 300)
    assert len(truncated.encode("abab")) < 4
    assert len(truncated.encode("cdcd")) == 4


def test_unknown_characters_are_listed_once():
    char_tokenizer = CharTokenizer.train(["abc"])
    assert char_tokenizer.unknown("abxcyx") == ["x", "y"]
    assert char_tokenizer.encode("ax€").tolist() == [1, 0, 0]
    assert char_tokenizer.decode([1, 0]) == "a\ufffd"
    assert ByteTokenizer().unknown("€") == []


def test_char_tokenizer_refuses_too_many_characters(monkeypatch):
    monkeypatch.setattr(tokenizers, "MAX_CHARACTERS", 10)
    with pytest.raises(UserError, match="tokenizer='bpe'"):
        CharTokenizer.train([TEXT])


def test_from_json_refuses_other_descriptions():
    with pytest.raises(ValueError, match="not a tokenizer"):
        tokenizers.from_json({"tokenizer": "words"})


def test_detokenizer_holds_back_incomplete_characters():
    text = IncrementalDetokenizer(ByteTokenizer(), [])
    first, second, third = "€".encode()
    assert text.add([97, first]) == "a"
    assert text.add([second]) == ""
    assert text.add([third, 98]) == "€b"
    assert text.add([first], last=True) == "\ufffd"


@pytest.mark.parametrize("chunk", [1, 2, 3, 5])
def test_detokenizer_stops_at_a_stop_string_across_chunks(chunk):
    token_ids = ByteTokenizer().encode("one END two").tolist()
    text = IncrementalDetokenizer(ByteTokenizer(), ["END", "never"])
    assert "".join(text.add(token_ids[i : i + chunk]) for i in range(0, len(token_ids), chunk)) == "one "
    assert text.stopped


def test_detokenizer_holds_back_a_partial_stop_string():
    text = IncrementalDetokenizer(ByteTokenizer(), ["END"])
    assert text.add(ByteTokenizer().encode("an EN").tolist()) == "an "
    assert text.add(ByteTokenizer().encode("T").tolist()) == "ENT"
    assert text.add(ByteTokenizer().encode(" E").tolist(), last=True) == " E"


@pytest.mark.parametrize(("text", "length"), [("an EN", 2), ("an END", 0), ("E", 1), ("", 0), ("END E", 1)])
def test_partial_stop_match_counts_the_matching_characters(text, length):
    assert tokenizers.partial_stop_match(text, "END") == length
