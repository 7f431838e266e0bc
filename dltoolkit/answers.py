"""What a run and an export of it have in common: the answers of their recipe."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

from dltoolkit.errors import UserError


class Answers:
    """The verbs of a trained model, which its recipe implements.

    Attributes:
        info: What run.json or export.json says.
        recipe: Module of the recipe.
        labels: Names of the classes.
        model: What answers, from raw inputs to logits or images.
    """

    info: dict[str, Any]
    recipe: Any
    labels: list[str]
    model: Any

    def predict(self, inputs: Any, **options: Any) -> Any:
        """Classify one input or many: one gives a :class:`dltoolkit.Prediction`, many give a list of the same length.

        For a classifier of texts, a ``str`` is a text, whatever it holds; a file with one text is a ``pathlib.Path``.
        For a classifier of images, an image is a path, the bytes of a file, a Pillow image, or an array or tensor
        (height, width) or (height, width, channels). Many inputs are a list, an iterator, a column of a DataFrame, or
        an array with one more axis. An input that is missing (None, NaN) or cannot be read gets a prediction with its
        ``error``, in its place.

        Args:
            inputs: One input or many.
            options: ``top_k`` (number of classes that each prediction lists, 5 by default) and ``threshold``
                (probability below which the label is ``unsure``).

        Raises:
            UserError: If the run is not a classifier.
        """
        return self.verb("predict")(self, inputs, **options)

    def explain(self, inputs: Any, **options: Any) -> Any:
        """Explain the answer to one input or to many: which pixels or words speak for a class, and which against it.

        Args:
            inputs: One input or many, as :meth:`predict` takes them.
            options: ``method`` (``auto`` by default) and ``label`` (the class; by default the most probable one).

        Returns:
            An :class:`Explanation` for one input, or a list of them for many.

        Raises:
            UserError: If there is no such method or class, or nothing explains the run.
        """
        return self.explainer.explain(inputs, **options)

    @functools.cached_property
    def explainer(self) -> Any:
        """What explains the answers; its functions are compiled once."""
        explaining = importlib.import_module("dltoolkit.explanation.explaining")  # by name, because it uses this module
        return explaining.explainer(self)

    def predict_proba(self, inputs: Any) -> np.ndarray:
        """Return the probabilities of :attr:`labels`, float32 (n, labels), for inputs as :meth:`predict` takes them.

        Raises:
            UserError: If an input cannot be read, or the run is not a classifier.
        """
        return self.verb("predictor")(self).predict_proba(inputs)

    def embed(self, inputs: Any) -> np.ndarray:
        """Return the input of the last dense layer, float32 (n, features), for inputs as :meth:`predict` takes them.

        Raises:
            UserError: If an input cannot be read, the model has no dense layer, or the run is not a classifier.
        """
        return self.verb("predictor")(self).embed(inputs)

    def preprocess(self, inputs: Any) -> np.ndarray:
        """Return inputs as :attr:`model` takes them: ``run.model(run.preprocess(inputs))`` are the logits.

        Args:
            inputs: One input or many, as :meth:`predict` takes them.

        Returns:
            Pixels uint8 (n, height, width, channels), or token IDs int32 (n, time).

        Raises:
            UserError: If an input cannot be read, or the run is not a classifier.
        """
        return self.verb("predictor")(self).preprocess(inputs)

    def has_verb(self, name: str) -> bool:
        """Return whether the recipe has a function of this name."""
        return hasattr(self.recipe, name)

    def verb(self, name: str) -> Any:
        """Return the recipe's function of this name.

        Raises:
            UserError: If the recipe has no such function.
        """
        if not self.has_verb(name):
            other = "generate" if name.startswith("predict") else "predict"
            hint = f": use 'dltoolkit {other}'" if self.has_verb(other) else ""
            raise UserError(f"A run of {self.info['recipe']} does not support this{hint}.")
        return getattr(self.recipe, name)

    def generate(self, *inputs: Any, **options: Any) -> Any:
        """Return the continuations of prompts, or the images, that the recipe's ``generate`` returns.

        Raises:
            UserError: If the recipe does not generate anything.
        """
        return self.verb("generate")(self, *inputs, **options)

    def stream_text(self, prompts: Sequence[str] = ("",), **options: Any) -> Iterator[list[str]]:
        """Continue prompts like :meth:`generate`, but yield the new text of each prompt while it is generated."""
        return self.verb("stream_text")(self, prompts, **options)
