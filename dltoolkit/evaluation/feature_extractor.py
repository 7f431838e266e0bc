"""A small classifier of pictures: its features measure generated pictures, and generated pictures can train it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dltoolkit import cluster
from dltoolkit.data import batches
from dltoolkit.data import disk_cache
from dltoolkit.data.image import augment
from dltoolkit.data.image import dataset as images
from dltoolkit.data.image import pipeline
from dltoolkit.errors import UserError
from dltoolkit.files import atomic_write

if TYPE_CHECKING:
    import keras

    from dltoolkit.data.image.dataset import ImageSplits

WIDTHS = (16, 32, 64)
BATCH = 128
PASSES, FEWEST_STEPS, MOST_STEPS = 10, 300, 800
MOST_TURNED = 10_000  # pictures
VERSION = 1  # of what is trained; raised when that changes, so that kept ones are not taken for it


class Probe:
    """A trained classifier, and what it makes of pictures.

    Args:
        model: as ``vision.build`` made it.
    """

    def __init__(self, model: keras.Model):
        import keras

        self.model = model
        self._inner = keras.Model(model.input, [model.get_layer("logits").input, model.output])
        self._inner.compile(jit_compile=False)

    def features(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return for pictures uint8 (n, h, w, c) float32 features (n, units) and class numbers int (n,)."""
        found, logits = batches.predict_in_batches(lambda some: self._inner.predict_on_batch(some[0]), [pictures], BATCH)
        return found, logits.argmax(axis=1)


def train(
    pictures: np.ndarray,
    labels: np.ndarray,
    classes: list[str],
    *,
    seed: int = 0,
    batch_size: int = BATCH,
    fewest_steps: int = FEWEST_STEPS,
) -> Probe:
    """Train a classifier on pictures uint8 (n, h, w, c) with labels int (n,)."""
    import keras

    from dltoolkit.config import OptimizerOptions
    from dltoolkit.models.image import classifiers as vision
    from dltoolkit.training import optimizer

    everything, none = np.arange(len(pictures)), np.arange(0)
    given = images.ImageSplits(
        images=pictures,
        labels=labels.astype(np.int32),
        names=[],
        train=everything,
        validation=none,
        test=none,
        classes=classes,
        fingerprint="",
        source="",
    )
    keras.utils.set_random_seed(seed)
    model = vision.build("resnet", given.image_shape, len(classes), widths=WIDTHS)
    vision.whiten(model, pictures[:: -(-len(pictures) // 500)])
    batch_size = min(batch_size, len(pictures))
    steps = min(MOST_STEPS, max(fewest_steps, PASSES * len(pictures) // batch_size))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    how = {"jit_compile": False, "steps_per_execution": 10}
    schedule = optimizer.compile(model, OptimizerOptions(optimizer="muon"), batch_size, loss=loss, **how)
    schedule.steps = steps
    gently = augment.default_augmentation(given.image_shape, flip=False)
    endless = pipeline.training_pipeline(given, batch_size=batch_size, seed=seed, augment=gently)
    model.fit(endless, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0)
    return Probe(model)


def turned(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pictures turned by 0, 1, 2 and 3 right angles, and by how many (Gidaris et al. 2018).

    To tell them apart needs features of what they show, where there are no classes to tell apart. Pictures that are
    not square are mirrored instead: not at all, left to right, upside down, both.
    """
    square = pictures.shape[1] == pictures.shape[2]
    ways = [
        np.rot90(pictures, k, (1, 2)) if square else pictures[:, :: 1 - k // 2 * 2, :: 1 - k % 2 * 2] for k in range(4)
    ]
    return np.concatenate(ways), np.repeat(np.arange(4), len(pictures))


def of_data(pictures: ImageSplits, *, seed: int = 0, cache_dir: Path | None = None) -> Probe:
    """Return a classifier trained on the ``train`` part of pictures, kept from an earlier time if there was one.

    Where there is one class only, it tells how a picture was turned.
    """
    from dltoolkit.models.model_file import load_model

    path = (cache_dir or disk_cache.default_folder()) / f"probe-{VERSION}-{pictures.fingerprint}-{seed}.keras"
    if path.exists():
        with contextlib.suppress(UserError):  # damaged: train it again
            return Probe(load_model(path))
    rows = pictures.train
    if len(pictures.classes) > 1:
        probe = train(pictures.images[rows], pictures.labels[rows], pictures.classes, seed=seed)
    else:
        probe = train(*turned(pictures.images[rows[:MOST_TURNED]]), list("0123"), seed=seed)
    if cluster.is_chief():
        with contextlib.suppress(UserError), atomic_write(path, suffix=".keras") as beside:  # a full disk only costs time
            probe.model.save(beside)
    return probe
