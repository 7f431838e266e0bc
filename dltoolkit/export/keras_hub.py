"""KerasHub's tokenizers as tokenizers that need no TensorFlow, found by trying: their token IDs must be equal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dltoolkit.data.language import byte_pairs, subwords, tokenizers
from dltoolkit.data.text.encoders import KerasHubEncoder, PretrainedEncoder
from dltoolkit.data.text.words import TokenizedTexts
from dltoolkit.errors import UserError, root_cause

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
        _convert(encoder.tokenizer, _divided(encoder, byte_pairs.pipeline)),
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
    converted = _convert(original.tokenizer, _divided(original, byte_pairs.literal))
    for text in _probes(original.tokenizer):
        _compare(original.tokenizer, (each.encode(text) for each in (original, converted)))
    return converted


def _probes(tokenizer: Any) -> list[str]:
    """Return the texts that both tokenizers must read equally."""
    vocabulary = sorted(tokenizer.get_vocabulary())
    return [*PROBES, " ".join(vocabulary[:: 1 + len(vocabulary) // 500])]


def _divided(reader: KerasHubEncoder | tokenizers.KerasHubTokenizer, as_in_keras_hub: Callable) -> Callable:
    """Return the function of `byte_pairs` that divides texts into words as the reader of a run does."""
    return byte_pairs.pretrained if reader.pretrained_splits else as_in_keras_hub


def _convert(tokenizer: Any, divided: Callable[[Any], Any]) -> tokenizers.Tokenizer:
    """Return the counterpart of a tokenizer of KerasHub; ``divided`` makes that of byte-pair encoding."""
    try:
        if hasattr(tokenizer, "proto"):
            return subwords.SentencePieceTokenizer(tokenizer.proto)
        if hasattr(tokenizer, "merges") and (made := divided(tokenizer)):
            return tokenizers.BPETokenizer(made.to_str())
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


def _compare(tokenizer: Any, token_ids: Any) -> None:
    if not np.array_equal(*token_ids):
        raise _refusal(tokenizer, "the same text gets other token IDs")


def _refusal(tokenizer: Any, reason: str) -> UserError:
    return UserError(
        f"The texts of this run are read by KerasHub's {type(tokenizer).__name__}, which needs TensorFlow, and could "
        f"not be replaced ({reason}): use the run itself."
    )
