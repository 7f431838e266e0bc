"""Answers of a classifier, one input at a time, whatever the input is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit.errors import UserError

if TYPE_CHECKING:
    import keras

BATCH = 256


@dataclass(frozen=True)
class Prediction:
    """The answer to one input, or the reason why there is none.

    Attributes:
        input: the file's path, the text, or ``array 0`` for arrays.
        label: the most probable class, or None with ``error``.
        probability: its probability, 0 to 1.
        top: the most probable classes, ``[{"label": …, "probability": …}, …]``, falling.
        error: why the input could not be answered.
    """

    input: str
    label: str | None = None
    probability: float | None = None
    top: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the contract's JSON object: input and error, or input, label, probability and top."""
        if self.error is not None:
            return {"input": self.input, "error": self.error}
        return {"input": self.input, "label": self.label, "probability": self.probability, "top": self.top}


def softmax(logits: np.ndarray) -> np.ndarray:
    """Turn logits (n, classes) into probabilities, in double precision."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return (powers := np.exp(shifted)) / powers.sum(axis=-1, keepdims=True)


def logits(model: keras.Model, batches: Iterable[tuple[Any, ...]]) -> np.ndarray:
    """Return the model's logits (n, classes) for every batch ``(inputs, …)`` of a pipeline."""
    return np.concatenate([model.predict_on_batch(batch[0]) for batch in batches])


def answer(
    model: keras.Model,
    classes: Sequence[str],
    inputs: Iterable[Any],
    read: Callable[[Any], np.ndarray],
    top_k: int,
) -> Iterator[Prediction]:
    """Answer inputs in batches, in their order, as they come.

    Args:
        model: raw inputs in, logits (batch, classes) out.
        classes: the class names.
        inputs: anything that ``read`` takes.
        read: makes one input an array without batch axis; its UserError becomes that input's error.
        top_k: how many classes each answer lists.
    """
    waiting: list[tuple[str, np.ndarray | str]] = []
    for number, item in enumerate(inputs):
        name = str(item) if isinstance(item, str) or hasattr(item, "__fspath__") else f"array {number}"
        try:
            waiting.append((name, read(item)))
        except UserError as error:
            waiting.append((name, str(error)))
        if len(waiting) == BATCH:
            yield from _answer_batch(model, classes, waiting, top_k)
            waiting = []
    if waiting:
        yield from _answer_batch(model, classes, waiting, top_k)


def _answer_batch(
    model: keras.Model, classes: Sequence[str], waiting: list[tuple[str, np.ndarray | str]], top_k: int
) -> Iterator[Prediction]:
    good = [value for _, value in waiting if not isinstance(value, str)]
    rows = iter(softmax(model.predict_on_batch(np.stack(good)))) if good else iter(())
    for name, value in waiting:
        if isinstance(value, str):
            yield Prediction(name, error=value)
            continue
        row = next(rows)
        order = np.argsort(-row, kind="stable")[:top_k]
        top = [{"label": classes[i], "probability": round(float(row[i]), 6)} for i in order]
        yield Prediction(name, top[0]["label"], top[0]["probability"], top)
