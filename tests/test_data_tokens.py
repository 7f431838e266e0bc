"""Text to tokens and back: nothing is lost, unknown characters are named, and a stream ends where it should."""

import json

import numpy as np
import pytest

from dltoolkit.data.language import tokenizers as tokens
from dltoolkit.data.language.tokenizers import Bytes, Characters, Continuation, Pieces
from dltoolkit.errors import UserError

TEXT = "Naïve café, 漢字 and 😀.\nThe end of the end.\n" * 20


@pytest.fixture(scope="module", params=["char", "byte", "bpe"])
def tokenizer(request):
    if request.param == "char":
        return Characters.of([TEXT[:20], TEXT[20:]])
    return Bytes() if request.param == "byte" else Pieces.of([TEXT], 300)


def test_there_and_back_again(tokenizer):
    encoded = tokenizer.encode(TEXT)
    assert encoded.dtype == np.uint16
    assert encoded.max() < tokenizer.size
    assert tokenizer.decode(encoded.tolist()) == TEXT
    again = tokens.from_json(json.loads(json.dumps(tokenizer.to_json())))
    assert again.size == tokenizer.size
    assert (again.encode(TEXT) == encoded).all()


def test_pieces_are_fewer_than_bytes():
    assert len(Pieces.of([TEXT], 300).encode(TEXT)) < len(Bytes().encode(TEXT)) / 2


def test_unknown_characters_are_named():
    known = Characters.of(["abc"])
    assert known.unknown("abxcyx") == ["x", "y"]
    assert known.encode("ax€").tolist() == [1, 0, 0]
    assert known.decode([1, 0]) == "a\ufffd"
    assert Bytes().unknown("€") == []


def test_too_many_characters_ask_for_bpe(monkeypatch):
    monkeypatch.setattr(tokens, "MOST_CHARACTERS", 10)
    with pytest.raises(UserError, match="--tokenizer bpe"):
        Characters.of([TEXT])


def test_what_is_no_tokenizer_is_refused():
    with pytest.raises(ValueError, match="not a tokenizer"):
        tokens.from_json({"tokens": "words"})


def test_only_whole_characters_are_handed_out():
    text = Continuation(Bytes(), [])
    one, two, three = "€".encode()
    assert [text.add([97, one]), text.add([two]), text.add([three, 98]), text.add([one], last=True)] == [
        "a",
        "",
        "€b",
        "\ufffd",
    ]


@pytest.mark.parametrize("cut", [1, 2, 3, 5])
def test_a_stop_string_ends_the_text_across_any_border(cut):
    encoded = Bytes().encode("one END two").tolist()
    text = Continuation(Bytes(), ["END", "never"])
    pieces = [text.add(encoded[i : i + cut]) for i in range(0, len(encoded), cut)]
    assert "".join(pieces) == "one "
    assert text.stopped


def test_what_only_looked_like_a_stop_is_handed_out():
    text = Continuation(Bytes(), ["END"])
    assert text.add(Bytes().encode("an EN").tolist()) == "an "
    assert text.add(Bytes().encode("T").tolist()) == "ENT"
    assert text.add(Bytes().encode(" E").tolist(), last=True) == " E"
