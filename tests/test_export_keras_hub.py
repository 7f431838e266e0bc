"""Tokenizers of KerasHub without TensorFlow: their token IDs are those of KerasHub."""

import io
import json
import re

import numpy as np
import pytest

from dltoolkit.data.language import byte_pairs, subwords, tokenizers
from dltoolkit.data.text import encoders
from dltoolkit.data.text.encoders import KerasHubEncoder
from dltoolkit.data.text.words import TokenizedTexts
from dltoolkit.errors import UserError
from dltoolkit.explanation import text_reading
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


def byte_pair_files(*special: str) -> tuple[dict[str, int], list[str]]:
    """Return a vocabulary with all bytes, and merges."""
    merges = ["t h", "th e", "Ġ t", "Ġt h", "Ġth e", "l o", "d o", "do g", "1 2", "12 3", "Ġ a", "Ġ Ġ", ". Ċ"]
    alphabet = sorted(byte_pairs.library().pre_tokenizers.ByteLevel.alphabet())
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
    vocabulary, merges = byte_pair_files("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    return hub.models.RobertaTokenizer(vocabulary=vocabulary, merges=merges)


def gpt2():
    vocabulary, merges = byte_pair_files("<|endoftext|>")
    return hub.models.GPT2Tokenizer(vocabulary=vocabulary, merges=merges)


@pytest.mark.parametrize(
    "make",
    [
        lambda: word_pieces(lowercase=True),
        pytest.param(lambda: word_pieces(lowercase=True, strip_accents=False), marks=pytest.mark.slow),
        pytest.param(lambda: word_pieces(lowercase=False, split_on_cjk=False), marks=pytest.mark.slow),
        albert,
        roberta,
        pytest.param(lambda: (roberta(), False), marks=pytest.mark.slow),  # a run of an earlier version
    ],
)
def test_encoder_without_tensorflow_gives_the_same_token_ids(make, tmp_path):
    tokenizer, *earlier = made if isinstance(made := make(), tuple) else (made,)
    original = KerasHubEncoder(tokenizer, 40, False, False, *earlier)
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


@pytest.mark.parametrize(("make", "pretrained_splits"), [(gpt2, True), (gpt2, False), (albert, True)])
def test_tokenizer_of_a_language_model_gives_the_same_token_ids_and_texts(make, pretrained_splits, tmp_path):
    original = tokenizers.KerasHubTokenizer(make(), pretrained_splits)
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


def reference(tokenizer):
    """Return the tokenizer of GPT-2 in the tokenizers library (Radford et al. 2019), whose expression is its own."""
    library = byte_pairs.library()
    merges = [tuple(merge.split(" ")) for merge in tokenizer.merges]
    made = library.Tokenizer(library.models.BPE(dict(tokenizer.vocabulary), merges))
    made.add_special_tokens(list(tokenizer.unsplittable_tokens))
    made.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return made


def test_byte_pairs_are_those_of_pretraining_in_runs_old_runs_and_explanations(tmp_path):
    texts = [*random_texts(300).texts, "the  C", "def f():\n    return  1", "१६ दिन", "the \u00a0 dog", "a dog.\n\n"]
    language, text = tokenizers.KerasHubTokenizer(gpt2()), KerasHubEncoder(roberta(), 10_000)
    encoders.TokenEncoder(language, 0).save(tmp_path)
    saved = tokenizers.load(tmp_path / "vocabulary.json")
    assert saved.encode("  C").tolist() == language.encode(" ").tolist() + language.encode(" C").tolist()
    expected = [reference(language.tokenizer).encode(each).ids for each in texts]
    for tokenizer in (language, saved):
        assert [tokenizer.encode(each).tolist() for each in texts] == expected
        assert [tokenizer.decode(row) for row in expected] == texts
    (tmp_path / "vocabulary.json").unlink()
    text.save(tmp_path)
    expected = [reference(text.tokenizer).encode(each).ids for each in texts]
    for encoder in (text, encoders.load(tmp_path, 10_000)):
        rows = encoder.tokens(texts)
        assert np.split(rows.values, rows.row_splits[1:-1])[0].tolist() == expected[0]
        assert rows.values.tolist() == [token for row in expected for token in row]
        assert [row.tolist() for row in text_reading.tokenize(encoder)(texts)] == expected


def test_runs_of_earlier_versions_keep_the_splits_that_they_were_trained_with(tmp_path):
    path = tmp_path / "vocabulary.json"
    description = tokenizers.KerasHubTokenizer(gpt2()).to_json()
    del description["pretrained_splits"]
    path.write_text(json.dumps(description))
    earlier = tokenizers.load(path)
    assert earlier.encode("  C").tolist() == [int(token) for token in earlier.tokenizer("  C")]
    assert earlier.to_json()["pretrained_splits"] is False, "a run that continues it reads as it does"


def test_byte_pairs_of_other_families_have_their_own_words_or_are_refused():
    vocabulary, merges = byte_pair_files("<|endoftext|>", "<|im_end|>")
    qwen = hub.models.Qwen3Tokenizer(vocabulary=vocabulary, merges=merges)
    words = byte_pairs.pretrained(qwen).pre_tokenizer.pre_tokenize_str("in 123  C\n\nx's")
    assert [word for word, _ in words] == ["in", "Ġ", "1", "2", "3", "Ġ", "ĠC", "ĊĊ", "x", "'s"]
    with pytest.raises(UserError, match="KerasHub's FalconTokenizer divides texts into other words"):
        KerasHubEncoder(hub.models.FalconTokenizer(vocabulary=vocabulary, merges=merges), 40)


def test_word_piece_tokenizer_names_what_it_lacks_and_joins_words():
    tokenizer = subwords.WordPieceTokenizer(["?", "do", "##g", "a"], "?", "##", True, True, True)
    assert tokenizer.unknown("aza") == ["z"]
    assert tokenizer.decode(tokenizer.encode("A dog, a")) == "a dog ? a"
