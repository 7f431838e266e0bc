"""Explanations of texts by gradients through the embeddings of a Keras model."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dltoolkit.explanation.gradients import log_odds
from dltoolkit.explanation.text_reading import SequenceText
from dltoolkit.models import keras_internals

STEPS, MAX_STEPS = 32, 512  # points of the path at first, and at most
MAX_ERROR = 0.005  # of the sum of the values, relative to the change of the answer, above which the steps are doubled
MIN_CHANGE = 0.05  # of the log odds, below which a change counts as this much
MAX_TOKENS = 1 << 13  # tokens that are differentiated together, which bounds the memory


class IntegratedGradients:
    """Integrated gradients of log odds over the path from a text of unknown words to the text.

    Sundararajan, Taly & Yan, "Axiomatic Attribution for Deep Networks", 2017. The path is straight in the outputs of
    all embeddings that depend on the words. The values add up to the change of the log odds along the path: more points
    are taken until they do.

    Args:
        model: A model from token IDs to logits.
        unknown_id: Token ID of the unknown or masked word that the path starts with; 0 for padding.
    """

    def __init__(self, model: keras.Model, unknown_id: int):
        self._model, self._unknown_id = model, unknown_id
        self._functions: dict[tuple[int, ...], Callable] = {}
        self._layers = [
            layer for layer in keras_internals.all_layers(model) if isinstance(layer, keras.layers.Embedding)
        ]

    @property
    def has_embedding(self) -> bool:
        """Whether the model has a layer of embeddings."""
        return bool(self._layers)

    def attribute(self, read: SequenceText, targets: Sequence[int]) -> tuple[np.ndarray, dict[str, Any]]:
        """Return the values of the words for each class.

        Args:
            read: The text.
            targets: Numbers of the classes.

        Returns:
            float32 (targets, words), and the largest error of their sums relative to the change, for JSON.
        """
        unknown = np.where(read.words >= 0, self._unknown_id, read.token_ids)
        outputs = [output.numpy() for output in self._embed(np.stack([unknown, read.token_ids]).astype(np.int32))]
        shape = (2, len(read.token_ids))
        depends = tuple(
            number
            for number, each in enumerate(outputs)
            if each.ndim == 3 and each.shape[:2] == shape and not np.array_equal(each[0], each[1])
        )
        path = [(outputs[number][0], outputs[number][1] - outputs[number][0]) for number in depends]
        if depends not in self._functions:
            self._functions[depends] = self._function(depends)
        results = [self._integrate(read, path, self._functions[depends], target) for target in targets]
        values = np.zeros((len(targets), len(read.spans) + 1))
        for row, (by_token, _) in zip(values, results, strict=True):
            np.add.at(row, read.words, by_token)
        error = max(error for _, error in results)
        return values[:, :-1].astype(np.float32), {"completeness_error": round(error, 6)}

    def _integrate(
        self, read: SequenceText, path: list[tuple[np.ndarray, np.ndarray]], function: Callable, target: int
    ) -> tuple[np.ndarray, float]:
        """Return the value of each token, float64 (tokens,), and the relative error of their sum."""

        def along(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            """Return log odds (points,) at points of the path, and the sum of the values of the tokens there."""
            size, odds, total = max(1, MAX_TOKENS // len(read.token_ids)), [], np.zeros(len(read.token_ids))
            for begin in range(0, len(points), size):
                some = points[begin : begin + size, None, None]
                vectors = [tf.constant((start + some * change).astype(np.float32)) for start, change in path]
                ids = np.broadcast_to(read.token_ids, (len(some), len(read.token_ids)))
                values, gradients = function(tf.constant(ids), vectors, tf.constant(target))
                odds.append(values.numpy())
                for gradient, (_, change) in zip(gradients, path, strict=True):
                    total += (gradient.numpy().astype(np.float64) * change).sum(axis=(0, 2))
            return np.concatenate(odds), total

        (before, after), _ = along(np.array([0.0, 1.0]))
        change, steps = float(after - before), STEPS
        while True:
            values = along((np.arange(steps) + 0.5) / steps)[1] / steps
            error = abs(float(values.sum()) - change) / max(abs(change), MIN_CHANGE)
            if error <= MAX_ERROR or steps >= MAX_STEPS or not path:
                return values, error
            steps *= 2

    @functools.cached_property
    def _embed(self) -> Callable:
        """The function from token IDs to the outputs of all embeddings, in the order of their calls."""

        @tf.function(reduce_retracing=True)
        def embed(token_ids):
            outputs: list[Any] = []

            def record(output: Any) -> Any:
                outputs.append(output)
                return output

            with self._intercepted(record):
                self._model(token_ids, training=False)
            return outputs

        return lambda token_ids: embed(tf.constant(token_ids))

    def _function(self, replaced: tuple[int, ...]) -> Callable:
        """Return the function from token IDs, vectors in place of some outputs and a class to log odds and gradients.

        Args:
            replaced: Numbers of the outputs.
        """

        @tf.function(reduce_retracing=True)
        def gradients(token_ids, vectors, target):
            numbers = iter(range(1 << 30))
            by_number = dict(zip(replaced, vectors, strict=True))
            with tf.GradientTape() as tape:
                tape.watch(vectors)
                with self._intercepted(lambda output: by_number.get(next(numbers), output)):
                    odds = log_odds(self._model(token_ids, training=False), target)
            return odds, tape.gradient(odds, vectors)

        return gradients

    def _intercepted(self, change: Callable[[Any], Any]) -> contextlib.AbstractContextManager[None]:
        """Replace the outputs of the embeddings by a function of them inside the block."""
        return keras_internals.replaced_calls(
            self._layers, lambda _, call, *args, **options: change(call(*args, **options))
        )
