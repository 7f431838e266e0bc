"""What a classifier answers for one input or many: predictions, probabilities, embeddings and preprocessed inputs."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from numbers import Number
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit import lazy, models
from dltoolkit.data.readers.objects import MISSING_TYPES, is_batched
from dltoolkit.errors import UserError
from dltoolkit.evaluation import prediction

if TYPE_CHECKING:
    import keras

    from dltoolkit.evaluation.prediction import Prediction
    from dltoolkit.run import Run

ENDLESS = -1  # cardinality of an endless tf.data.Dataset
# Types of a single value; the elements of any other iterable are the inputs
SCALARS = (type(None), Number, str, bytes, bytearray, memoryview, os.PathLike, Mapping)


class Predictor:
    """The classifier of a run, with the reading of its inputs as in training.

    Each input is one example: folders, tables and patterns are not expanded. Subclasses define what an input is.

    Args:
        run: Run of a classifier.
        batch_size: Number of inputs that are classified together.

    Attributes:
        noun: Name of an input in messages, "image" or "text".
    """

    noun = "input"

    def __init__(self, run: Run, batch_size: int):
        self.model, self.labels, self.batch_size = run.model, run.labels, batch_size

    def read(self, item: Any) -> Any:
        """Return an input as training reads it; a UserError gives the reason if it cannot be read."""
        raise NotImplementedError

    def stack(self, values: list[Any]) -> np.ndarray:
        """Return inputs that were read as one batch for the model."""
        raise NotImplementedError

    def is_known(self, batch: np.ndarray) -> np.ndarray:
        """Return whether the model knows anything in each row of a batch, bool (n,)."""
        return np.ones(len(batch), bool)

    def split_array(self, array: np.ndarray) -> tuple[Iterable[Any], bool]:
        """Return the inputs in an array, and whether the array is a single input."""
        raise NotImplementedError

    def expand(self, words: Iterable[Any], text_column: str | None = None, meaning: str = "auto") -> Iterator[Any]:
        """Yield the inputs that arguments of the command line mean: files, folders, patterns, tables or texts.

        Args:
            words: The arguments.
            text_column: Column of the texts in tables.
            meaning: What an argument is: "text", "file", or "auto" for a text if no file has this name.
        """
        raise NotImplementedError

    def stream(self, items: Iterable[Any], *, top_k: int = 5, threshold: float = 0.0) -> Iterator[Prediction]:
        """Yield the prediction for each input as it arrives.

        Args:
            items: Inputs; see :func:`dltoolkit.evaluation.prediction.classify`.
            top_k: Number of classes that each prediction lists.
            threshold: Probability below which the label is ``unsure``.
        """
        return prediction.classify(
            self.model,
            self.labels,
            items,
            self.read,
            top_k,
            threshold=threshold,
            stack=self.stack,
            is_known=self.is_known,
            batch_size=self.batch_size,
        )

    @lazy.quiet_tensorflow()
    def predict(self, inputs: Any, **options: Any) -> Prediction | list[Prediction]:
        """Return the prediction for one input, or a list with the prediction for each of many.

        Args:
            inputs: One input, or a sequence, an array or an iterator of inputs. An input that cannot be read gets a
                prediction with its error.
            options: Options of :meth:`stream`.
        """
        items, single = self.split(inputs)
        predictions = list(self.stream(items, **options))
        return predictions[0] if single else predictions

    def preprocess(self, inputs: Any) -> np.ndarray:
        """Return one or many inputs as a batch for the model.

        Raises:
            UserError: If an input cannot be read.
        """
        return self.stack(self._read_all(inputs))

    def predict_proba(self, inputs: Any) -> np.ndarray:
        """Return the probabilities of the labels for one or many inputs, float32 (n, labels).

        Raises:
            UserError: If an input cannot be read.
        """
        logits = self._run(self.model, inputs)
        return prediction.softmax(logits).astype(np.float32) if len(logits) else logits

    def embed(self, inputs: Any) -> np.ndarray:
        """Return the input of the last dense layer for one or many inputs, float32 (n, features).

        Raises:
            UserError: If an input cannot be read, or the model has no dense layer.
        """
        return self._run(models.surgery.features(self.model), inputs)

    def split(self, inputs: Any) -> tuple[Iterable[Any], bool]:
        """Return the inputs one by one, and whether ``inputs`` is a single one.

        Raises:
            UserError: If ``inputs`` is a table with several columns, or endless.
        """
        if isinstance(inputs, SCALARS):
            return [inputs], True
        if hasattr(inputs, "columns"):
            raise UserError("A DataFrame has several columns: give one of them, such as frame['text'].")
        if hasattr(inputs, "element_spec") and int(inputs.cardinality()) == ENDLESS:
            raise UserError("The data set is endless: give a part of it, such as dataset.take(100).")
        if hasattr(inputs, "element_spec"):
            return _examples(inputs), False
        if hasattr(inputs, "__array__"):
            try:
                return self.split_array(to_numpy(inputs))
            except _NotAnArray:
                return [inputs], True
        return (inputs, False) if isinstance(inputs, Iterable) else ([inputs], True)

    def check_type(self, item: Any, types: tuple[type, ...]) -> None:
        """Raise a UserError with the reason if an input is missing or of another type than ``types``."""
        if isinstance(item, types):
            return
        article = "an" if self.noun[0] in "aeiou" else "a"
        if item is None:
            raise UserError("missing (None)")
        if type(item).__name__ in MISSING_TYPES:
            raise UserError("missing (NA)")
        if isinstance(item, float | np.floating) and math.isnan(item):
            raise UserError("missing (NaN)")
        kind = "a number" if isinstance(item, Number) else f"of type {type(item).__name__}"
        raise UserError(f"{kind}, not {article} {self.noun}")

    def _read_all(self, inputs: Any) -> list[Any]:
        values = []
        items, single = self.split(inputs)
        for position, item in enumerate(items):
            try:
                values.append(self.read(item))
            except UserError as error:
                is_file = isinstance(item, os.PathLike) or (isinstance(item, str) and self.noun == "image")
                if single:
                    raise UserError(
                        f"{item if is_file else 'The input'} cannot be read ({error}): correct it."
                    ) from None
                raise UserError(
                    f"Input {position}{f', {item},' if is_file else ''} cannot be read ({error}): leave it out, or use "
                    "predict, which reports it in its place."
                ) from None
        return values

    @lazy.quiet_tensorflow()
    def _run(self, model: keras.Model, inputs: Any) -> np.ndarray:
        """Return the outputs of a model, float32 (n, outputs)."""
        values, size = self._read_all(inputs), self.batch_size
        if not values:
            return np.empty((0, model.output_shape[-1]), np.float32)
        chunks = [self.stack(values[start : start + size]) for start in range(0, len(values), size)]
        return np.concatenate([model.predict_on_batch(chunk) for chunk in chunks]).astype(np.float32)


def _examples(dataset: Any) -> Iterable[Any]:
    """Return the inputs of a tf.data.Dataset one by one: its elements, batched or not, are x or (x, y, …)."""
    if isinstance(dataset.element_spec, tuple):
        dataset = dataset.map(lambda x, *_: x)
    return dataset.unbatch() if hasattr(dataset.element_spec, "shape") and is_batched(dataset.element_spec) else dataset


class _NotAnArray(UserError):
    """An object with ``__array__`` cannot be converted."""


def to_numpy(array: Any) -> np.ndarray:
    """Return a tensor, a series or another array-like object as an array that NumPy computes with."""
    try:
        array = np.asarray(array)
    except Exception as error:  # each library has errors of its own, such as for a tensor on another device
        raise _NotAnArray(f"cannot be converted to an array ({error})") from error
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array
