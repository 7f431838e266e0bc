"""Transfer learning in two steps: a linear probe on frozen features, then training of the upper layers as well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras

from dltoolkit.evaluation import baseline, prediction
from dltoolkit.finetuning import linear_probe
from dltoolkit.models import surgery
from dltoolkit.training import optimizer
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
        probe_scores: Validation accuracy and loss of the linear probe.
    """

    def __init__(self, config: Any, task: Task, model: keras.Model, splits: ImageSplits | TextSplits):
        linear_probe.import_in_background()
        self.config, self.task, self.full_model, self.splits = config, task, model, splits
        self.head = model.layers[-1]
        task.prepare(config, model, splits)

    def fit_linear_probe(self) -> dict[str, float]:
        """Set the head to a linear probe on the frozen features; return its C, validation accuracy and loss."""
        classes = len(self.splits.classes)
        train, validation = self.task.features()
        balanced = self.config.class_weights == "balanced"
        kernel, bias, C = linear_probe.fit(train, validation, classes, balanced=balanced)
        self.head.set_weights([kernel, bias])
        self._probe_weights = self.task.head_model.get_weights()
        features, labels = validation
        logits = features @ kernel + bias
        loss = self._loss()(keras.ops.one_hot(labels, classes), logits)
        self.probe_scores = {
            "accuracy": round(float((logits.argmax(axis=1) == labels).mean()), 6),
            "loss": round(float(loss), 6),
        }
        return {"C": C, **self.probe_scores}

    def test_linear_probe(self) -> dict[str, Any]:
        """Score the linear probe on the test split; the network must still hold its weights."""
        labels, batches, remark = self.task.test_batches()
        predicted = prediction.logits(self.full_model, batches).argmax(axis=1)
        note = f"logistic regression on frozen features{remark}"
        return baseline.score(predicted, labels, len(self.splits.classes), note, seed=self.config.seed)

    def restore_linear_probe(self) -> keras.Model:
        """Set the trainable layers back to the backbone's weights with the linear probe, and return them."""
        self.task.head_model.set_weights(self._probe_weights)
        return self.task.head_model

    def is_better(self, history: list[dict[str, float]]) -> bool:
        """Return whether the best epoch beats the linear probe on validation, in accuracy or, if equal, in loss."""
        best = max((row["validation_accuracy"], -row["validation_loss"]) for row in history)
        return best > (self.probe_scores["accuracy"], -self.probe_scores["loss"])

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
            inference_model=lambda head_model: self.full_model,
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
        return optimizer.compile(
            head_model,
            config,
            batch_size,
            loss=self._loss(),
            metrics=["accuracy"],
            rate_factors=factors,
            **options,
        )
