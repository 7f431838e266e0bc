"""The validation metric that selects the epoch of a classifier, and validation with test-time augmentation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from dltoolkit.config import SelectionOptions
from dltoolkit.models import keras_internals
from dltoolkit.training import optimizer

Views = Callable[[tf.Tensor], list[tf.Tensor]]  # returns the variants of a batch of inputs whose logits are averaged


def metric(options: SelectionOptions) -> str:
    """Return the name of the metric that selects the epoch; by default the one that the class weights aim at."""
    return options.metric or ("balanced_accuracy" if options.class_weights == "balanced" else "accuracy")


def monitor(options: SelectionOptions) -> str:
    """Return the column of history.csv that selects the epoch."""
    return f"validation_{metric(options)}"


def compile(
    model: keras.Model, config: SelectionOptions, batch_size: int, *, classes: int, **options: Any
) -> optimizer.WarmupCosine:
    """Compile a classifier with its accuracy and, if it is another one, the metric that selects the epoch.

    Args:
        model: Inputs to logits.
        config: The options, those of the optimizer included.
        batch_size: Examples per step.
        classes: Number of classes.
        options: Further arguments of :func:`dltoolkit.training.optimizer.compile`, such as the loss.

    Returns:
        The schedule of the learning rate.
    """
    counted = {"balanced_accuracy": BalancedAccuracy, "macro_f1": MacroF1}
    metrics = ["accuracy", *(counted[name](classes) for name in [metric(config)] if name in counted)]
    return optimizer.compile(model, config, batch_size, metrics=metrics, **options)


def flipped_views(images: tf.Tensor) -> list[tf.Tensor]:
    """Return a batch of images (batch, h, w, c) and their mirror images."""
    return [images, tf.reverse(images, axis=[2])]


def stacked_views(inputs: tf.Tensor) -> list[tf.Tensor]:
    """Return the two parts of inputs (batch, 2, …) that were stacked beforehand."""
    return tf.unstack(inputs, num=2, axis=1)


def validate_views(model: keras.Model, views: Views) -> keras.Model:
    """Let a model's ``fit`` validate the mean of its logits over several views of each input, and return the model."""
    base = type(model)
    model.__class__ = type(base.__name__, (_ViewsModel, base), {})
    model.validation_views = views
    return model


class _ViewsModel:
    """Mixin for a model that is trained on its inputs as they are, and validated with test-time augmentation."""

    def test_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        logits = tf.reduce_mean([self(view, training=False) for view in self.validation_views(x)], axis=0)
        loss = self.compute_loss(x, y, logits, sample_weight, training=False)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync  # Keras divides the loss by their number
        keras_internals.update_loss_tracker(self, loss * replicas, tf.shape(x)[0])
        return self.compute_metrics(x, y, logits, sample_weight=sample_weight)


class _ClassCounts(keras.metrics.Metric):
    """Base class of metrics that are computed from counts per class.

    The counts are added over batches, replicas and workers, so the metrics are exact on any of them.

    Args:
        classes: Number of classes.
        name: Name of the metric.
    """

    def __init__(self, classes: int, name: str):
        super().__init__(name=name)
        self.classes = classes
        # rows: labels, predictions and correct predictions of each class; float32 counts exactly up to 2 ** 24
        self.counts = self.add_variable((3, classes), "zeros", dtype="float32", name="counts")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Count the labels and the predictions, both (batch, classes), whose largest values name the classes."""
        true, predicted = (tf.one_hot(tf.argmax(values, axis=-1), self.classes) for values in (y_true, y_pred))
        self.counts.assign_add(tf.stack([tf.reduce_sum(rows, axis=0) for rows in (true, predicted, true * predicted)]))

    def result(self):
        labels, predictions, correct = tf.unstack(tf.convert_to_tensor(self.counts.value), num=3)
        numerator, denominator = self._ratio(labels, predictions, correct)
        occurs = tf.cast(denominator > 0, "float32")
        return tf.math.divide_no_nan(
            tf.reduce_sum(tf.math.divide_no_nan(numerator, denominator)), tf.reduce_sum(occurs)
        )

    def _ratio(self, labels, predictions, correct):
        """Return the numerator and the denominator of each class; a class whose denominator is 0 is left out."""
        raise NotImplementedError

    def get_config(self):
        return {"classes": self.classes, "name": self.name}


class BalancedAccuracy(_ClassCounts):
    """The mean recall of the classes that occur, as in scikit-learn and ``evaluation.metrics``."""

    def __init__(self, classes: int, name: str = "balanced_accuracy"):
        super().__init__(classes, name)

    def _ratio(self, labels, predictions, correct):
        return correct, labels


class MacroF1(_ClassCounts):
    """The mean F1 of the classes that occur or are predicted, as in scikit-learn and ``evaluation.metrics``."""

    def __init__(self, classes: int, name: str = "macro_f1"):
        super().__init__(classes, name)

    def _ratio(self, labels, predictions, correct):
        return 2.0 * correct, labels + predictions
