"""The task of a fine-tuning run, image or text classification, which the data decide."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, Protocol

from dltoolkit import data, finetuning
from dltoolkit.errors import UserError

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf

    from dltoolkit.data.image.dataset import ImageSplits
    from dltoolkit.data.text.dataset import TextSplits
    from dltoolkit.evaluation.prediction import Prediction
    from dltoolkit.finetuning.backbone import Backbone
    from dltoolkit.run import Run

    Splits = ImageSplits | TextSplits
    Labeled = tuple[np.ndarray, np.ndarray]  # features (n, units) and labels (n,)

LOOP_OPTIONS = ("epochs", "max_time", "patience", "optimizer", "weight_decay", "ema_decay")  # of every recipe


class Task(Protocol):
    """What transfer learning needs to know about images or texts.

    Attributes:
        name: The task, as ``run.json`` calls it.
        evaluator: The module that evaluates such classifiers.
        backbone: The pretrained network; None for a task that only evaluates and predicts.
        head_model: The layers that training runs, up to the logits; set by :meth:`prepare`.
        validation_batch_size: Minimum number of examples per validation batch.
        variable_shapes: Whether batches differ in shape.
        depthwise: Whether the network may hold depthwise convolutions.
    """

    name: Literal["image", "text"]
    evaluator: Any
    backbone: Backbone | None
    head_model: keras.Model
    validation_batch_size: int
    variable_shapes: bool
    depthwise: bool

    def load_data(self, config: Any) -> Splits:
        """Read, check and split the data."""

    def build_features(self, config: Any, splits: Splits) -> keras.Model:
        """Return the backbone without its head, from raw pixels or token IDs to features (batch, units)."""

    def freeze(self, config: Any, model: keras.Model) -> None:
        """Freeze the layers of a network that run in every step but are not trained."""

    def max_length(self, splits: Splits) -> int:
        """Return the tokens of the longest text; 1 for images."""

    def save_encoder(self, run: Run, splits: Splits) -> None:
        """Save in the run what turns an input into the numbers that its network takes."""

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
        """Return test labels and batches for the full network, and a note if they are a sample of the test split."""

    def inference_model(self, config: Any, model: keras.Model) -> keras.Model:
        """Return the model that predicts."""

    def evaluate(self, run: Run, other: str | None, config: Any) -> dict[str, Any]:
        """Evaluate a run on its test split, or on ``other``, a value of ``--data``, read as the options say."""

    def predict(self, run: Run, inputs: Iterable[Any], text_column: str | None, **options: Any) -> Iterator[Prediction]:
        """Classify inputs as they come; see the recipe's ``stream_predictions``."""


def create(config: Any) -> Task:
    """Resolve ``--backbone``, find out whether the data are images or texts, and refuse options that have no effect.

    Args:
        config: The options of the fine-tuning recipe.

    Raises:
        UserError: If there is no such backbone, it does not read such data, or an option has no effect on them.
    """
    backbone = finetuning.backbone.resolve(
        config.backbone, weights=config.weights, out_dir=config.out_dir, seed=config.seed
    )
    if config.image_column or config.text_column:
        name = "image" if config.image_column else "text"
    else:
        name = data.task.detect(data.readers.source.resolve(config.data))
    if name not in backbone.reads:
        cannot = f", which {config.backbone} cannot read" if config.backbone else ""
        raise UserError(
            f"{config.data} holds {name}s{cannot}: give --backbone a KerasHub preset or its folder, or a run of "
            "sentiment-analyzer or text-generator."
        )
    config.refuse_ignored(**{"task": name, "the backbone": backbone.kind})
    if name == "text" and config.method == "lora" and config.unfreeze is not None:
        raise UserError("--unfreeze has no effect on texts with --method lora, which adapts every layer: leave it out.")
    if config.method == "linear-probe":
        for option in LOOP_OPTIONS:
            if getattr(config, option) != getattr(type(config), option):
                flag = "--" + option.replace("_", "-")
                raise UserError(f"{flag} has no effect with --method linear-probe: leave it out.")
    return _task_class(name)(backbone)


def of_run(run: Run) -> Task:
    """Return the task of a run, for evaluation and prediction."""
    return _task_class(run.info["task"])()


def _task_class(name: str) -> type[Task]:
    return finetuning.image_task.ImageTask if name == "image" else finetuning.text_task.TextTask
