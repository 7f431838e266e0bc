"""Answers of a classifier, one input at a time, whatever the input is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit.errors import BadInput, UserError

if TYPE_CHECKING:
    import keras

BATCH = 256
UNSURE = "unsure"


@dataclass(frozen=True)
class Prediction:
    """The answer to one input, or the reason why there is none.

    Attributes:
        input: the file's path, the text, or ``array 0`` for arrays.
        label: the most probable class, ``unsure`` below the threshold, or None with ``error``.
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
    if hasattr(batches, "element_spec"):  # a tf.data pipeline, of which one graph suits batches of all lengths
        return model.predict(batches, verbose=0)
    return np.concatenate([model.predict_on_batch(batch[0]) for batch in batches])


def answer(
    model: keras.Model,
    classes: Sequence[str],
    inputs: Iterable[Any],
    read: Callable[[Any], Any],
    top_k: int,
    *,
    threshold: float = 0.0,
    stack: Callable[[list[Any]], np.ndarray] = np.stack,
    batch: int = BATCH,
) -> Iterator[Prediction]:
    """Answer inputs in batches, in their order, as they come.

    Args:
        model: raw inputs in, logits (batch, classes) out.
        classes: the class names.
        inputs: anything that ``read`` takes; `BadInput` becomes an answer with its error; None says that no more will
            come for the moment, so that those that wait are answered.
        read: makes one input what ``stack`` takes; its UserError becomes that input's error.
        top_k: how many classes each answer lists.
        threshold: below this probability the label is ``unsure``.
        stack: makes a list of what ``read`` returned the model's input.
        batch: inputs answered at a time.
    """
    waiting: list[tuple[str, Any, str | None]] = []  # name, what was read, error
    for number, item in enumerate(inputs):
        if item is None or len(waiting) == batch:
            yield from _answers(model, classes, waiting, top_k, threshold, stack)
            waiting = []
        if item is None:
            continue
        if isinstance(item, BadInput):
            waiting.append((item.input, None, item.error))
            continue
        name = str(item) if isinstance(item, str) or hasattr(item, "__fspath__") else f"array {number}"
        try:
            waiting.append((name, read(item), None))
        except UserError as error:
            waiting.append((name, None, str(error)))
    yield from _answers(model, classes, waiting, top_k, threshold, stack)


def _answers(
    model: keras.Model,
    classes: Sequence[str],
    waiting: list[tuple[str, Any, str | None]],
    top_k: int,
    threshold: float,
    stack: Callable[[list[Any]], np.ndarray],
) -> Iterator[Prediction]:
    good = [value for _, value, error in waiting if error is None]
    if good:
        probabilities = softmax(model.predict_on_batch(stack(good)))
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
        best = np.take_along_axis(probabilities, order, axis=1).round(6).tolist()
        rows = zip(order.tolist(), best, strict=True)
    for name, _, error in waiting:
        if error is not None:
            yield Prediction(name, error=error)
            continue
        numbers, shares = next(rows)
        top = [{"label": classes[i], "probability": share} for i, share in zip(numbers, shares, strict=True)]
        yield Prediction(name, top[0]["label"] if shares[0] >= threshold else UNSURE, shares[0], top)
