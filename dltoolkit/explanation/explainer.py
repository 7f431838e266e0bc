"""The skeleton of an explainer: from inputs to explanations, whatever they are of."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dltoolkit import lazy
from dltoolkit.answers import Answers
from dltoolkit.data.labeled import class_index
from dltoolkit.errors import InvalidInput, UserError, did_you_mean
from dltoolkit.evaluation import prediction
from dltoolkit.explanation import answering, methods
from dltoolkit.explanation.explanation import Explanation

TOP = 5  # most probable classes that an explanation lists


class Explainer:
    """What explains the answers of a classifier; a subclass says what an input is.

    Args:
        run: A run of a classifier, or an export of one.

    Attributes:
        kind: "image" or "text".
    """

    kind = ""

    def __init__(self, run: Answers):
        self.run, self.labels = run, list(run.labels)
        self.predictor = run.verb("predictor")(run)
        self.model, self.batch_size = self.predictor.model, self.predictor.batch_size
        self.has_gradient = hasattr(self.model, "layers")  # a Keras model, and not the file of an export

    @property
    def available(self) -> list[str]:
        """The names of the methods that the model can have."""
        raise NotImplementedError

    def attribute(self, method: str, value: Any, targets: Sequence[int]) -> tuple[np.ndarray, Mapping[str, Any]]:
        """Return how much each part of an input speaks for each class.

        Args:
            method: Name of a method of :attr:`available`.
            value: The input as the predictor reads it.
            targets: Numbers of the classes.

        Returns:
            The values, float32 (targets, …), and further fields of the :class:`Explanation`, such as the image.
        """
        raise NotImplementedError

    def logits(self, values: Sequence[Any]) -> np.ndarray:
        """Return the logits float64 (n, classes) of inputs as the predictor reads them."""
        return answering.logits(self.model, self.predictor.stack(list(values)), self.batch_size)

    def resolve(self, method: str) -> tuple[str, Mapping[str, Any] | None]:
        """Return the name of the method that is meant, and its measured figures, or None if there are none.

        Raises:
            UserError: If there is no such method, or the model cannot have it.
        """
        return methods.choose(method, self.kind, self.available).name, None

    def target(self, label: str | None) -> int | None:
        """Return the number of a class; a UserError names the nearest one if there is no such class."""
        if label is None:
            return None
        if (index := class_index(label, self.labels)) >= 0:
            return index
        raise UserError(f"There is no class '{label}' in {self.run.path}.{did_you_mean(label, self.labels)}")

    @lazy.quiet_tensorflow()
    def explain(
        self, inputs: Any, *, method: str = methods.AUTO, label: str | None = None
    ) -> Explanation | list[Explanation]:
        """Explain one input or many, as the predictor takes them; one that cannot be read has its ``error``."""
        items, single = self.predictor.split(inputs)
        explanations = list(self.stream(items, method=method, label=label))
        return explanations[0] if single else explanations

    def stream(
        self, items: Iterable[Any], *, method: str = methods.AUTO, label: str | None = None
    ) -> Iterator[Explanation]:
        """Yield the explanation of each input as it is ready."""
        target = self.target(label)
        name, figures = self.resolve(method)
        for number, item in enumerate(items):
            if isinstance(item, InvalidInput):
                yield Explanation(input=item.input, kind=self.kind, error=item.error)
                continue
            try:
                value = self.predictor.read(item)
                explanation = self.of_value(value, name, target)
            except UserError as error:
                yield Explanation(input=prediction.name_of(item, number), kind=self.kind, error=str(error))
                continue
            is_text = isinstance(value, str) and not isinstance(item, os.PathLike)
            yield dataclasses.replace(
                explanation,
                input=value if is_text else prediction.name_of(item, number),
                truth=self._truth(item),
                faithfulness=figures,
            )

    def of_value(self, value: Any, method: str, target: int | None = None) -> Explanation:
        """Return the explanation of an input that was read, without its name.

        Args:
            value: The input as the predictor reads it.
            method: Name of a method of :attr:`available`.
            target: Number of the class; None for the most probable one.
        """
        probabilities = prediction.softmax(self.logits([value]))[0]
        order = np.argsort(-probabilities, kind="stable")
        target = int(order[0]) if target is None else target
        others = [int(i) for i in order if i != target]
        targets = [target, *others[:1]]
        values, fields = self.attribute(method, value, targets)
        listed = order[:TOP].tolist()
        return Explanation(
            input="",
            kind=self.kind,
            label=self.labels[target],
            probability=round(float(probabilities[target]), 6),
            runner_up=self.labels[others[0]] if others else None,
            top=[{"label": self.labels[i], "probability": round(float(probabilities[i]), 6)} for i in listed],
            values=values[0],
            runner_up_values=values[1] if others else None,
            method=method,
            signed=methods.METHODS[method].signed,
            replacement=methods.METHODS[method].replacement,
            **fields,
        )

    def _truth(self, item: Any) -> str | None:
        """Return the class that the folder of a file names, or None."""
        name = Path(item).parent.name if isinstance(item, str | os.PathLike) else ""
        return name if name in self.labels and os.path.isfile(item) else None
