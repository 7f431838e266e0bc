"""Fine-tuning for image classification: the features of the frozen layers are computed once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from dltoolkit import progress
from dltoolkit.data.image import augment, flips
from dltoolkit.evaluation import image_classification, image_predictor
from dltoolkit.finetuning import feature_cache, loading, unfreeze
from dltoolkit.finetuning.backbone import Backbone
from dltoolkit.finetuning.task import Task
from dltoolkit.models import surgery
from dltoolkit.models.image import classifiers
from dltoolkit.training import selection

if TYPE_CHECKING:
    import tensorflow as tf

    from dltoolkit.data.image.augment import Augment
    from dltoolkit.data.image.dataset import ImageSplits
    from dltoolkit.evaluation.predictor import Predictor
    from dltoolkit.finetuning.feature_cache import CachedFeatures
    from dltoolkit.run import Run

Labeled = tuple[np.ndarray, np.ndarray]  # features (n, units) and labels (n,)
PREDICT_BATCH_SIZE = 256  # cached features per call of the trainable layers


class ImageTask(Task):
    """Images, and a network that is split at one tensor into frozen layers and trainable layers.

    Args:
        backbone: The pretrained network; None for a task that only evaluates and predicts.

    Attributes:
        head_model: The trainable layers, from the output of the frozen ones to the logits.
    """

    name = "image"
    evaluator = image_classification
    validation_batch_size = 1
    variable_shapes = False
    depthwise = True

    def __init__(self, backbone: Backbone | None = None):
        self.backbone = backbone
        self._augment: Augment | None  # set by resolve_augmentation, which comes before prepare

    def build_features(self, config: Any, splits: ImageSplits) -> keras.Model:
        """Return the backbone without its head, batch normalization in inference mode."""
        features = self.backbone.image_features(splits.image_shape)
        surgery.freeze_batch_normalization(features)
        return features

    def freeze(self, config: Any, model: keras.Model) -> None:
        """Freeze nothing here: :meth:`prepare` takes the frozen layers out of training."""

    def resolve_augmentation(self, config: Any, splits: ImageSplits) -> Augment | None:
        """Decide on the augmentation; by default, it flips images if flipping preserves their labels."""
        self._augment = None
        if config.augment:
            flip, reason = flips.resolve(config.flip, splits)
            self._augment = augment.default_augmentation(
                splits.image_shape, flip=flip, flip_reason=reason, strength=config.augment
            )
        return self._augment

    def max_length(self, splits: ImageSplits) -> int:
        return 1

    def save_encoder(self, run: Run, splits: ImageSplits) -> None:
        """Save nothing: images need no encoder."""

    def prepare(self, config: Any, model: keras.Model, splits: ImageSplits) -> None:
        """Split the network and compute the features of its frozen layers."""
        self._splits, self._seed = splits, config.seed
        self._class_weights = splits.balanced_weights() if config.class_weights == "balanced" else None
        self._tta = augment.resolve_tta(config.tta, self._augment)
        head = model.layers[-1]
        fraction = 0.0 if config.method == "linear-probe" else unfreeze.parse(config.unfreeze)
        split_point = surgery.split_point(keras.Model(model.input, head.input), 1.0 if fraction is None else fraction)
        self.head_model = keras.Model(split_point, model.output)
        self._trainable_features = keras.Model(split_point, head.input)
        frozen_backbone = keras.Model(model.input, split_point)
        with progress.counting() as on_progress:
            self._train, self._validation = feature_cache.compute(
                frozen_backbone,
                splits,
                augment_copies=config.augment_copies if self._augment else 1,
                augment=self._augment,
                tta=self._tta,
                seed=config.seed,
                progress=on_progress,
            )

    def features(self) -> tuple[Labeled, Labeled]:
        """Return the input of the head for the training images (all copies) and the validation images.

        With test-time augmentation, the features of a validation image are the mean of those of its views, because the
        head is linear: its logits are the mean of their logits.
        """
        return self._head_input(self._train), self._head_input(self._validation, self.validation_views)

    def _head_input(self, cached: CachedFeatures, views: selection.Views | None = None) -> Labeled:
        if len(self._trainable_features.layers) == 1:  # the head is the only trainable layer
            values = np.asarray(cached.values)
            return values if views is None else values.mean(axis=1, dtype=np.float32), cached.labels
        self._trainable_features.jit_compile = False
        batches = cached.evaluation_batches(PREDICT_BATCH_SIZE)
        if views is None:
            return self._trainable_features.predict(batches, verbose=0), cached.labels
        view_batches = [batches.map(lambda inputs, _, view=view: views(inputs)[view]) for view in range(2)]
        features = [self._trainable_features.predict(each, verbose=0) for each in view_batches]
        return np.mean(features, axis=0), cached.labels

    @property
    def validation_views(self) -> selection.Views | None:
        return selection.stacked_views if self._tta else None

    def training_batches(self, batch_size: int, start_step: int) -> tf.data.Dataset:
        return self._train.training_batches(batch_size, self._seed, start_step, self._class_weights)

    def validation_batches(self, batch_size: int) -> tf.data.Dataset:
        return self._validation.evaluation_batches(batch_size)

    def test_batches(self) -> tuple[np.ndarray, tf.data.Dataset, str]:
        """Return rows and batches of the test split, and an empty note, because all of it is used."""
        return self._splits.test, image_classification.labeled_batches(self._splits, "test")[1], ""

    def inference_model(self, model: keras.Model) -> keras.Model:
        """Return the model that predicts: with ``--tta``, the mean of the image and its mirror image."""
        return classifiers.with_flip_tta(model) if self._tta else model

    def read(self, run: Run, config: Any) -> ImageSplits:
        return loading.load_images(config.resolve(image_size=run.model.input_shape[1]))

    def evaluate(self, run: Run, other: str | None, config: Any) -> dict[str, Any]:
        config = config.resolve(image_size=run.model.input_shape[1])
        return image_classification.evaluate(run, lambda: self.read(run, config), other, config)

    def predictor(self, run: Run) -> Predictor:
        return image_predictor.ImagePredictor(run)
