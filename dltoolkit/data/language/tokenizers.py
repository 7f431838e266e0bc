"""Tokenizers of language models: characters, bytes or byte-pair encoding."""

from __future__ import annotations

import base64
import json
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dltoolkit import lazy, run_schema
from dltoolkit.data.language import byte_pairs, subwords
from dltoolkit.errors import UserError, root_cause

UNKNOWN = 0  # token ID of the characters that the vocabulary of a CharTokenizer lacks
REPLACEMENT = "\ufffd"  # character that stands for bytes that are not a whole character, as in Python's decoders
MAX_CHARACTERS = 5_000  # characters in a vocabulary; alphabets have fewer, and Chinese or Japanese texts should use bpe
MAX_TRAINING_CHARACTERS = 50_000_000  # characters of the text that bpe is trained on, which bounds time and memory
MAX_VOCAB_SIZE = 1 << 16  # token IDs are stored in 16 bits
FILE_OPTIONS = ("vocabulary", "merges", "proto")  # options of KerasHub's tokenizers that name files


class Tokenizer(Protocol):
    """Interface of the tokenizers.

    Attributes:
        vocab_size: Number of tokens.
        unknown_id: Token of unknown characters, or None if no character is unknown.
    """

    vocab_size: int
    unknown_id: int | None

    def encode(self, text: str) -> np.ndarray:
        """Return the token IDs of a text, uint16 (n,)."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of token IDs; incomplete characters become U+FFFD."""

    def unknown(self, text: str) -> list[str]:
        """Return the distinct characters of a text that the vocabulary lacks."""

    def to_json(self) -> dict[str, Any]:
        """Return a description from which `from_json` restores the tokenizer."""


class CharTokenizer:
    """A tokenizer with one token per character. Token 0 is the unknown character.

    Args:
        characters: The characters of the tokens 1, 2, ….
    """

    unknown_id = UNKNOWN

    def __init__(self, characters: str):
        if len(set(characters)) < len(characters) or len(characters) > MAX_CHARACTERS:
            raise ValueError(f"a vocabulary has up to {MAX_CHARACTERS:,} different characters")
        self._characters = characters
        self.vocab_size = 1 + len(characters)
        codes = np.array([ord(character) for character in characters], np.int64)
        self._token_of_code = np.zeros(int(codes.max(initial=0)) + 2, np.uint16)
        self._token_of_code[codes] = np.arange(1, self.vocab_size, dtype=np.uint16)

    @classmethod
    def train(cls, texts: Iterable[str]) -> CharTokenizer:
        """Return a tokenizer for all characters of some texts.

        Raises:
            UserError: If there are more than ``MAX_CHARACTERS`` of them.
        """
        codes: set[int] = set()
        for text in texts:
            codes.update(np.flatnonzero(np.bincount(_code_points(text))).tolist())
        if len(codes) > MAX_CHARACTERS:
            raise UserError(
                f"The text has {len(codes):,} different characters, too many for one token each: use --tokenizer=bpe."
            )
        return cls("".join(map(chr, sorted(codes))))

    def encode(self, text: str) -> np.ndarray:
        return self._token_of_code[np.minimum(_code_points(text), len(self._token_of_code) - 1)]

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(self._characters[token_id - 1] if token_id else REPLACEMENT for token_id in token_ids)

    def unknown(self, text: str) -> list[str]:
        return [character for character in dict.fromkeys(text) if character not in self._characters]

    def to_json(self) -> dict[str, Any]:
        return {"tokenizer": "char", "characters": self._characters}


class ByteTokenizer:
    """A tokenizer with one token per byte of UTF-8. No character is unknown."""

    vocab_size = 256
    unknown_id = None

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8).astype(np.uint16)

    def decode(self, token_ids: Sequence[int]) -> str:
        return bytes(token_ids).decode(errors="replace")

    def unknown(self, text: str) -> list[str]:
        return []

    def to_json(self) -> dict[str, Any]:
        return {"tokenizer": "byte"}


