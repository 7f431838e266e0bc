"""How texts become the numbers of a trained network that is gone on with: as its own tokenizer does it.

An encoder takes a :class:`~dltoolkit.data.vocabulary.Corpus` and returns the numbers of each text, 0 being left for
padding. It is kept in the run that uses it, and found there again by :func:`load`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from dltoolkit.data.language import tokenizers as tokens
from dltoolkit.data.pipeline import PARALLEL
from dltoolkit.data.text.vocabulary import Corpus, Encoder, Packed, Vocabulary, without_html
from dltoolkit.errors import UserError
from dltoolkit.files import atomic_write

WORDS, TOKENS, HUB = "vocabulary.txt", "vocabulary.json", "tokenizer.json"  # what they are called in a run
AT_ONCE = 1000  # texts that KerasHub's tokenizer gets together


class TextEncoder(Protocol):
    """What all kinds can do; the words of a sentiment analyzer are :class:`~dltoolkit.data.vocabulary.Encoder`'s."""

    longest: int | None  # numbers of a text at most; of longer ones the middle is left out
    hidden: int | None  # the number of a token that is not known, or is to be guessed
    spared: tuple[int, ...]  # the numbers of signs that stand before or after all texts

    def __call__(self, corpus: Corpus) -> Packed:
        """Return the numbers of each text."""

    def save(self, folder: Path) -> None:
        """Write what `load` reads."""


@dataclass(frozen=True)
class TokenEncoder:
    """The tokens of a text generator; number 1 + t stands for token t."""

    tokenizer: tokens.Tokenizer
    longest: int
    hidden = 1 + tokens.UNKNOWN
    spared = ()

    def __call__(self, corpus: Corpus) -> Packed:
        found = [self.tokenizer.encode(without_html(text)) for text in corpus.texts]
        return _packed(1 + some.astype(np.int32) for some in found).shortened(self.longest)

    def save(self, folder: Path) -> None:
        with atomic_write(folder / TOKENS) as beside:
            beside.write_text(json.dumps(self.tokenizer.to_json()), encoding="utf-8")


@dataclass(frozen=True)
class HubEncoder:
    """The tokens of a ``keras_hub.tokenizers.Tokenizer`` between its signs; number 1 + t stands for token t."""

    tokenizer: Any
    longest: int

    def __call__(self, corpus: Corpus) -> Packed:
        texts = tf.constant([without_html(text).strip() for text in corpus.texts])
        # in a pipeline, where they stay tensors: called with Python's texts it takes ten times as long
        pieces = tf.data.Dataset.from_tensor_slices(texts).batch(AT_ONCE).map(self.tokenizer, PARALLEL)
        found = [(some.flat_values.numpy(), some.row_lengths().numpy()) for some in pieces]
        numbers, lengths = (np.concatenate(parts) for parts in zip(*found, strict=True))
        first, last = self._ends
        inner = Packed(numbers, np.concatenate([[0], np.cumsum(lengths)])).shortened(
            self.longest - len(first) - len(last)
        )
        bounds = zip(inner.ends, inner.ends[1:], strict=False)
        return _packed(1 + np.concatenate([first, inner.numbers[begin:end], last]) for begin, end in bounds)

    @property
    def hidden(self) -> int | None:
        found = self._sign("mask")
        return 1 + int(found[0]) if len(found) else None

    @property
    def spared(self) -> tuple[int, ...]:
        return tuple(1 + int(number) for sign in self._ends for number in sign)

    @property
    def _ends(self) -> tuple[np.ndarray, np.ndarray]:
        return self._sign("cls", "start"), self._sign("sep", "end")

    def _sign(self, *names: str) -> np.ndarray:
        """A sign that families call differently: int32 (0 or 1,)."""
        found = (getattr(self.tokenizer, f"{name}_token_id", None) for name in names)
        return np.array([number for number in found if number is not None][:1], np.int32)

    def save(self, folder: Path) -> None:
        with atomic_write(folder / HUB) as beside:
            beside.write_text(json.dumps(tokens.keras_hub_to_json(self.tokenizer)), encoding="utf-8")


@functools.lru_cache(maxsize=4)
def load(folder: Path, longest: int | None) -> TextEncoder:
    """Return the encoder that is kept in a run.

    Args:
        folder: the run's.
        longest: numbers of a text at most; None for a bag of n-grams.

    Raises:
        UserError: if there is none, or it is damaged.
    """
    path = next((folder / name for name in (WORDS, TOKENS, HUB) if (folder / name).exists()), folder / WORDS)
    try:
        text = path.read_text(encoding="utf-8")
        if path.name == WORDS:
            return Encoder(Vocabulary.read(text), longest)
        description = json.loads(text)
        if path.name == HUB:
            return HubEncoder(tokens.keras_hub_from_json(description), longest)
        return TokenEncoder(tokens.from_json(description), longest)
    except UserError:
        raise
    except Exception as error:  # KerasHub raises many kinds
        raise UserError(f"{path} is damaged or cannot be read, so the run cannot read texts.") from error


def _packed(lists: Iterable[np.ndarray]) -> Packed:
    found = list(lists)
    ends = np.concatenate([[0], np.cumsum([len(some) for some in found], dtype=np.int64)])
    return Packed(np.concatenate([*found, []]).astype(np.int32), ends)
