"""The end of a classifier's run: validation and test measured, beside baselines, and the report written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit.evaluation import calibration, metrics, prediction
from dltoolkit.report import write as report
from dltoolkit.report.page import Mistake, Word

if TYPE_CHECKING:
    import keras

    from dltoolkit.run import Run

Part = tuple[np.ndarray, Iterable]  # the labels (n,) of a split, and its batches (inputs, …) in the same order


def measure(model: keras.Model, part: Part, classes: list[str]) -> dict[str, Any]:
    """Return the contract's classification metrics of a model on one split."""
    labels, batches = part
    return metrics.classification(labels, prediction.softmax(prediction.logits(model, batches)), classes)


def conclude(
    run: Run,
    model: keras.Model,
    parts: Mapping[str, Part],
    *,
    baseline: Mapping[str, Mapping[str, Any]],
    mistake: Callable[[int, str, str, float], Mistake],
    samples: Mapping[str, np.ndarray] | None = None,
    words: Mapping[str, Sequence[Word]] | None = None,
) -> None:
    """Calibrate on validation, measure validation and test, once, and write metrics.json and report.html.

    The temperature that calibrates goes into the model's last layer, and model.keras is written again.

    Args:
        run: the run, which is trained.
        model: its best epoch, whose last layer is named ``logits``.
        parts: ``validation`` and ``test``.
        baseline: the scores of models that need no network, on the same test split.
        mistake: ``(position in test, truth, answer, probability)`` to the report's entry.
        samples: pages of pictures for the report, by title.
        words: for each class the words that speak for it most.
    """
    classes = run.classes
    labels, batches = parts["validation"]
    logits = prediction.logits(model, batches)
    temperature = calibration.temperature(logits, labels)
    calibration.divide_logits(model, temperature)
    run.save_model(model)
    run.update(calibration={"temperature": round(temperature, 6)})
    found = {
        "validation": prediction.softmax(logits / temperature),
        "test": prediction.softmax(prediction.logits(model, parts["test"][1])),
    }
    measured = {name: metrics.classification(parts[name][0], found[name], classes) for name in ("test", "validation")}
    run.write_json("metrics.json", {**measured, "baseline": baseline})
    labels, probabilities = parts["test"][0], found["test"]
    answers = probabilities.argmax(axis=1)
    worst = [
        mistake(int(i), classes[labels[i]], classes[answers[i]], float(probabilities[i, answers[i]]))
        for i in metrics.worst_mistakes(labels, probabilities)
    ]
    report.write(
        run,
        mistakes=worst,
        samples=samples,
        reliability=metrics.reliability(labels, probabilities),
        words=words,
    )