class BPETokenizer:
    """A tokenizer with byte-pair encoding (Sennrich et al. 2016) of bytes. No character is unknown.

    Args:
        definition: The definition of a tokenizer of the tokenizers library, as JSON.
    """

    unknown_id = None

    def __init__(self, definition: str):
        self._tokenizer = byte_pairs.library().Tokenizer.from_str(definition)
        self.vocab_size = self._tokenizer.get_vocab_size()
        if set(self._tokenizer.get_vocab().values()) != set(range(min(self.vocab_size, MAX_VOCAB_SIZE))):
            raise ValueError(f"the token IDs are not 0, 1, … up to {MAX_VOCAB_SIZE:,} without a gap")

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> BPETokenizer:
        """Return a tokenizer that is trained on the first ``MAX_TRAINING_CHARACTERS`` of some texts."""
        package = byte_pairs.library()
        tokenizer = package.Tokenizer(package.models.BPE())
        tokenizer.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = package.decoders.ByteLevel()
        trainer = package.trainers.BpeTrainer(
            vocab_size=vocab_size,
            initial_alphabet=package.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(_truncate(texts, MAX_TRAINING_CHARACTERS), trainer)
        return cls(tokenizer.to_str())

    def encode(self, text: str) -> np.ndarray:
        return np.array(self._tokenizer.encode(text).ids, np.uint16)

    def decode(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=False)

    def unknown(self, text: str) -> list[str]:
        return []

    def to_json(self) -> dict[str, Any]:
        return {"tokenizer": "bpe", "definition": json.loads(self._tokenizer.to_str())}


class KerasHubTokenizer:
    """A tokenizer of KerasHub without start and end tokens.

    Args:
        tokenizer: A ``keras_hub.tokenizers.Tokenizer``.
        pretrained_splits: Whether texts are divided into words as in pretraining, not as KerasHub does, which earlier
            runs were trained with.

    Raises:
        UserError: If it has more than ``MAX_VOCAB_SIZE`` tokens, or the words of the pretraining are not known.
    """

    def __init__(self, tokenizer: Any, pretrained_splits: bool = True):
        self.tokenizer, self.pretrained_splits = tokenizer, pretrained_splits
        self._byte_pairs = byte_pairs.pretrained(tokenizer) if pretrained_splits else None
        self.unknown_id = int(tokenizer.token_to_id("<unk>")) if hasattr(tokenizer, "proto") else None  # SentencePiece
        self.vocab_size = tokenizer.vocabulary_size()
        if self.vocab_size > MAX_VOCAB_SIZE:
            raise UserError(
                f"The tokenizer has {self.vocab_size:,} tokens, but at most {MAX_VOCAB_SIZE:,} are supported: use "
                "another preset."
            )

    def encode(self, text: str) -> np.ndarray:
        made = self._byte_pairs
        return np.array(self.tokenizer(text) if made is None else made.encode(text).ids, np.uint16)

    def decode(self, token_ids: Sequence[int]) -> str:
        return self.tokenizer.detokenize([int(token_id) for token_id in token_ids]) if len(token_ids) else ""

    def unknown(self, text: str) -> list[str]:
        if self.unknown_id is None or self.unknown_id not in self.encode(text):
            return []
        return [character for character in dict.fromkeys(text) if self.unknown_id in self.encode(character)]

    def to_json(self) -> dict[str, Any]:
        splits = {"pretrained_splits": self.pretrained_splits}
        return {"tokenizer": "keras_hub", **keras_hub_to_json(self.tokenizer), **splits}


def keras_hub_to_json(tokenizer: Any) -> dict[str, Any]:
    """Return a description of a ``keras_hub.tokenizers.Tokenizer``, with its files in base 64."""
    import keras

    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_assets(folder)
        assets = {path.name: base64.b64encode(path.read_bytes()).decode() for path in Path(folder).iterdir()}
    return {"config": keras.saving.serialize_keras_object(tokenizer), "assets": assets}


def keras_hub_from_json(description: dict[str, Any]) -> Any:
    """Return the tokenizer that `keras_hub_to_json` described.

    Raises:
        ValueError: If the description names anything but a tokenizer of KerasHub, or another file than its own.
    """
    keras_hub = lazy.keras_hub()
    described = description["config"]
    tokenizer_class = getattr(keras_hub.tokenizers, described["class_name"], None)
    if not isinstance(tokenizer_class, type) or not issubclass(tokenizer_class, keras_hub.tokenizers.Tokenizer):
        raise ValueError(f"{described['class_name']} is not a tokenizer of KerasHub")
    options = {name: value for name, value in described["config"].items() if name != "dtype"}
    if any(options.get(name) is not None for name in FILE_OPTIONS):
        raise ValueError("it names a file outside the run")
    dtype = described["config"].get("dtype")
    if dtype is not None:
        options["dtype"] = dtype["config"]["name"] if isinstance(dtype, dict) else dtype
    tokenizer = tokenizer_class.from_config(options)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in description["assets"].items():
            if not re.fullmatch(r"[\w-]+(\.\w+)?", name):
                raise ValueError(f"'{name}' is not the name of a file of a tokenizer")
            (Path(folder) / name).write_bytes(base64.b64decode(content, validate=True))
        tokenizer.load_assets(folder)
    return tokenizer


def load(path: Path) -> Tokenizer:
    """Return the tokenizer in a file of a run.

    Raises:
        UserError: If the file is missing or damaged, or describes anything but a tokenizer.
    """
    description = run_schema.read(path, run_schema.TOKENIZER)
    try:
        return from_json(description)
    except UserError:
        raise
    except Exception as error:  # the tokenizers library and KerasHub raise many kinds
        raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> UserError:
    """Return the error about a file from which no tokenizer or vocabulary can be made."""
    reason = getattr(error, "strerror", None) or root_cause(error)
    return UserError(f"{path} is damaged or cannot be read ({reason}), so the run cannot read texts: train it again.")


def from_json(description: dict[str, Any]) -> Tokenizer:
    """Return the tokenizer that ``to_json`` described.

    Raises:
        ValueError: If the description is not one of a tokenizer.
    """
    kind = description.get("tokenizer")
    if kind == "char":
        return CharTokenizer(description["characters"])
    if kind == "bpe":
        return BPETokenizer(json.dumps(description["definition"]))
    if kind == "byte":
        return ByteTokenizer()
    if kind == "word_piece":
        return subwords.WordPieceTokenizer(*(description[name] for name in subwords.WORD_PIECE))
    if kind == "sentencepiece":
        return subwords.SentencePieceTokenizer(base64.b64decode(description["proto"], validate=True))
    if kind == "keras_hub":
        return KerasHubTokenizer(keras_hub_from_json(description), description.get("pretrained_splits", False))
    raise ValueError("not a tokenizer")


class IncrementalDetokenizer:
    """Text from tokens that arrive in chunks.

    Incomplete characters, and ends that may be the beginning of a stop string, are held back until the next chunk.

    Args:
        tokenizer: Tokenizer of the tokens.
        stops: Strings before which the text ends.

    Attributes:
        stopped: Whether a stop string has occurred.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str]):
        self._tokenizer, self._stops = tokenizer, [stop for stop in stops if stop]
        self._token_ids: list[int] = []
        self._returned = 0  # characters
        self.stopped = False

    def add(self, token_ids: Sequence[int], last: bool = False) -> str:
        """Add tokens, and return the text that has become certain.

        Args:
            token_ids: The new tokens.
            last: Whether these are the last tokens, so that all text is certain.
        """
        if self.stopped:
            return ""
        self._token_ids += token_ids
        text = self._tokenizer.decode(self._token_ids)
        stop_positions = [position for position in (text.find(stop) for stop in self._stops) if position >= 0]
        certain = len(text)
        if stop_positions:
            self.stopped, certain = True, min(stop_positions)
        elif not last:
            certain -= max((partial_stop_match(text, stop) for stop in self._stops), default=0)
            certain = len(text[:certain].rstrip(REPLACEMENT))  # the next tokens may complete the character
        new = text[self._returned : certain]
        self._returned = max(self._returned, certain)
        return new


def partial_stop_match(text: str, stop: str) -> int:
    """Return how many characters at the end of a text match the beginning of a stop string, but not all of it."""
    lengths = range(min(len(stop) - 1, len(text)), 0, -1)
    return next((length for length in lengths if text.endswith(stop[:length])), 0)


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _truncate(texts: Iterable[str], max_characters: int) -> Iterable[str]:
    remaining = max_characters
    for text in texts:
        yield text[:remaining]
        remaining -= len(text)
        if remaining <= 0:
            return
