"""Fine-tuning for text classification: texts of similar length share a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from dltoolkit import progress
from dltoolkit.data.text import encoders
from dltoolkit.data.text import pipeline as text_pipeline
from dltoolkit.errors import UserError
from dltoolkit.evaluation import text_classification, text_predictor
from dltoolkit.evaluation.text_classification import BATCH_SIZE, LENGTH_MULTIPLE
from dltoolkit.finetuning import loading, unfreeze
from dltoolkit.finetuning.backbone import Backbone
from dltoolkit.finetuning.task import Task
from dltoolkit.formatting import percent
from dltoolkit.models import surgery

if TYPE_CHECKING:
    import tensorflow as tf

    from dltoolkit.data.text.dataset import TextSplits
    from dltoolkit.evaluation.predictor import Predictor
    from dltoolkit.run import Run

Labeled = tuple[np.ndarray, np.ndarray]  # features (n, units) and labels (n,)
MAX_UNKNOWN = 0.5  # fraction of unknown tokens of the training texts above which a warning says so
MAX_PROBE_TOKENS = 250_000  # tokens of a split that the linear probe is fitted or measured on, for speed


class TextTask(Task):
    """Texts, and a network whose lower layers may be frozen.

    Args:
        backbone: The pretrained network; None for a task that only evaluates and predicts.

    Attributes:
        head_model: The full network, because the frozen layers run in every step.
    """

    name = "text"
    evaluator = text_classification
    validation_batch_size = BATCH_SIZE
    variable_shapes = True
    validation_views = None
    depthwise = False

    def __init__(self, backbone: Backbone | None = None):
        self.backbone = backbone

    def build_features(self, config: Any, splits: TextSplits) -> keras.Model:
        """Return the backbone without its head, and give the texts the encoder that belongs to it."""
        backbone = self.backbone.text_features(config.max_length, config.dropout)
        splits.encoder = backbone.encoder
        unknown = splits.unknown()
        if unknown and unknown["fraction"] == 1:
            raise UserError(
                f"{self.backbone.name} knows none of the {unknown['unit']} of the training texts, so all texts look "
                "alike to it: give --backbone a network whose vocabulary fits these texts."
            )
        if backbone.encoder.mask_token_id is None and config.token_dropout != type(config).token_dropout:
            raise UserError(f"{self.backbone.name} has no mask token, so it cannot use --token-dropout: leave it out.")
        return backbone.with_token_dropout(config.token_dropout)

    def freeze(self, config: Any, model: keras.Model) -> None:
        """Freeze the layers below those that ``--unfreeze`` names; a linear probe freezes all but the head."""
        if config.method != "lora":
            fraction = unfreeze.parse(config.unfreeze) if config.method == "full" else 0.0
            surgery.freeze_lower_layers(model, fraction)

    def resolve_augmentation(self, config: Any, splits: TextSplits) -> None:
        """Return None: the network masks tokens itself."""

    def max_length(self, splits: TextSplits) -> int:
        return int(splits.token_ids.lengths.max())

    def save_encoder(self, run: Run, splits: TextSplits) -> None:
        if run.writes:
            splits.encoder.save(run.path)
        description, before, unknown = splits.describe(), run.info["data"], splits.unknown()
        if unknown and unknown["fraction"] > MAX_UNKNOWN:
            description["warnings"] = [
                *description["warnings"],
                f"{self.backbone.name} does not know {percent(unknown['fraction'])} of the {unknown['unit']} of the "
                "training texts, so it reads little of them: give --backbone a network whose vocabulary fits them.",
            ]
        run.update(max_length=splits.encoder.max_length, data={**before, **description})
        for warning in description["warnings"] if run.writes else ():
            if warning not in before["warnings"]:
                progress.warn(warning)

    def prepare(self, config: Any, model: keras.Model, splits: TextSplits) -> None:
        """Take a network, token IDs in and logits out, and the texts."""
        self._splits, self._seed = splits, config.seed
        self._class_weights = splits.balanced_weights() if config.class_weights == "balanced" else None
        self.head_model = model
        self._features = keras.Model(model.input, model.layers[-1].input)

    def features(self) -> tuple[Labeled, Labeled]:
        """Return the input of the head for a sample of the training texts and of the validation texts."""
        self._features.jit_compile = False
        return tuple(self._predict_features(split) for split in ("train", "validation"))

    def _predict_features(self, split: str) -> Labeled:
        rows = self.sample(split)
        with progress.counting() as on_progress:
            callback = keras.callbacks.LambdaCallback(
                on_predict_batch_end=lambda batch, logs: on_progress(
                    f"computing {split} features", min(len(rows), BATCH_SIZE * (batch + 1)), len(rows)
                )
            )
            batches = text_pipeline.rows_pipeline(self._splits, rows, BATCH_SIZE, LENGTH_MULTIPLE)
            return self._features.predict(batches, verbose=0, callbacks=[callback]), self._splits.labels[rows]

    def sample(self, split: str) -> np.ndarray:
        """Return a random sample of a split with ``MAX_PROBE_TOKENS`` tokens in all, the shortest texts first."""
        rows = np.random.default_rng(self._seed).permutation(getattr(self._splits, split))
        total_lengths = np.cumsum(self._splits.token_ids.lengths[rows])
        count = max(1, int(np.searchsorted(total_lengths, MAX_PROBE_TOKENS)))
        return self._splits.token_ids.sort_by_length(rows[:count])

    def training_batches(self, batch_size: int, start_step: int) -> tf.data.Dataset:
        return text_pipeline.training_pipeline(
            self._splits,
            batch_size=batch_size,
            seed=self._seed,
            class_weights=self._class_weights,
            start_step=start_step,
            length_multiple=LENGTH_MULTIPLE,
        )

    def validation_batches(self, batch_size: int) -> tf.data.Dataset:
        return text_pipeline.evaluation_pipeline(self._splits, "validation", batch_size, LENGTH_MULTIPLE)

    def test_batches(self) -> tuple[np.ndarray, tf.data.Dataset, str]:
        """Return rows and batches of a sample of the test texts, and a note if that is not all of them."""
        rows, total = self.sample("test"), len(self._splits.test)
        note = f", on {len(rows):,} of the {total:,} test texts" if len(rows) < total else ""
        batches = text_pipeline.rows_pipeline(self._splits, rows, BATCH_SIZE, LENGTH_MULTIPLE)
        return rows, batches, note

    def inference_model(self, model: keras.Model) -> keras.Model:
        return model

    def read(self, run: Run, config: Any) -> TextSplits:
        return loading.load_texts(config)

    def evaluate(self, run: Run, other: str | None, config: Any) -> dict[str, Any]:
        return text_classification.evaluate(run, lambda: self.read(run, config), other, config, load_encoder(run))

    def predictor(self, run: Run) -> Predictor:
        return text_predictor.TextPredictor(run, load_encoder(run))


def load_encoder(run: Run) -> encoders.TextEncoder:
    """Return the encoder that turns texts into the token IDs of a run's network.

    Raises:
        UserError: If it is missing or damaged.
    """
    return encoders.load(run.path, run.info["max_length"])
