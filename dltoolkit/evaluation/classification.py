"""Evaluation of classifiers: temperature scaling on validation, metrics on validation and test, worst mistakes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit import models, progress
from dltoolkit.evaluation import calibration, metrics, prediction

if TYPE_CHECKING:
    import keras

    from dltoolkit.run import Run

LabeledBatches = tuple[np.ndarray, Iterable]  # labels int (n,) of a split, and batches (inputs, …) in the same order


@dataclass(frozen=True)
class Mistake:
    """A wrong prediction on the test split.

    Attributes:
        name: File name, or another identifier of the example.
        truth: True label.
        predicted: Predicted label.
        probability: Probability of the predicted label, 0 to 1.
        image: Image uint8 (height, width, channels), or None.
        text: Text of the example, or None.
    """

    name: str
    truth: str
    predicted: str
    probability: float
    image: np.ndarray | None = None
    text: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """Metrics and test predictions of a calibrated classifier.

    Attributes:
        metrics: Metrics of the splits ``test`` and ``validation``, as ``metrics.json`` holds them.
        labels: True labels of the test split, int (n,).
        probabilities: Predicted probabilities on the test split, float (n, classes).
        classes: Label of each column of ``probabilities``.
    """

    metrics: dict[str, dict[str, Any]]
    labels: np.ndarray
    probabilities: np.ndarray
    classes: list[str]

    def worst_mistakes(self, describe: Callable[[int], dict[str, Any]]) -> list[Mistake]:
        """Return the wrong predictions with the highest probability, in descending order.

        Args:
            describe: Maps a position in the test split to the ``name`` and the ``image`` or ``text`` of a Mistake.
        """
        predicted = self.probabilities.argmax(axis=1)
        return [
            Mistake(
                truth=self.classes[self.labels[i]],
                predicted=self.classes[predicted[i]],
                probability=float(self.probabilities[i, predicted[i]]),
                **describe(int(i)),
            )
            for i in metrics.worst_mistakes(self.labels, self.probabilities)
        ]


@progress.phase("Evaluating the model")
def measure(
    model: keras.Model, split: LabeledBatches, classes: list[str], known: np.ndarray | None = None
) -> dict[str, Any]:
    """Return the classification metrics of a model on one split; ``known`` is that of :func:`metrics_of`."""
    labels, batches = split
    return metrics_of(labels, prediction.softmax(prediction.logits(model, batches)), classes, known)


def metrics_of(
    labels: np.ndarray, probabilities: np.ndarray, classes: list[str], known: np.ndarray | None = None
) -> dict[str, Any]:
    """Return the classification metrics of predictions, and say how many of them are guesses.

    Args:
        labels: True class indices, int (n,).
        probabilities: Predicted probabilities, float (n, classes).
        classes: Label of each column of ``probabilities``.
        known: Whether the model knows anything in each example, bool (n,). If it does not in some, the metrics have
            the entry ``unknown_inputs``: count, correct_guesses, and accuracy_without_guesses, which counts them as
            wrong.
    """
    measured = metrics.classification(labels, probabilities, classes)
    if known is not None and not known.all():
        correct = probabilities.argmax(axis=1) == labels
        measured["unknown_inputs"] = {
            "count": int((~known).sum()),
            "correct_guesses": int((correct & ~known).sum()),
            "accuracy_without_guesses": float((correct & known).mean()),
        }
    return measured


@progress.phase("Evaluating the model")
def calibrate_and_evaluate(
    run: Run,
    model: keras.Model,
    splits: Mapping[str, LabeledBatches],
    known: Mapping[str, np.ndarray] | None = None,
) -> Evaluation:
    """Fit a temperature on validation, save the calibrated model, and measure validation and test once.

    The temperature is folded into the weights of the last layer, and ``model.keras`` is saved again.

    Args:
        run: Trained run.
        model: Model of the best epoch, whose last layer is named ``logits``.
        splits: Labels and batches of ``validation`` and ``test``.
        known: Whether the model knows anything in each example of these splits; see :func:`metrics_of`.
    """
    classes = run.labels
    model = models.portable.to_keras_layers(model)  # so that what is measured is what is saved
    model.jit_compile = False
    labels, batches = splits["validation"]
    logits = prediction.logits(model, batches)
    temperature = calibration.fit_temperature(logits, labels)
    model = calibration.divide_logits(model, temperature)
    run.save_model(model)
    run.update(calibration={"temperature": round(temperature, 6)})
    probabilities = {
        "test": prediction.softmax(prediction.logits(model, splits["test"][1])),
        "validation": prediction.softmax(logits / temperature),
    }
    measured = {
        name: metrics_of(splits[name][0], p, classes, (known or {}).get(name)) for name, p in probabilities.items()
    }
    return Evaluation(measured, splits["test"][0], probabilities["test"], classes)
