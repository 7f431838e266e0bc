"""Encoders of texts as the token IDs of a network, with 0 for padding.

A run saves its encoder as one of three files, from which :func:`load` restores it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dltoolkit import run_schema
from dltoolkit.data.language import byte_pairs, tokenizers
from dltoolkit.data.text.ragged import Ragged
from dltoolkit.data.text.vocabulary import UNKNOWN_ID, Vocabulary
from dltoolkit.data.text.words import TokenizedTexts, without_accents, without_html
from dltoolkit.errors import UserError
from dltoolkit.files import atomic_write

VOCABULARY_FILE = "vocabulary.txt"  # file of a VocabularyEncoder
TOKENIZER_FILE = "vocabulary.json"  # file of a TokenEncoder
KERAS_HUB_FILE = "tokenizer.json"  # file of a KerasHubEncoder
PRETRAINED_STEPS = ("start_tokens", "end_tokens", "lowercase", "strip_accents")  # fields of a PretrainedEncoder
TEXTS_PER_CALL = 1000  # texts that the tokenizer of KerasHub gets together, because each call takes milliseconds


class TextEncoder(Protocol):
    """Interface of the encoders.

    Attributes:
        max_length: Maximum number of token IDs of a text; the middle of longer texts is removed. None for no limit.
        unit: What a token ID stands for, in the plural, such as "words".
        mask_token_id: Token ID that replaces masked tokens, or None if the network has no mask token.
        special_token_ids: Token IDs of the start and end tokens, which are never masked.
        unknown_token_id: Token ID of what the vocabulary lacks, or None if it lacks nothing.
        unknown_token_ids: Token IDs that say nothing about a text: those of unknown words and of white space.
    """

    max_length: int | None
    unit: str
    mask_token_id: int | None
    special_token_ids: tuple[int, ...]
    unknown_token_id: int | None
    unknown_token_ids: tuple[int, ...]

    def __call__(self, texts: TokenizedTexts) -> Ragged:
        """Return the token IDs of each text."""

    def save(self, folder: Path) -> None:
        """Write the file that `load` reads."""


@dataclass(frozen=True)
class VocabularyEncoder:
    """The encoder of a sentiment analyzer, which has a vocabulary of its own.

    Attributes:
        vocabulary: The words or n-grams that the network distinguishes.
        max_length: Maximum number of words of a text; None if the network reads bags of n-grams instead of sequences.
    """

    vocabulary: Vocabulary
    max_length: int | None = None
    unit = "words"
    mask_token_id = UNKNOWN_ID
    special_token_ids = ()
    unknown_token_id = UNKNOWN_ID
    unknown_token_ids = (UNKNOWN_ID,)

    def __call__(self, texts: TokenizedTexts) -> Ragged:
        if self.max_length is None:
            return self.vocabulary.encode_bags(texts)
        return self.vocabulary.encode_sequences(texts, self.max_length)

    def save(self, folder: Path) -> None:
        _write(folder / VOCABULARY_FILE, self.vocabulary.to_text())


@dataclass(frozen=True)
class TokenEncoder:
    """The encoder of a text generator. Token ID 1 + t stands for token t of the tokenizer."""

    tokenizer: tokenizers.Tokenizer
    max_length: int
    mask_token_id = 1 + tokenizers.UNKNOWN
    special_token_ids = ()

    @property
    def unit(self) -> str:
        return "characters" if isinstance(self.tokenizer, tokenizers.CharTokenizer) else "tokens"

    @property
    def unknown_token_id(self) -> int | None:
        return None if self.tokenizer.unknown_id is None else 1 + self.tokenizer.unknown_id

    @property
    def unknown_token_ids(self) -> tuple[int, ...]:
        white_space = {1 + int(token) for space in " \n\t" for token in self.tokenizer.encode(space)}
        return (*white_space, *(() if self.unknown_token_id is None else (self.unknown_token_id,)))

    def __call__(self, texts: TokenizedTexts) -> Ragged:
        rows = (1 + self.tokenizer.encode(without_html(text)).astype(np.int32) for text in texts.texts)
        return _to_ragged(rows).truncate_middle(self.max_length)

    def save(self, folder: Path) -> None:
        _write(folder / TOKENIZER_FILE, json.dumps(self.tokenizer.to_json()))


@dataclass(frozen=True)
class KerasHubEncoder:
    """The encoder of a KerasHub network. Token ID 1 + t stands for token t of its tokenizer.

    Attributes:
        tokenizer: A ``keras_hub.tokenizers.Tokenizer``, whose start and end tokens are added to each text.
        max_length: Maximum number of token IDs, including the start and end tokens.
        lowercase: Whether texts are converted to lower case before the tokenizer reads them.
        strip_accents: Whether accents are removed before the tokenizer reads the texts.
        pretrained_splits: Whether byte-pair tokenizers divide texts into words as in pretraining, not as KerasHub
            does, which earlier runs were trained with.
    """

    tokenizer: Any
    max_length: int
    lowercase: bool = False
    strip_accents: bool = False
    pretrained_splits: bool = True
    unit = "tokens"

    def __post_init__(self):
        made = byte_pairs.pretrained(self.tokenizer) if self.pretrained_splits else None
        object.__setattr__(self, "_byte_pairs", made)  # now, so that an unknown division is an error before training

    def __call__(self, texts: TokenizedTexts) -> Ragged:
        rows = self.tokens([_normalize(text, self.lowercase, self.strip_accents) for text in texts.texts])
        return _between(self.start_tokens, rows, self.end_tokens, self.max_length)

    def tokens(self, texts: list[str]) -> Ragged:
        """Return the tokens of normalized texts without those of the start and the end."""
        if self._byte_pairs is not None:
            return _to_ragged(np.array(self._byte_pairs.encode(text).ids, np.int32) for text in texts)
        import tensorflow as tf

        from dltoolkit.data.pipeline import PARALLEL

        strings = tf.constant(texts)
        # A pipeline keeps the tokens in tensors; a call with Python strings takes ten times as long
        batches = tf.data.Dataset.from_tensor_slices(strings).batch(TEXTS_PER_CALL).map(self.tokenizer, PARALLEL)
        parts = [(batch.flat_values.numpy(), batch.row_lengths().numpy()) for batch in batches]
        values, lengths = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return Ragged.from_row_lengths(values, lengths)

    @property
    def unknown_token_id(self) -> int | None:
        oov_token = getattr(self.tokenizer, "oov_token", None)  # WordPiece
        if oov_token is None and hasattr(self.tokenizer, "proto"):  # SentencePiece
            oov_token = "<unk>"
        return None if oov_token is None else 1 + int(self.tokenizer.token_to_id(oov_token))

    @property
    def unknown_token_ids(self) -> tuple[int, ...]:
        return () if self.unknown_token_id is None else (self.unknown_token_id,)

    @property
    def mask_token_id(self) -> int | None:
        mask_token = self._special_token("mask")
        return 1 + int(mask_token[0]) if len(mask_token) else None

    @property
    def special_token_ids(self) -> tuple[int, ...]:
        return tuple(1 + int(token) for tokens in (self.start_tokens, self.end_tokens) for token in tokens)

    @property
    def start_tokens(self) -> np.ndarray:
        """The token before each text, int32 (0 or 1,)."""
        return self._special_token("cls", "start")

    @property
    def end_tokens(self) -> np.ndarray:
        """The token after each text, int32 (0 or 1,)."""
        return self._special_token("sep", "end")

    def _special_token(self, *names: str) -> np.ndarray:
        """Return the first special token that the tokenizer has under one of the names, int32 (0 or 1,)."""
        tokens = (getattr(self.tokenizer, f"{name}_token_id", None) for name in names)
        return np.array([token for token in tokens if token is not None][:1], np.int32)

    def save(self, folder: Path) -> None:
        names = ("lowercase", "strip_accents", "pretrained_splits")
        options = {name: getattr(self, name) for name in names}
        options["split_on_cjk"] = getattr(self.tokenizer, "split_on_cjk", True)  # KerasHub does not save it
        _write(folder / KERAS_HUB_FILE, json.dumps({**tokenizers.keras_hub_to_json(self.tokenizer), **options}))


@dataclass(frozen=True)
class PretrainedEncoder:
    """The encoder of an exported KerasHub network, which answers as a KerasHubEncoder does, without TensorFlow.

    Attributes:
        tokenizer: The tokenizer.
        max_length: Maximum number of token IDs, including the start and end tokens.
        start_tokens: Tokens before each text.
        end_tokens: Tokens after each text.
        lowercase: Whether texts are converted to lower case before the tokenizer reads them.
        strip_accents: Whether accents are removed before the tokenizer reads the texts.
    """

    tokenizer: tokenizers.Tokenizer
    max_length: int
    start_tokens: Sequence[int] = ()
    end_tokens: Sequence[int] = ()
    lowercase: bool = False
    strip_accents: bool = False
    unit = "tokens"
    mask_token_id = None

    @property
    def unknown_token_id(self) -> int | None:
        return None if self.tokenizer.unknown_id is None else 1 + self.tokenizer.unknown_id

    @property
    def unknown_token_ids(self) -> tuple[int, ...]:
        return () if self.unknown_token_id is None else (self.unknown_token_id,)

    @property
    def special_token_ids(self) -> tuple[int, ...]:
        return tuple(1 + token for token in (*self.start_tokens, *self.end_tokens))

    def __call__(self, texts: TokenizedTexts) -> Ragged:
        normalized = (_normalize(text, self.lowercase, self.strip_accents) for text in texts.texts)
        rows = _to_ragged(self.tokenizer.encode(text) for text in normalized)
        return _between(self.start_tokens, rows, self.end_tokens, self.max_length)

    def save(self, folder: Path) -> None:
        _write(folder / TOKENIZER_FILE, json.dumps(self.tokenizer.to_json()))


def load(folder: Path, max_length: int | None) -> TextEncoder:
    """Return the encoder of a run.

    Args:
        folder: The folder of the run.
        max_length: Maximum number of token IDs of a text; None for bags of n-grams.

    Raises:
        UserError: If the file of the encoder is missing or damaged.
    """
    names = (VOCABULARY_FILE, TOKENIZER_FILE, KERAS_HUB_FILE)
    path = next((folder / name for name in names if (folder / name).exists()), folder / VOCABULARY_FILE)
    status = path.stat() if path.exists() else None
    return _load(path, max_length, status and (status.st_ino, status.st_mtime_ns, status.st_size))


def load_exported(folder: Path, steps: dict[str, Any]) -> TextEncoder:
    """Return the encoder of an export.

    Args:
        folder: The folder of the export.
        steps: The contents of its preprocessing.json.

    Raises:
        UserError: If the file of the encoder is missing or damaged.
    """
    encoder = load(folder, steps.get("max_length"))
    if not steps.get("pretrained"):
        return encoder
    return PretrainedEncoder(encoder.tokenizer, encoder.max_length, **{name: steps[name] for name in PRETRAINED_STEPS})


@functools.lru_cache(maxsize=4)
def _load(path: Path, max_length: int | None, version: object) -> TextEncoder:
    """Return the encoder in a file, which is read again after it has been written again."""
    if path.name == TOKENIZER_FILE:
        return TokenEncoder(tokenizers.load(path), max_length)
    if path.name == KERAS_HUB_FILE:
        description = run_schema.read(path, run_schema.TOKENIZER)
        options = {name: description.get(name, False) for name in ("lowercase", "strip_accents", "pretrained_splits")}
        try:
            tokenizer = tokenizers.keras_hub_from_json(description)
        except UserError:
            raise
        except Exception as error:  # KerasHub raises many kinds
            raise tokenizers.damaged(path, error) from None
        tokenizer.split_on_cjk = description.get("split_on_cjk", True)
        return KerasHubEncoder(tokenizer, max_length, **options)
    try:
        return VocabularyEncoder(Vocabulary.from_text(run_schema.read_text(path)), max_length)
    except (OSError, ValueError) as error:
        raise tokenizers.damaged(path, error) from None


def _normalize(text: str, lowercase: bool, strip_accents: bool) -> str:
    """Return a text as a pretrained tokenizer reads it."""
    text = without_html(text).replace("\0", " ").strip()  # TensorFlow's operations read no further than a zero byte
    text = text.lower() if lowercase else text
    return without_accents(text) if strip_accents else text


def _between(start: Sequence[int], rows: Ragged, end: Sequence[int], max_length: int) -> Ragged:
    """Return the token IDs of tokens, without the middle of long rows, between start and end tokens."""
    rows = rows.truncate_middle(max_length - len(start) - len(end))
    with_ends = (
        1 + np.concatenate([start, rows.values[row_begin:row_end], end])
        for row_begin, row_end in zip(rows.row_splits, rows.row_splits[1:], strict=False)
    )
    return replace(_to_ragged(with_ends), truncated=rows.truncated)


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _to_ragged(rows: Iterable[np.ndarray]) -> Ragged:
    rows = list(rows)
    values = np.concatenate([*rows, np.zeros(0)]).astype(np.int32)
    return Ragged.from_row_lengths(values, np.array([len(row) for row in rows], np.int64))
