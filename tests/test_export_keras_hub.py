"""Tokenizers of KerasHub without TensorFlow: their token IDs are those of KerasHub."""

import io
import re

import numpy as np
import pytest

from dltoolkit.data.language import subwords, tokenizers
from dltoolkit.data.text import encoders
from dltoolkit.data.text.encoders import KerasHubEncoder
from dltoolkit.data.text.words import TokenizedTexts
from dltoolkit.errors import UserError
from dltoolkit.export import keras_hub, steps

hub = pytest.importorskip("keras_hub")

POOLS = (
    *(
        "the dog's lovely ",
        "ABC xyz",
        "0123456789",
        ".,;:!?'\"-()[]<>#@$%^&*+=~`/\\|{}_",
        " \t\n\r\f\v\xa0\u2009\u3000",
    ),
    *(
        "éèüßñçİıſÅﬁ①½",
        "日本語中文한국어ひら豈",
        "😀👨‍👩‍👧❤️™…“”",
        "\u0301\u200b\u00ad\u200d\ufe0f\x00\x07\u115f\u3164",
        "हिन्दी५६العربية",
    ),
)
WORDS = ("the", "don't", "We'll", "[CLS]", "[mask]", "<s>", "<|endoftext|>", "a" * 99, "b" * 101, "é" * 60, "&amp;")


def random_texts(count: int) -> TokenizedTexts:
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(count):
        pieces = [
            rng.choice(WORDS) if rng.random() < 0.3 else "".join(rng.choice(list(POOLS[rng.integers(len(POOLS))]), 5))
            for _ in range(rng.integers(1, 9))
        ]
        texts.append("".join(piece + str(rng.choice(["", " ", "  ", "\n"])) for piece in pieces))
    return TokenizedTexts(texts)


def byte_pairs(*special: str) -> tuple[dict[str, int], list[str]]:
    """Return a vocabulary with all bytes, and merges."""
    merges = ["t h", "th e", "Ġ t", "Ġt h", "Ġth e", "l o", "d o", "do g", "1 2", "12 3", "Ġ a", "Ġ Ġ", ". Ċ"]
    alphabet = sorted(tokenizers.library().pre_tokenizers.ByteLevel.alphabet())
    tokens = [*special, *alphabet, *(merge.replace(" ", "") for merge in merges)]
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}, merges


def sentence_pieces(**options) -> bytes:
    trainer = pytest.importorskip("sentencepiece").SentencePieceTrainer
    file, sentences = (
        io.BytesIO(),
        ["the dog ran to the log.", "A lovely cat sat on 123 mats!", "what a day it was?"] * 9,
    )
    trainer.train(
        sentence_iterator=iter(sentences),
        model_writer=file,
        vocab_size=50,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return file.getvalue()


def word_pieces(**options):
    pieces = [*"abcdefghijklmnopqrstuvwxyz0123456789.,!?'éß中日ABC", "love", "dog", "the", "don"]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces, *(f"##{piece}" for piece in pieces)]
    return hub.models.BertTokenizer(vocabulary=vocabulary, **options)


def albert():
    special = {"pad_id": 0, "pad_piece": "<pad>", "unk_id": 1, "bos_id": 2, "eos_id": 3}
    ends = {"bos_piece": "[CLS]", "eos_piece": "[SEP]", "user_defined_symbols": "[MASK]"}
    return hub.models.AlbertTokenizer(proto=sentence_pieces(**special, **ends))


def roberta():
    vocabulary, merges = byte_pairs("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    return hub.models.RobertaTokenizer(vocabulary=vocabulary, merges=merges)


def gpt2():
    vocabulary, merges = byte_pairs("<|endoftext|>")
    return hub.models.GPT2Tokenizer(vocabulary=vocabulary, merges=merges)


@pytest.mark.parametrize(
    "make",
    [
        lambda: word_pieces(lowercase=True),
        pytest.param(lambda: word_pieces(lowercase=True, strip_accents=False), marks=pytest.mark.slow),
        pytest.param(lambda: word_pieces(lowercase=False, split_on_cjk=False), marks=pytest.mark.slow),
        albert,
        pytest.param(roberta, marks=pytest.mark.slow),
    ],
)
def test_encoder_without_tensorflow_gives_the_same_token_ids(make, tmp_path):
    original = KerasHubEncoder(make(), 40)
    converted = keras_hub.encoder_without_tensorflow(original)
    texts = random_texts(60)
    expected = original(texts)
    converted.save(tmp_path)
    preprocessing = steps.of_texts(converted)
    for encoder in (converted, encoders.load_exported(tmp_path, preprocessing)):
        actual = encoder(texts)
        assert actual.truncated == expected.truncated > 0
        np.testing.assert_array_equal(actual.row_splits, expected.row_splits)
        np.testing.assert_array_equal(actual.values, expected.values)
        for name in ("special_token_ids", "unknown_token_id", "unknown_token_ids"):
            assert getattr(encoder, name) == getattr(original, name)
    if isinstance(converted.tokenizer, subwords.WordPieceTokenizer):
        word = re.compile(preprocessing["word"])
        assert all(word.findall(text) == converted.tokenizer.split(text) for text in texts.texts if text.isascii())


@pytest.mark.parametrize("make", [gpt2, albert])
def test_tokenizer_of_a_language_model_gives_the_same_token_ids_and_texts(make, tmp_path):
    original = tokenizers.KerasHubTokenizer(make())
    converted = keras_hub.without_tensorflow(original)
    encoders.TokenEncoder(converted, 0).save(tmp_path)
    loaded = tokenizers.load(tmp_path / "vocabulary.json")
    for text in random_texts(60).texts:
        token_ids = original.encode(text)
        np.testing.assert_array_equal(loaded.encode(text), token_ids)
        assert loaded.decode(token_ids.tolist()) == original.decode(token_ids.tolist())
        assert loaded.unknown(text[:5]) == original.unknown(text[:5])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(
            lambda: hub.models.XLMRobertaTokenizer(proto=sentence_pieces()),
            "the same text gets other token IDs",
            marks=pytest.mark.slow,
        ),
        (lambda: hub.tokenizers.ByteTokenizer(), "it is of another kind than WordPiece"),
    ],
)
def test_tokenizer_that_reads_otherwise_is_refused(make, reason):
    with pytest.raises(UserError, match=rf"Tokenizer, which needs TensorFlow, and could not be replaced \({reason}"):
        keras_hub.encoder_without_tensorflow(KerasHubEncoder(make(), 40))


def test_word_piece_tokenizer_names_what_it_lacks_and_joins_words():
    tokenizer = subwords.WordPieceTokenizer(["?", "do", "##g", "a"], "?", "##", True, True, True)
    assert tokenizer.unknown("aza") == ["z"]
    assert tokenizer.decode(tokenizer.encode("A dog, a")) == "a dog ? a"
