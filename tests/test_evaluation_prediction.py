"""Predictions for streams of inputs."""

from pathlib import Path

import numpy as np
import pytest

from dltoolkit.errors import InvalidInput, UserError
from dltoolkit.evaluation import prediction

CLASSES = ["a", "b", "c"]


class Identity:
    """A model whose logits are its inputs; it counts its batches."""

    def __init__(self):
        self.batches = []

    def predict_on_batch(self, x: np.ndarray) -> np.ndarray:
        self.batches.append(len(x))
        return x


def read(item) -> np.ndarray:
    if isinstance(item, str | Path):
        raise UserError(f"{item} cannot be read")
    return np.asarray(item, np.float32)


def test_softmax_is_stable_and_sums_to_one():
    probabilities = prediction.softmax(np.array([[1000.0, 1000.0], [0.0, np.log(3.0)]], np.float32))
    assert probabilities == pytest.approx(np.array([[0.5, 0.5], [0.25, 0.75]]))


def test_classify_keeps_the_order_and_reports_errors_in_their_place():
    inputs = [[0, 1, 2], "missing.png", np.array([5, 0, 0]), InvalidInput("table.csv:3", "no text"), Path("folder")]
    predictions = list(prediction.classify(Identity(), CLASSES, inputs, read, top_k=2))
    assert [p.label for p in predictions] == ["c", None, "a", None, None]
    assert [p.input for p in predictions] == ["list 0", "missing.png", "array 2", "table.csv:3", "folder"]
    assert predictions[1].to_dict() == {"input": "missing.png", "error": "missing.png cannot be read"}
    assert predictions[3].error == "no text"
    first = predictions[0].to_dict()
    assert [entry["label"] for entry in first["top"]] == ["c", "b"]
    assert first["probability"] == first["top"][0]["probability"] == pytest.approx(0.665241)


def test_classify_is_unsure_below_the_threshold():
    inputs = [[0, 0, 0], [9, 0, 0]]
    predictions = list(prediction.classify(Identity(), CLASSES, inputs, read, top_k=1, threshold=0.5))
    assert [p.label for p in predictions] == ["unsure", "a"]
    assert predictions[0].top[0]["label"] == "a"


def test_classify_answers_full_batches_and_waiting_inputs_at_flush():
    model, inputs = Identity(), [[1, 0, 0]] * 5 + [prediction.FLUSH] + [[0, 1, 0]]
    stream = prediction.classify(model, CLASSES, iter(inputs), read, top_k=1, batch_size=3)
    assert [p.label for p in stream] == ["a"] * 5 + ["b"]
    assert model.batches == [3, 2, 1]


def test_logits_concatenates_batches():
    batches = [(np.zeros((2, 3)), None), (np.ones((1, 3)), None)]
    assert prediction.logits(Identity(), batches).tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 1]]
