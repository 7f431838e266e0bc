"""Predictions of a classifier for a stream of inputs of any type."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Number
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit import lazy
from dltoolkit.errors import InvalidInput, UserError
from dltoolkit.lines import StdinBytes

if TYPE_CHECKING:
    import keras

BATCH_SIZE = 256  # inputs that are classified together, by default
UNSURE = "unsure"  # label of a prediction below the threshold
UNKNOWN_INPUT = "unknown_input"  # label of a text without a word that the model knows
FLUSH = object()  # among inputs: no further input is expected soon, so that the waiting ones are classified


@dataclass(frozen=True)
class Prediction:
    """The prediction for one input, or the reason why there is none.

    Attributes:
        input: Path of the file, the text, or the type and the position of another input, such as ``array 0``.
        label: Most probable class, ``unsure`` below the threshold, ``unknown_input`` for a text without a word that the
            model knows, or None with ``error``.
        probability: Probability of the most probable class, 0 to 1; None for an unknown input.
        top: Most probable classes, ``[{"label": …, "probability": …}, …]``, in descending order; empty for an unknown
            input.
        error: Reason why the input could not be classified.
        reasons: What the label rests on, if that was asked for: the ``box`` of an image or the ``words`` of a text.
    """

    input: str
    label: str | None = None
    probability: float | None = None
    top: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    reasons: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the contract: input and error, or input, label, probability and top."""
        if self.error is not None:
            return {"input": self.input, "error": self.error}
        answer = {"input": self.input, "label": self.label, "probability": self.probability, "top": self.top}
        return answer | self.reasons


@dataclass(frozen=True)
class _Pending:
    """An input that waits for the next batch."""

    name: str
    value: Any = None
    error: str | None = None


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities float64 (n, classes) of logits (n, classes)."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return (powers := np.exp(shifted)) / powers.sum(axis=-1, keepdims=True)


@lazy.quiet_tensorflow()
def logits(model: keras.Model, batches: Iterable[tuple[Any, ...]]) -> np.ndarray:
    """Return the logits (n, classes) of a model for all batches ``(inputs, …)``."""
    if hasattr(batches, "element_spec"):  # a tf.data pipeline: predict() traces one graph for batches of all lengths
        return model.predict(batches, verbose=0)
    return np.concatenate([model.predict_on_batch(batch[0]) for batch in batches])


def classify(
    model: keras.Model,
    classes: Sequence[str],
    inputs: Iterable[Any],
    read: Callable[[Any], Any],
    top_k: int,
    *,
    threshold: float = 0.0,
    stack: Callable[[list[Any]], np.ndarray] = np.stack,
    is_known: Callable[[np.ndarray], np.ndarray] | None = None,
    batch_size: int = BATCH_SIZE,
) -> Iterator[Prediction]:
    """Yield the predictions for inputs in their order, as the inputs arrive.

    Args:
        model: Raw inputs in, logits (batch, classes) out.
        classes: Class names.
        inputs: Anything that ``read`` takes. A `InvalidInput` becomes a prediction with its error, and :data:`FLUSH`
            becomes none.
        read: Reads one input; its UserError becomes the error of that input.
        top_k: Number of classes that each prediction lists.
        threshold: Probability below which the label is ``unsure``.
        stack: Converts a list of read inputs into the input of the model.
        is_known: Maps the input of the model to whether the model knows anything in each row, bool (n,).
        batch_size: Inputs that are classified together.
    """
    waiting: list[_Pending] = []
    for number, item in enumerate(inputs):
        if item is FLUSH or len(waiting) == batch_size:
            yield from _classify_batch(model, classes, waiting, top_k, threshold, stack, is_known)
            waiting = []
        if item is FLUSH:
            continue
        if isinstance(item, InvalidInput):
            waiting.append(_Pending(item.input, error=item.error))
            continue
        name = name_of(item, number)
        try:
            value = read(item)
            is_text = isinstance(value, str) and not isinstance(item, os.PathLike)  # in a tensor or bytes, for example
            waiting.append(_Pending(value if is_text else name, value))
        except UserError as error:
            waiting.append(_Pending(name, error=str(error)))
    yield from _classify_batch(model, classes, waiting, top_k, threshold, stack, is_known)


def name_of(item: Any, number: int) -> str:
    """Return how a prediction names its input; long or unprintable inputs are named by their type and position."""
    if isinstance(item, str | os.PathLike):
        return str(item)
    if isinstance(item, StdinBytes):
        return "stdin"
    if item is None or isinstance(item, Number):
        return str(item)
    return f"{'array' if hasattr(item, 'shape') else type(item).__name__} {number}"


def _classify_batch(
    model: keras.Model,
    classes: Sequence[str],
    waiting: list[_Pending],
    top_k: int,
    threshold: float,
    stack: Callable[[list[Any]], np.ndarray],
    is_known: Callable[[np.ndarray], np.ndarray] | None,
) -> Iterator[Prediction]:
    readable = [pending.value for pending in waiting if pending.error is None]
    if readable:
        batch = stack(readable)
        recognized = np.ones(len(readable), bool) if is_known is None else is_known(batch)
        probabilities = softmax(model.predict_on_batch(batch))
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
        highest = np.take_along_axis(probabilities, order, axis=1).round(6).tolist()
        rows = zip(order.tolist(), highest, recognized.tolist(), strict=True)
    for pending in waiting:
        if pending.error is not None:
            yield Prediction(pending.name, error=pending.error)
            continue
        numbers, values, is_recognized = next(rows)
        if not is_recognized:
            yield Prediction(pending.name, UNKNOWN_INPUT)
            continue
        top = [{"label": classes[i], "probability": value} for i, value in zip(numbers, values, strict=True)]
        yield Prediction(pending.name, top[0]["label"] if values[0] >= threshold else UNSURE, values[0], top)
