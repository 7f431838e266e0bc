"""Offsets: the words and pieces that a model reads point to the characters of the raw text that they stand for."""

import unicodedata

import numpy as np
import pytest

from dltoolkit.data.language.subwords import WordPieceTokenizer
from dltoolkit.data.language.tokenizers import ByteTokenizer, CharTokenizer
from dltoolkit.data.text.encoders import PretrainedEncoder, TokenEncoder, VocabularyEncoder
from dltoolkit.data.text.vocabulary import Vocabulary
from dltoolkit.data.text.words import TokenizedTexts, split_words, without_html
from dltoolkit.explanation import text_offsets, text_reading
from dltoolkit.explanation.text_offsets import AlignedText

TEXTS = [
    "zero \0 bytes\0",
    "A plain text, isn't it?",
    'Bold <b>words</b> and <a href="x">links</a>&amp;entities: caf&eacute; x&lt;y <br/>GREAT!',
    "CAFE\u0301 na\u0308ive \u0130stanbul ΟΔΟΣ ΣΑΣ Straße \ufb01ne",
    "\u1112\u1161\u11ab\u1100\u1173\u11af 한글 漢字かな",
    "זה סרט נהדר! هٰذا فِلْمٌ رائع؟",
    "हिन्दी में अच्छी फ़िल्म 😀👍🏽 :-) <3",
    "&bne;&#128512;&#1; &unknown; <unknown> 3 < 5 > 2",
    "  spaces\t\u00a0 and\nlines  ",
]


def random_text(seed: int) -> str:
    rng = np.random.default_rng(seed)
    alphabet = [
        *"aÀİΣςΣ e",
        "\u0301",
        "\u0323",
        "<b>",
        "</b>",
        "&amp;",
        "&#233;",
        "\u1100",
        "\u1161",
        "\u11a8",
        "क",
        "\u093c",
        "़",
        "漢",
        "!",
    ]
    return "".join(rng.choice(alphabet, 60))


@pytest.mark.parametrize("text", [*TEXTS, *map(random_text, range(20))])
def test_words_are_those_of_the_vocabulary_and_stand_in_the_raw_text(text):
    words, spans = text_offsets.words(text)
    assert words == split_words(text)
    for word, (start, end) in zip(words, spans, strict=True):
        standing = unicodedata.normalize("NFC", without_html(text[start:end]).lower())
        assert word.replace("ς", "σ") in standing.replace("ς", "σ"), (word, text[start:end])
    assert all(spans[i][0] <= spans[i + 1][0] for i in range(len(spans) - 1))


def test_a_word_of_a_plain_text_is_exactly_its_characters():
    text = "Das Café <i>SCHÖN</i>, cafe\u0301!"
    words, spans = text_offsets.words(text)
    assert [text[start:end] for start, end in spans] == ["Das", "Café", "SCHÖN", "cafe\u0301", "!"]
    assert words == ["das", "café", "schön", "café", "!"]


@pytest.mark.parametrize("text", [*TEXTS, *map(random_text, range(20))])
def test_accents_and_white_space_are_removed_as_a_pretrained_encoder_does(text):
    aligned = AlignedText.of(text).without_html().strip().lower().without_accents()
    expected = unicodedata.normalize("NFKD", without_html(text).strip().lower())
    assert aligned.text == "".join(each for each in expected if not unicodedata.combining(each))
    assert len(aligned.starts) == len(aligned.ends) == len(aligned.text)


def encoders(max_length: int) -> dict[str, object]:
    letters = [piece for letter in "abcdefghijklmnopqrstuvwxyz" for piece in (letter, f"##{letter}")]
    pieces = ["[UNK]", "[CLS]", "[SEP]", *letters, *"!?.,<>:;=", "great", "##s"]
    word_piece = WordPieceTokenizer(pieces, "[UNK]", "##", True, True, True)
    vocabulary = Vocabulary.build(TokenizedTexts(TEXTS), np.arange(len(TEXTS)), max_size=20, min_df=1)
    ngrams = Vocabulary.build(TokenizedTexts(TEXTS * 2), np.arange(9), ngrams=2, max_size=90, min_df=1, prefix_length=3)
    return {
        "vocabulary": VocabularyEncoder(vocabulary, max_length),
        "n-grams": VocabularyEncoder(ngrams),
        "characters": TokenEncoder(CharTokenizer.train(TEXTS[:2]), max_length),
        "bytes": TokenEncoder(ByteTokenizer(), max_length),
        "pieces": PretrainedEncoder(word_piece, max_length, (1,), (2,), lowercase=True, strip_accents=True),
        "pieces, cased": PretrainedEncoder(word_piece, max_length, (1,), (2,)),
    }


@pytest.mark.parametrize("max_length", [7, 1000])
@pytest.mark.parametrize("name", ["vocabulary", "n-grams", "characters", "bytes", "pieces", "pieces, cased"])
def test_a_text_is_read_as_its_encoder_reads_it(name, max_length):
    encoder = encoders(max_length)[name]
    for text in TEXTS:
        read = text_reading.read(text, encoder)
        expected = encoder(TokenizedTexts([text]))
        everything = read.variants(np.ones((1, len(read.spans)), bool))
        np.testing.assert_array_equal(everything, expected.to_padded())
        assert expected.truncated or read.unread is None  # of a truncated text, each word may have a piece that is read
        nothing = read.variants(np.zeros((1, len(read.spans)), bool))[0]
        assert set(nothing.tolist()) <= {0, *encoder.special_token_ids}


def test_words_of_pieces_are_spans_of_the_raw_text():
    text = "The <b>Greats</b>, really&#33; caf\u00e9"
    read = text_reading.read(text, encoders(1000)["pieces"])
    assert [text[start:end] for start, end in read.spans] == ["The", "Greats", ",", "really", "&#33;", "caf\u00e9"]
    without = read.variants(np.arange(6)[None] != 1)
    assert without.tolist() == encoders(1000)["pieces"](TokenizedTexts(["The , really! cafe"])).to_padded().tolist()


def test_what_is_not_read_is_the_middle():
    text = " ".join(f"w{i}" for i in range(20))
    read = text_reading.read(text, encoders(8)["vocabulary"])
    assert [text[start:end] for start, end in read.spans] == ["w0", "w1", *(f"w{i}" for i in range(14, 20))]
    assert text[slice(*read.unread)].split() == [f"w{i}" for i in range(2, 14)]
    assert read.unread_words == 12


def test_tokens_that_do_not_end_with_words_still_belong_to_one():
    """A tokenizer may join words, or read a word by itself in another way."""
    text = "new york is big"

    def encode(texts):
        return [
            np.array(
                [len(text) if text == "is" else ord(each[0]) for each in text.replace("new york", "y").split()] or [0]
            )
            for text in texts
        ]

    spans, tokens, words = text_reading.pieces(AlignedText.of(text), encode)
    assert [text[start:end] for start, end in spans] == ["new", "york", "is", "big"]
    assert len(tokens) == len(words) == 3 and words.tolist() == sorted(words) and words[-1] == 3
