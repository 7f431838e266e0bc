"""Text to tokens and back: characters, bytes, or pieces of words (byte-pair encoding)."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dltoolkit import lazy
from dltoolkit.errors import UserError

UNKNOWN = 0  # the token of a character that the vocabulary lacks
MOST_CHARACTERS = 5_000  # in a vocabulary of characters
LEARNED_FROM = 50_000_000  # characters, from which word pieces are learned


class Tokenizer(Protocol):
    """What all three kinds can do."""

    size: int

    def encode(self, text: str) -> np.ndarray:
        """Return uint16 (n,) tokens of a text."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens; what is no whole character becomes U+FFFD."""

    def unknown(self, text: str) -> list[str]:
        """Return the characters that the vocabulary lacks, each once."""

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes."""


class Characters:
    """A token for each character of a text; token 0 stands for any other."""

    def __init__(self, characters: str):
        self._characters = characters
        self.size = 1 + len(characters)
        codes = np.array([ord(character) for character in characters], np.int64)
        self._tokens = np.zeros(int(codes.max(initial=0)) + 2, np.uint16)
        self._tokens[codes] = np.arange(1, self.size, dtype=np.uint16)

    @classmethod
    def of(cls, texts: Iterable[str]) -> Characters:
        """Return the vocabulary of all characters in texts."""
        found: set[int] = set()
        for text in texts:
            found.update(np.flatnonzero(np.bincount(_codes(text))).tolist())
        if len(found) > MOST_CHARACTERS:
            raise UserError(
                f"The text has {len(found):,} different characters, too many for a token each: use --tokenizer bpe."
            )
        return cls("".join(map(chr, sorted(found))))

    def encode(self, text: str) -> np.ndarray:
        return self._tokens[np.minimum(_codes(text), len(self._tokens) - 1)]

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self._characters[token - 1] if token else "\ufffd" for token in tokens)

    def unknown(self, text: str) -> list[str]:
        return [character for character in dict.fromkeys(text) if character not in self._characters]

    def to_json(self) -> dict[str, Any]:
        return {"tokens": "char", "characters": self._characters}


class Bytes:
    """A token for each byte of UTF-8: 256 of them, and nothing is unknown."""

    size = 256

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8).astype(np.uint16)

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode(errors="replace")

    def unknown(self, text: str) -> list[str]:
        return []

    def to_json(self) -> dict[str, Any]:
        return {"tokens": "byte"}


class Pieces:
    """Byte-pair encoding (Sennrich et al. 2016) over bytes, by the tokenizers library; nothing is unknown."""

    def __init__(self, definition: str):
        self._tokenizer = _tokenizers().Tokenizer.from_str(definition)
        self.size = self._tokenizer.get_vocab_size()

    @classmethod
    def of(cls, texts: Iterable[str], size: int) -> Pieces:
        """Learn ``size`` pieces from the beginning of texts."""
        library = _tokenizers()
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = library.decoders.ByteLevel()
        trainer = library.trainers.BpeTrainer(
            vocab_size=size,
            initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(_beginning(texts), trainer)
        return cls(tokenizer.to_str())

    def encode(self, text: str) -> np.ndarray:
        return np.array(self._tokenizer.encode(text).ids, np.uint16)

    def decode(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(list(tokens), skip_special_tokens=False)

    def unknown(self, text: str) -> list[str]:
        return []

    def to_json(self) -> dict[str, Any]:
        return {"tokens": "bpe", "definition": json.loads(self._tokenizer.to_str())}


class HubPieces:
    """The pieces of a ``keras_hub.tokenizers.Tokenizer``, without signs before and after; nothing is unknown.

    Raises:
        UserError: if there are more than 65,536 of them.
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self.size = tokenizer.vocabulary_size()
        if self.size > 1 << 16:
            raise UserError(f"A vocabulary of {self.size:,} pieces is too large: tokens are kept in 16 bits.")

    def encode(self, text: str) -> np.ndarray:
        return np.array(self._tokenizer(text), np.uint16)

    def decode(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.detokenize([int(token) for token in tokens]) if len(tokens) else ""

    def unknown(self, text: str) -> list[str]:
        return []

    def to_json(self) -> dict[str, Any]:
        return {"tokens": "hub", **hub_to_json(self._tokenizer)}


def hub_to_json(tokenizer: Any) -> dict[str, Any]:
    """Return what `hub_from_json` makes a ``keras_hub.tokenizers.Tokenizer`` of again, its files in base 64."""
    import keras

    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_assets(folder)
        assets = {path.name: base64.b64encode(path.read_bytes()).decode() for path in Path(folder).iterdir()}
    return {"config": keras.saving.serialize_keras_object(tokenizer), "assets": assets}


def hub_from_json(description: dict[str, Any]) -> Any:
    """Return the tokenizer that `hub_to_json` described."""
    lazy.keras_hub()  # makes its classes known
    import keras

    tokenizer = keras.saving.deserialize_keras_object(description["config"])
    with tempfile.TemporaryDirectory() as folder:
        for name, content in description["assets"].items():
            (Path(folder) / Path(name).name).write_bytes(base64.b64decode(content))
        tokenizer.load_assets(folder)
    return tokenizer


def from_json(description: dict[str, Any]) -> Tokenizer:
    """Return the tokenizer that ``to_json`` described.

    Raises:
        ValueError: if it is none.
    """
    kind = description.get("tokens")
    if kind == "char":
        return Characters(description["characters"])
    if kind == "bpe":
        return Pieces(json.dumps(description["definition"]))
    if kind == "byte":
        return Bytes()
    if kind == "hub":
        return HubPieces(hub_from_json(description))
    raise ValueError("not a tokenizer")


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _beginning(texts: Iterable[str]) -> Iterable[str]:
    left = LEARNED_FROM
    for text in texts:
        yield text[:left]
        left -= len(text)
        if left <= 0:
            return


def _tokenizers() -> Any:
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError:
        raise UserError("--tokenizer bpe needs the tokenizers package: pip install 'dltoolkit[bpe]'.") from None
    return tokenizers


class Continuation:
    """Tokens that arrive, as text: only whole characters are handed out, and nothing from a stop string on."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str]):
        self._tokenizer, self._stops = tokenizer, [stop for stop in stops if stop]
        self._tokens: list[int] = []
        self._handed = 0
        self.stopped = False

    def add(self, tokens: Sequence[int], last: bool = False) -> str:
        """Take new tokens, and return the text that is certain now; with ``last``, all of it."""
        if self.stopped:
            return ""
        self._tokens += tokens
        text = self._tokenizer.decode(self._tokens)
        ends = [place for place in (text.find(stop) for stop in self._stops) if place >= 0]
        certain = len(text)
        if ends:
            self.stopped, certain = True, min(ends)
        elif not last:
            certain -= max((_overlap(text, stop) for stop in self._stops), default=0)
            certain -= len(text[:certain]) - len(text[:certain].rstrip("\ufffd"))  # a character may be half there
        new = text[self._handed : certain]
        self._handed = max(self._handed, certain)
        return new


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of a text may be the beginning of ``stop``."""
    return next((length for length in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:length])), 0)
