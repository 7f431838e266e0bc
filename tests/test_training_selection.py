"""The metrics that select an epoch, and validation with test-time augmentation."""

from dataclasses import dataclass

import keras
import numpy as np
import pytest
import tensorflow as tf

from dltoolkit import evaluation
from dltoolkit.config import OptimizerOptions, SelectionOptions
from dltoolkit.training import selection


@dataclass(frozen=True, kw_only=True)
class Config(OptimizerOptions, SelectionOptions):
    """The options of a classifier that its training reads."""


METRICS = {"balanced_accuracy": selection.BalancedAccuracy, "macro_f1": selection.MacroF1}


@pytest.mark.parametrize(
    ("options", "monitor"),
    [
        ({}, "validation_accuracy"),
        ({"class_weights": "balanced"}, "validation_balanced_accuracy"),
        ({"class_weights": "balanced", "metric": "accuracy"}, "validation_accuracy"),
        ({"metric": "macro_f1"}, "validation_macro_f1"),
        ({"metric": "loss"}, "validation_loss"),
    ],
)
def test_monitor_is_the_metric_that_the_run_is_asked_to_be_good_at(options, monitor):
    assert selection.monitor(SelectionOptions(**options)) == monitor


@pytest.mark.parametrize("name", METRICS)
def test_metrics_over_batches_equal_those_of_the_evaluation(name):
    """Class 3 is predicted but absent, and class 4 is neither, as in a small validation split."""
    rng = np.random.default_rng(0)
    labels, predictions = rng.choice(5, 60, p=[0.6, 0.3, 0.1, 0, 0]), rng.choice(5, 60, p=[0.5, 0.3, 0.15, 0.05, 0])
    metric, one_hot = METRICS[name](5), np.eye(5, dtype="float32")
    for start in range(0, 60, 25):
        batch = slice(start, start + 25)
        metric.update_state(one_hot[labels[batch]], 3 * one_hot[predictions[batch]] - 7)
    assert float(metric.result()) == pytest.approx(evaluation.metrics.score(labels, predictions, 5)[name])
    metric.reset_state()
    assert float(metric.result()) == 0


@pytest.mark.parametrize("xla", [False, True])
def test_validate_views_averages_the_logits_of_both_views(xla):
    """The loss and the accuracy of fit's validation are those of the model that averages an image and its mirror."""
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(12, 4, 4, 1)).astype("float32"), np.eye(3, dtype="float32")[np.arange(12) % 3]
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(keras.layers.Flatten()(inputs)))
    model = selection.validate_views(model, selection.flipped_views)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    selection.compile(
        model, Config(optimizer="sgd", metric="balanced_accuracy"), 4, classes=3, loss=loss, jit_compile=xla
    )
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)
    measured = model.evaluate(batches, return_dict=True, verbose=0)
    logits = (model.predict(images, verbose=0) + model.predict(images[:, :, ::-1], verbose=0)) / 2
    assert measured["loss"] == pytest.approx(float(loss(labels, logits)), rel=1e-5)
    scores = evaluation.metrics.score(labels.argmax(axis=1), logits.argmax(axis=1), 3)
    assert measured["balanced_accuracy"] == pytest.approx(scores["balanced_accuracy"])
    assert measured["accuracy"] == pytest.approx(scores["accuracy"])
