"""Transfer learning in two steps: a linear probe on frozen features, then training of the upper layers as well."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import keras

from dltoolkit import progress
from dltoolkit.evaluation import metrics, prediction
from dltoolkit.evaluation.baseline import Baseline
from dltoolkit.finetuning import linear_probe
from dltoolkit.models import surgery
from dltoolkit.training import selection
from dltoolkit.training.train_spec import TrainSpec

if TYPE_CHECKING:
    from dltoolkit.data.image.dataset import ImageSplits
    from dltoolkit.data.text.dataset import TextSplits
    from dltoolkit.finetuning.task import Task


class Transfer:
    """A pretrained network with a new head, and the two steps that train it.

    Args:
        config: Options with every default resolved.
        task: Image or text classification.
        model: The full network: raw pixels or token IDs in, logits out.
        splits: The data.

    Attributes:
        full_model: The full network.
        probe_scores: Validation accuracy and loss of the linear probe, and the metric that selects, if it is another.
    """

    def __init__(self, config: Any, task: Task, model: keras.Model, splits: ImageSplits | TextSplits):
        linear_probe.import_in_background()
        self.config, self.task, self.full_model, self.splits = config, task, model, splits
        self.head = model.layers[-1]
        self._metric = selection.metric(config)
        task.prepare(config, model, splits)

    @progress.phase("Fitting the linear probe")
    def fit_linear_probe(self, C: float | None = None) -> dict[str, float]:
        """Set the head to a linear probe on the frozen features; return its C and its validation scores.

        Args:
            C: Inverse regularization strength, if a run that is resumed has found it. Otherwise a search selects it,
                which takes at most a third of ``--max-time``.
        """
        classes = len(self.splits.classes)
        train, validation = self.task.features()
        balanced = self.config.class_weights == "balanced"
        limits = {"C": C, "max_seconds": self.config.max_time and self.config.max_time / 3}
        kernel, bias, C = linear_probe.fit(train, validation, classes, balanced=balanced, **limits)
        self.head.set_weights([kernel, bias])
        self._probe_weights = self.task.head_model.get_weights()
        features, labels = validation
        logits = features @ kernel + bias
        loss = self._loss()(keras.ops.one_hot(labels, classes), logits)
        scores = {**metrics.score(labels, logits.argmax(axis=1), classes), "loss": float(loss)}
        self.probe_scores = {name: round(scores[name], 6) for name in dict.fromkeys(("accuracy", self._metric, "loss"))}
        return {"C": C, **self.probe_scores}

    @progress.phase("Testing the linear probe")
    def test_linear_probe(self) -> Baseline:
        """Classify the test split by the linear probe; the network must still hold its weights."""
        rows, batches, remark = self.task.test_batches()
        predicted = prediction.logits(self.task.inference_model(self.full_model), batches).argmax(axis=1)
        note = f"logistic regression on frozen features{remark}"
        return Baseline(rows, self.splits.labels[rows], predicted, len(self.splits.classes), {"note": note})

    def describe_model(self) -> dict[str, Any]:
        """Return name, input shape and numbers of parameters of the network, before training."""
        return {
            "name": self.full_model.name,
            "input_shape": list(self.full_model.input_shape[1:]),
            "parameters": self.full_model.count_params(),
            "trainable_parameters": sum(math.prod(v.shape) for v in self.task.head_model.trainable_variables),
        }

    def select(self, history: list[dict[str, float]]) -> Literal["fine-tuned", "linear_probe"]:
        """Return what is better on validation. If that is the linear probe, the network gets its weights back.

        Args:
            history: Rows of the epochs; none if only the linear probe was fitted.
        """
        words = self._metric.replace("_", " ")
        probe = f"the linear probe (validation {words} {self.probe_scores[self._metric]:.4f})"
        if not history:
            progress.note(f"Fitted {probe}.")
            return "linear_probe"
        best = max(history, key=lambda row: self._rank(row, "validation_"))
        score = best[f"validation_{self._metric}"]
        tuned = f"epoch {best['epoch']:g} of fine-tuning ({score:.4f})"
        if self._rank(best, "validation_") > self._rank(self.probe_scores):
            is_equal = score == self.probe_scores[self._metric]
            better = f"as good as {probe}, but with a lower loss" if is_equal else f"better than {probe}"
            progress.note(f"Selected on validation: {tuned}, which is {better}.")
            return "fine-tuned"
        progress.note(f"Selected on validation: {probe}, because {tuned} is no better.")
        self.restore_linear_probe()
        return "linear_probe"

    def _rank(self, scores: dict[str, float], prefix: str = "") -> tuple[float, float]:
        """Return the score in the metric that selects and, for equal scores, the negative loss; higher is better."""
        loss, score = scores[f"{prefix}loss"], scores[prefix + self._metric]
        return -score if self._metric == "loss" else score, -loss

    def restore_linear_probe(self) -> keras.Model:
        """Set the trainable layers back to the backbone's weights with the linear probe, and return them."""
        self.task.head_model.set_weights(self._probe_weights)
        return self.task.head_model

    def train_spec(self, epochs: int, seconds_before: float) -> TrainSpec:
        """Return the training specification: model, batches and loss.

        Args:
            epochs: Number of epochs if neither ``--epochs`` nor ``--max-time`` is given.
            seconds_before: Seconds that the linear probe took.
        """
        return TrainSpec(
            build_model=self.restore_linear_probe,
            batches=self.task.training_batches,
            validation=self.task.validation_batches,
            train_examples=len(self.splits.train),
            validation_examples=len(self.splits.validation),
            validation_batch_size=self.task.validation_batch_size,
            variable_shapes=self.task.variable_shapes,
            compile=self._compile,
            epochs=epochs,
            seconds_before=seconds_before,
            monitor=selection.monitor(self.config),
            inference_model=lambda head_model: self.task.inference_model(self.full_model),
            validation_views=self.task.validation_views,
        )

    def _loss(self) -> keras.losses.Loss:
        return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=self.config.label_smoothing)

    def _compile(self, head_model: keras.Model, config: Any, batch_size: int, **options: Any) -> Any:
        """Compile with a learning rate that decays from each layer to the one below it (Howard & Ruder 2018)."""
        trainable = [
            [variable for variable in layer.variables if variable.trainable]
            for layer in surgery.flatten_layers(head_model)
        ]
        factors = {
            variable.path: config.layer_decay**depth
            for depth, variables in enumerate(filter(None, reversed(trainable)))
            for variable in variables
        }
        return selection.compile(
            head_model,
            config,
            batch_size,
            classes=len(self.splits.classes),
            loss=self._loss(),
            rate_factors=factors,
            **options,
        )
