"""The skeleton of an explainer: from inputs to explanations, whatever they are of."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dltoolkit import data_object, files, finetuning, lazy, progress
from dltoolkit.answers import Answers
from dltoolkit.data.labeled import class_index
from dltoolkit.errors import InvalidInput, UserError, did_you_mean
from dltoolkit.evaluation import prediction
from dltoolkit.explanation import answering, faithfulness, methods
from dltoolkit.explanation.explanation import Explanation
from dltoolkit.formatting import counted

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
        self._is_run = hasattr(run, "write_json")  # and no export
        self.has_gradient = hasattr(self.model, "layers")  # a Keras model, and not the file of an export

    @property
    def available(self) -> list[str]:
        """The names of the methods that the model can have."""
        raise NotImplementedError

    def compute(self, method: str, value: Any, targets: Sequence[int]) -> tuple[np.ndarray, Mapping[str, Any]]:
        """Compute what :meth:`attribute` returns, for each class by itself."""
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
        if len(targets) == len(self.labels) == 2 and methods.METHODS[self.kind, method].is_mirrored:
            values, fields = self.compute(method, value, targets[:1])
            return np.concatenate([values, -values]), fields
        return self.compute(method, value, targets)

    def logits(self, values: Sequence[Any]) -> np.ndarray:
        """Return the logits float64 (n, classes) of inputs as the predictor reads them."""
        return answering.logits(self.model, self.predictor.stack(list(values)), self.batch_size)

    def faithfulness(
        self, values: Sequence[Any], attributions: Sequence[np.ndarray], targets: Sequence[int]
    ) -> dict[str, np.ndarray]:
        """Return figures of how faithful attributions are, each (n,), among them "score", which is high if they are.

        Args:
            values: Inputs as the predictor reads them.
            attributions: How much each part of each input speaks for its class.
            targets: Number of the most probable class of each input.
        """
        raise NotImplementedError

    def random_values(self, attribution: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return random values with the shape of an attribution, to which the methods are compared."""
        return rng.normal(size=attribution.shape)

    def examples(self, data: Any = None) -> list[Any]:
        """Return inputs, as the predictor reads them, on which the methods are measured.

        Args:
            data: Other labeled data, as ``--data`` takes them; None for the validation split of the run, with the test
                split after it if there are few.

        Raises:
            UserError: If the data cannot be read, or those of the run have changed.
        """
        if data is not None:
            return self.read_labeled(data)
        splits = self.read_splits()
        is_enough = len(splits.validation) >= faithfulness.EXAMPLES
        rows = splits.validation if is_enough else [*splits.validation, *splits.test]
        values = getattr(splits, f"{self.kind}s")
        return [values[row] for row in rows]

    def read_labeled(self, data: Any) -> list[Any]:
        """Return the inputs of other labeled data, as the predictor reads them.

        Raises:
            UserError: If they cannot be read.
        """
        raise NotImplementedError

    def read_splits(self) -> Any:
        """Read the data of the run again, with their splits.

        Raises:
            UserError: If they cannot be read, or have changed.
        """
        splits = finetuning.tasks.read_data(self.run, self.run.config)
        self.run.check_data(splits.describe())
        return splits

    @property
    def figures_path(self) -> Path | None:
        """The file of the run with the measured figures; None if an export is not in the folder of its run."""
        path = self.run.path
        if self._is_run:
            return path / faithfulness.FILE
        is_inside = path.parent.name == "exports" and (path.parents[1] / "run.json").exists()
        return path.parents[1] / faithfulness.FILE if is_inside else None

    @functools.cached_property
    def model_sha256(self) -> str:
        """The digest of the model of the run, to which the figures belong."""
        return files.sha256(self.run.path / "model.keras") if self._is_run else self.run.info["run"]["model_sha256"]

    def resolve(
        self, method: str, data: str | None = None, *, measures: bool = True
    ) -> tuple[str, Mapping[str, Any] | None]:
        """Return the name of the method that is meant, and its measured figures, or None if there are none.

        Args:
            method: The name, or ``auto`` for the fastest of the most faithful methods, which are measured if they were
                not yet. If they cannot be, a message says so, and ``auto`` is the default.
            data: Other labeled data on which the methods are measured, as ``--data`` takes them.
            measures: Whether ``auto`` measures the methods if they were not yet.

        Raises:
            UserError: If there is no such method, or the model cannot have it.
        """
        resolved = methods.choose(method, self.kind, self.available, has_gradient=self.has_gradient).name
        figures = faithfulness.load(self)
        if data is not None and not self._is_run:
            raise UserError("--data has no effect with an export, whose figures are those of its run: leave it out.")
        if data is not None or (measures and method == methods.AUTO and figures is None and self._is_run):
            figures = self._measure(data, resolved) or figures
        if method == methods.AUTO and figures is not None:
            resolved = faithfulness.choose(figures, self.available, resolved)
        return resolved, faithfulness.of_method(figures, resolved)

    def _measure(self, data: str | None, default: str) -> Mapping[str, Any] | None:
        """Measure the methods and save the figures in the run; a message says why if that cannot be done."""
        try:
            values = faithfulness.sample(self.examples(data))
        except UserError as error:
            if data is not None:
                raise
            progress.note(
                f"The methods are not measured, because the data of the run cannot be read ({str(error).rstrip('.')}): "
                f"{default} is used; --data measures them on other data."
            )
            return None
        progress.note(
            f"Measuring how faithful the methods are on {counted(len(values), self.kind)}, once for this run."
        )
        figures = faithfulness.measure(self, values)
        faithfulness.save(self, figures)
        return figures

    def target(self, label: str | None) -> int | None:
        """Return the number of a class; a UserError names the nearest one if there is no such class."""
        if label is None:
            return None
        if (index := class_index(label, self.labels)) >= 0:
            return index
        raise UserError(f"There is no class '{label}' in {self.run.path}.{did_you_mean(label, self.labels)}")

    @lazy.quiet_tensorflow()
    def explain(
        self, inputs: Any, *, method: str = methods.AUTO, label: str | None = None, data: Any = None
    ) -> Explanation | list[Explanation]:
        """Explain one input or many, as the predictor takes them; one that cannot be read has its ``error``.

        Args:
            inputs: One input or many.
            method: Name of the method, or ``auto``; see :meth:`resolve`.
            label: The class to explain; None for the most probable one of each input.
            data: Other labeled data on which the methods are measured, as ``Config(data=…)`` takes them.
        """
        for name, value in (("method", method), ("label", label)):
            if not isinstance(value, str | None) or (value is None and name == "method"):
                raise UserError(f"{name} takes a name as text, not {value!r}.")
        items, single = self.predictor.split(inputs)
        explanations = list(self.stream(items, method=method, label=label, data=data_object.wrap(data)))
        return explanations[0] if single else explanations

    def stream(
        self,
        items: Iterable[Any],
        *,
        method: str = methods.AUTO,
        label: str | None = None,
        data: str | None = None,
    ) -> Iterator[Explanation]:
        """Yield the explanation of each input as it is ready.

        Args:
            items: The inputs.
            method: Name of the method, or ``auto``; see :meth:`resolve`.
            label: The class to explain; None for the most probable one of each input.
            data: Other labeled data on which the methods are measured, as ``--data`` takes them.
        """
        target = self.target(label)
        name, figures = self.resolve(method, data)
        for number, item in enumerate(items):
            if isinstance(item, InvalidInput):
                yield Explanation(input=item.input, kind=self.kind, error=item.error)
                continue
            try:
                explanation = self.of_item(item, name, target)
            except UserError as error:
                yield Explanation(input=prediction.name_of(item, number), kind=self.kind, error=str(error))
                continue
            text = None if isinstance(item, os.PathLike) else explanation.text
            yield dataclasses.replace(
                explanation,
                input=prediction.name_of(item, number) if text is None else text,
                truth=self._truth(item),
                faithfulness=figures,
            )

    def of_item(self, item: Any, method: str, target: int | None = None) -> Explanation:
        """Return the explanation of an input that the predictor reads, without its name; see :meth:`of_value`.

        Raises:
            UserError: If it cannot be read.
        """
        return self.of_value(self.predictor.read(item), method, target)

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
            signed=methods.METHODS[self.kind, method].signed,
            replacement=methods.METHODS[self.kind, method].replacement,
            **fields,
        )

    def _truth(self, item: Any) -> str | None:
        """Return the class that the folder of a file names, or None."""
        name = Path(item).parent.name if isinstance(item, str | os.PathLike) else ""
        return name if name in self.labels and os.path.isfile(item) else None
