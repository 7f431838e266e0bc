"""The interface of the tasks of transfer learning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf

    from dltoolkit.data.image.augment import Augment
    from dltoolkit.data.image.dataset import ImageSplits
    from dltoolkit.data.text.dataset import TextSplits
    from dltoolkit.evaluation.predictor import Predictor
    from dltoolkit.finetuning.backbone import Backbone
    from dltoolkit.run import Run
    from dltoolkit.training.selection import Views

    Splits = ImageSplits | TextSplits
    Labeled = tuple[np.ndarray, np.ndarray]  # features (n, units) and labels (n,)


class Task(Protocol):
    """Image or text classification by transfer learning.

    Attributes:
        name: The task, as ``run.json`` calls it.
        evaluator: The module that evaluates such classifiers.
        backbone: The pretrained network; None for a task that only evaluates and predicts.
        head_model: The layers that training runs, up to the logits; set by :meth:`prepare`.
        validation_batch_size: Minimum number of examples per validation batch.
        validation_views: Maps the inputs of a validation batch to the views whose logits are averaged; None without
            test-time augmentation.
        variable_shapes: Whether batches differ in shape.
        depthwise: Whether the network may hold depthwise convolutions.
    """

    name: Literal["image", "text"]
    evaluator: Any
    backbone: Backbone | None
    head_model: keras.Model
    validation_batch_size: int
    validation_views: Views | None
    variable_shapes: bool
    depthwise: bool

    def build_features(self, config: Any, splits: Splits) -> keras.Model:
        """Return the backbone without its head, from raw pixels or token IDs to features (batch, units)."""

    def freeze(self, config: Any, model: keras.Model) -> None:
        """Freeze the layers of a network that run in every step but are not trained."""

    def resolve_augmentation(self, config: Any, splits: Splits) -> Augment | None:
        """Decide on the augmentation of the training images, which :meth:`prepare` uses, and return it."""

    def max_length(self, splits: Splits) -> int:
        """Return the tokens of the longest text; 1 for images."""

    def save_encoder(self, run: Run, splits: Splits) -> None:
        """Save the encoder of the inputs in the run."""

    def prepare(self, config: Any, model: keras.Model, splits: Splits) -> None:
        """Take the full network, raw pixels or token IDs in and logits out, and the data.

        Args:
            config: Options with every default resolved.
            model: The full network.
            splits: The data.
        """

    def features(self) -> tuple[Labeled, Labeled]:
        """Return the input of the head and the labels, for training and for validation."""

    def training_batches(self, batch_size: int, start_step: int) -> tf.data.Dataset:
        """Return endless batches for ``head_model`` from a step on."""

    def validation_batches(self, batch_size: int) -> tf.data.Dataset:
        """Return one pass over the validation split for ``head_model``."""

    def test_batches(self) -> tuple[np.ndarray, tf.data.Dataset, str]:
        """Return rows of the test split, their batches for the full network, and a note if they are a sample."""

    def inference_model(self, model: keras.Model) -> keras.Model:
        """Return the model that predicts, with test-time augmentation if the options ask for it."""

    def read(self, run: Run, config: Any) -> Splits:
        """Read the data of a run again, without its backbone."""

    def evaluate(self, run: Run, other: str | None, config: Any) -> dict[str, Any]:
        """Evaluate a run on its test split, or on ``other``, a value of ``--data``, read as the options say."""

    def predictor(self, run: Run) -> Predictor:
        """Return the classifier of a run, which reads inputs as in training."""
