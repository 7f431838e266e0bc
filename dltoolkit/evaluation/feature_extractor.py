"""A small image classifier, whose features measure generated images, and which generated images can train."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dltoolkit import cluster, progress
from dltoolkit.data import batches, disk_cache
from dltoolkit.data.image import augment, dataset, pipeline
from dltoolkit.errors import UserError
from dltoolkit.files import atomic_write

if TYPE_CHECKING:
    import keras

    from dltoolkit.data.image.dataset import ImageSplits
    from dltoolkit.run import Run

WIDTHS = (16, 32, 64)  # channels of the stages; small, because the network is trained for each data set
BATCH_SIZE = 128
EPOCHS, MIN_STEPS, MAX_STEPS = 10, 300, 800  # training takes this many epochs within these bounds
FILE = "feature_extractor.keras"  # a classifier in a run directory whose training a time limit has shortened
MAX_ROTATED = 10_000  # images that are rotated; each becomes four
WHITENING_IMAGES = 500  # training images from which the first layer is initialized
CACHE_VERSION = 1  # raised whenever training changes, so that older classifiers in the cache are ignored


class FeatureExtractor:
    """A trained classifier that returns features and predicted classes of images.

    Args:
        model: Model of :func:`dltoolkit.models.image.classifiers.build`.
        limited_steps: Number of its training steps if a time limit has reduced it, otherwise None.
    """

    def __init__(self, model: keras.Model, limited_steps: int | None = None):
        import keras

        self.model, self.limited_steps = model, limited_steps
        self._features_and_logits = keras.Model(model.input, [model.get_layer("logits").input, model.output])
        self._features_and_logits.jit_compile = False

    def features(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return features float32 (n, units) and predicted class numbers int (n,) of images uint8 (n, h, w, c)."""
        features, logits = batches.predict_in_batches(
            lambda inputs: self._features_and_logits.predict_on_batch(inputs[0]), [images], BATCH_SIZE
        )
        return features, logits.argmax(axis=1)


def train(
    images: np.ndarray,
    labels: np.ndarray,
    classes: list[str],
    *,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    min_steps: int = MIN_STEPS,
    max_steps: int | None = None,
    max_seconds: float | None = None,
) -> FeatureExtractor:
    """Train a classifier.

    Args:
        images: Training images uint8 (n, h, w, c).
        labels: Class numbers int (n,).
        classes: Class names.
        seed: Seed of the weights, the order and the augmentation.
        batch_size: Images per step.
        min_steps: Minimum number of training steps.
        max_steps: Maximum number of training steps, by default :data:`MAX_STEPS`.
        max_seconds: Time limit, see :class:`dltoolkit.training.time_limit.TimeLimit`.
    """
    import keras

    from dltoolkit.config import OptimizerOptions
    from dltoolkit.models.image import classifiers
    from dltoolkit.training import optimizer
    from dltoolkit.training.time_limit import TimeLimit

    splits = dataset.ImageSplits.for_training(images, labels, classes)
    keras.utils.set_random_seed(seed)
    with _float32():
        model = classifiers.build("resnet", splits.image_shape, len(classes), widths=WIDTHS)
    classifiers.whiten(model, images[:: -(-len(images) // WHITENING_IMAGES)])
    batch_size = min(batch_size, len(images))
    steps = min(max_steps or MAX_STEPS, max(min_steps, EPOCHS * len(images) // batch_size))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    options = {"jit_compile": False, "steps_per_execution": 10}
    schedule = optimizer.compile(model, OptimizerOptions(optimizer="muon"), batch_size, loss=loss, **options)
    schedule.steps = steps
    shifts = augment.default_augmentation(splits.image_shape, flip=False)
    training = pipeline.training_pipeline(splits, batch_size=batch_size, seed=seed, augment=shifts)
    limit = TimeLimit(schedule, max_seconds)
    with progress.phase("Training a small classifier for comparison"):
        model.fit(training, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0, callbacks=[limit])
    return FeatureExtractor(model, limit.limited_steps)


@contextlib.contextmanager
def _float32() -> Iterator[None]:
    """Build layers in float32, so that a classifier is the same during and after a training in another precision."""
    import keras

    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)


def rotation_pretext(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return images rotated by 0, 90, 180 and 270 degrees, and the number of the rotation (Gidaris et al. 2018).

    A classifier of the rotations learns features of images without labels. Images that are not square are flipped
    instead: not at all, horizontally, vertically, and in both directions.
    """
    square = images.shape[1] == images.shape[2]
    copies = [
        np.rot90(images, k, (1, 2)) if square else images[:, :: 1 - k // 2 * 2, :: 1 - k % 2 * 2] for k in range(4)
    ]
    return np.concatenate(copies), np.repeat(np.arange(4), len(images))


def for_run(run: Run, splits: ImageSplits, max_time: float | None = None) -> FeatureExtractor:
    """Return the classifier with which a run compares images: from its directory, from the cache, or a new one.

    Args:
        run: Run of a generator.
        splits: Images that the run is trained on.
        max_time: Time limit of training; the training of a new classifier takes at most a quarter of it. A classifier
            that it shortens is saved in the run, so that each evaluation of the run uses the same one.
    """
    from dltoolkit.models.model_file import load_model

    path = run.path / FILE
    if path.exists():
        return FeatureExtractor(load_model(path), run.info["plan"]["extractor_steps"])
    extractor = for_dataset(splits, max_seconds=max_time and max_time / 4)
    if extractor.limited_steps and run.writes:
        run.update(plan={"extractor_steps": extractor.limited_steps})
        with atomic_write(path, suffix=".keras") as target:
            extractor.model.save(target)
    return extractor


def for_dataset(
    splits: ImageSplits, *, seed: int = 0, cache_dir: Path | None = None, max_seconds: float | None = None
) -> FeatureExtractor:
    """Return a classifier trained on the training split, from the cache if possible.

    If there is only one class, the classifier predicts the rotation of an image.

    Args:
        splits: Images and labels.
        seed: Seed of the training.
        cache_dir: Folder of the cache.
        max_seconds: Time limit of the training, see :func:`train`. A classifier that it shortens is not cached.
    """
    from dltoolkit.models.model_file import load_model

    content = hashlib.blake2b(splits.train_hashes.tobytes(), digest_size=8).hexdigest()  # depends on --image-size
    name = f"feature-extractor-{CACHE_VERSION}-{splits.fingerprint}-{content}-{seed}.keras"
    path = (cache_dir or disk_cache.default_folder()) / name
    if path.exists():
        with contextlib.suppress(UserError):  # a damaged file is replaced by a new one
            return FeatureExtractor(load_model(path))
    rows = splits.train
    if len(splits.classes) > 1:
        data = splits.images[rows], splits.labels[rows], splits.classes
    else:
        data = *rotation_pretext(splits.images[rows[:MAX_ROTATED]]), list("0123")
    extractor = train(*data, seed=seed, max_seconds=max_seconds)
    if cluster.is_chief() and not extractor.limited_steps:
        with contextlib.suppress(UserError), atomic_write(path, suffix=".keras") as target:
            extractor.model.save(target)  # if the disk is full, the next run trains the classifier again
    return extractor
