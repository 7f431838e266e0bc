"""KerasHub's tokenizers as tokenizers that need no TensorFlow, found by trying: their token IDs must be equal."""

from __future__ import annotations

from typing import Any

import numpy as np

from dltoolkit.data.language import subwords, tokenizers
from dltoolkit.data.text.encoders import KerasHubEncoder, PretrainedEncoder
from dltoolkit.data.text.words import TokenizedTexts
from dltoolkit.errors import UserError, root_cause
from dltoolkit.run_schema import SPACE_BEFORE_WORD, SPLITS

MARK = "\u096c"  # KerasHub writes this digit before a space that belongs to the next word
# Texts that tell implementations apart: numbers, accents, scripts, white space, control characters, emoji, long words
PROBES = (
    "The quick brown fox's jumps, over 1234567 lazy dogs; isn't it (really) \u201cnice\u201d?",
    "\u00c5ngstr\u00f6m na\u00efve Cr\u00e8me Stra\u00dfe \ufb01ne \u0130stanbul \u01c5 caf\u00e9 e\u0301",
    "日本語のテスト 中文分词 한국어 русский ελληνικά हिन्दी العربية",
    "tabs\tand  two   spaces\nlines\n\nmore\r\nend ",
    "zero\u200bwidth soft\u00adhyphen no\u00a0break \u2009thin \u3000wide \x00\x07\x1b[0m \ufeff",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f \u2122 \u00bd \u2460 \u2026 \u00a8 \u2460",
    f"{'long' * 40} http://example.org/a_b?c=d&e=f#g user@example.org $5.00 #tag",
    "[CLS] [SEP] [MASK] [UNK] <s> </s> <pad> <mask> <unk> <|endoftext|>",
)


def encoder_without_tensorflow(encoder: KerasHubEncoder) -> PretrainedEncoder:
    """Return an encoder that gives texts the same token IDs.

    Raises:
        UserError: If there is none for this kind of tokenizer.
    """
    converted = PretrainedEncoder(
        _convert(encoder.tokenizer, in_pipeline=True),
        encoder.max_length,
        tuple(map(int, encoder.start_tokens)),
        tuple(map(int, encoder.end_tokens)),
        encoder.lowercase,
        encoder.strip_accents,
    )
    probes = TokenizedTexts(_probes(encoder.tokenizer))
    _compare(encoder.tokenizer, (each(probes).values for each in (encoder, converted)))
    return converted


def without_tensorflow(original: tokenizers.KerasHubTokenizer) -> tokenizers.Tokenizer:
    """Return a tokenizer of a language model that gives prompts the same token IDs.

    Raises:
        UserError: If there is none for this kind of tokenizer.
    """
    converted = _convert(original.tokenizer, in_pipeline=False)
    for text in _probes(original.tokenizer):
        _compare(original.tokenizer, (each.encode(text) for each in (original, converted)))
    return converted


def _probes(tokenizer: Any) -> list[str]:
    """Return the texts that both tokenizers must read equally."""
    vocabulary = sorted(tokenizer.get_vocabulary())
    return [*PROBES, " ".join(vocabulary[:: 1 + len(vocabulary) // 500])]


def _convert(tokenizer: Any, *, in_pipeline: bool) -> tokenizers.Tokenizer:
    """Return the counterpart of a tokenizer of KerasHub, whose pipelines of texts and calls divide texts otherwise."""
    try:
        if hasattr(tokenizer, "proto"):
            return subwords.SentencePieceTokenizer(tokenizer.proto)
        if hasattr(tokenizer, "merges"):
            return tokenizers.BPETokenizer(_byte_pairs(tokenizer, in_pipeline))
        if hasattr(tokenizer, "suffix_indicator"):
            return subwords.WordPieceTokenizer(
                tokenizer.get_vocabulary(),
                tokenizer.oov_token,
                tokenizer.suffix_indicator,
                tokenizer.lowercase,
                tokenizer.strip_accents,
                tokenizer.split_on_cjk,
            )
    except ValueError as error:  # such as token IDs with gaps
        raise _refusal(tokenizer, root_cause(error)) from None
    raise _refusal(tokenizer, "it is of another kind than WordPiece, byte-pair encoding and SentencePiece")


def _byte_pairs(tokenizer: Any, in_pipeline: bool) -> str:
    """Return the definition of a byte-pair tokenizer of the tokenizers library, as JSON."""
    library = tokenizers.library()

    def split(name: str, behavior: str = "isolated") -> Any:
        return library.pre_tokenizers.Split(library.Regex(SPLITS[name]), behavior)

    pairs = [tuple(merge.split(" ")) for merge in tokenizer.merges if "#version:" not in merge]
    made = library.Tokenizer(library.models.BPE(dict(tokenizer.vocabulary), pairs))
    made.add_special_tokens(sorted(tokenizer.unsplittable_tokens or ()))
    steps = []  # KerasHub divides a text only in pipelines: elsewhere it takes its regular expression literally
    if in_pipeline:
        made.normalizer = library.normalizers.Replace(library.Regex(SPACE_BEFORE_WORD), f"{MARK} ")
        steps = [split("pipeline"), split("last"), split("mark", "removed")]
    levels = library.pre_tokenizers.ByteLevel(add_prefix_space=tokenizer.add_prefix_space, use_regex=False)
    made.pre_tokenizer = library.pre_tokenizers.Sequence([*steps, levels]) if steps else levels
    made.decoder = library.decoders.ByteLevel()
    return made.to_str()


def _compare(tokenizer: Any, token_ids: Any) -> None:
    if not np.array_equal(*token_ids):
        raise _refusal(tokenizer, "the same text gets other token IDs")


def _refusal(tokenizer: Any, reason: str) -> UserError:
    return UserError(
        f"The texts of this run are read by KerasHub's {type(tokenizer).__name__}, which needs TensorFlow, and could "
        f"not be replaced ({reason}): use the run itself."
    )
