"""Tests of the encoders, which turn texts into the token IDs of a network."""

import numpy as np
import pytest

from dltoolkit.data.language.tokenizers import ByteTokenizer, CharTokenizer
from dltoolkit.data.text import encoders
from dltoolkit.data.text.encoders import TokenEncoder, VocabularyEncoder
from dltoolkit.data.text.vocabulary import FIRST_ID, Vocabulary
from dltoolkit.data.text.words import TokenizedTexts
from dltoolkit.errors import UserError

TEXTS = TokenizedTexts(["good plot, good film", "<b>bad</b>", ""])


@pytest.mark.parametrize(("max_length", "lengths"), [(None, [4, 1, 0]), (3, [3, 1, 0])])
def test_vocabulary_encoder_reads_bags_or_sequences(max_length, lengths, tmp_path):
    vocabulary = Vocabulary.build(TEXTS, np.arange(3), ngrams=2, max_size=100, min_df=1)
    vocabulary = Vocabulary(vocabulary.entries[:5], ngrams=2)  # the 4 words and an n-gram
    encoder = VocabularyEncoder(vocabulary, max_length)
    token_ids = encoder(TEXTS)
    assert token_ids.lengths.tolist() == lengths
    assert token_ids.values.max() < FIRST_ID + 5
    encoder.save(tmp_path)
    loaded = encoders.load(tmp_path, max_length)
    assert loaded.max_length == max_length
    assert (loaded(TEXTS).values == token_ids.values).all()


def test_token_encoder_shifts_tokens_by_one_and_truncates(tmp_path):
    encoder = TokenEncoder(ByteTokenizer(), max_length=8)
    rows = encoder(TEXTS).to_padded().tolist()
    assert rows == [[1 + ord(c) for c in "go" + "d film"], [1 + ord(c) for c in " bad "] + [0] * 3, [0] * 8]
    assert encoder(TokenizedTexts([])).lengths.tolist() == []
    encoder.save(tmp_path)
    loaded = encoders.load(tmp_path, 8)
    assert loaded(TEXTS).to_padded().tolist() == rows


def test_unknown_token_ids_are_those_of_unknown_words_and_white_space():
    vocabulary = Vocabulary.build(TEXTS, np.arange(3), max_size=100, min_df=1)
    unknown_row, known_row = VocabularyEncoder(vocabulary, 9)(TokenizedTexts(["xyzzy plugh", "xyzzy good"])).to_padded()
    ids = VocabularyEncoder(vocabulary, 9).unknown_token_ids
    assert set(unknown_row) <= {0, *ids} and not set(known_row) <= {0, *ids}
    characters = TokenEncoder(CharTokenizer("ab "), 9)
    rows = characters(TokenizedTexts(["§ §\n", "§a"])).to_padded()
    assert [set(row) <= {0, *characters.unknown_token_ids} for row in rows] == [True, False]


def test_load_refuses_missing_and_damaged_files(tmp_path):
    with pytest.raises(UserError, match=r"vocabulary.txt is damaged or cannot be read"):
        encoders.load(tmp_path, None)
    (tmp_path / "vocabulary.json").write_text('{"tokenizer": "words"}')
    with pytest.raises(UserError, match=r"vocabulary.json is damaged: 'tokenizer' must be"):
        encoders.load(tmp_path, 8)
