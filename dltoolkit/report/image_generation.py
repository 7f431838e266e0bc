"""Samples of a GAN during training, and the last step of its training: evaluation and report."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from dltoolkit import progress
from dltoolkit.evaluation import gan
from dltoolkit.models.gan import sampling
from dltoolkit.report import image_grids, page

if TYPE_CHECKING:
    import keras

    from dltoolkit.data.image.dataset import ImageSplits
    from dltoolkit.evaluation.feature_extractor import FeatureExtractor
    from dltoolkit.run import Run

GRID = 64  # images in a grid of samples
COMPARED = 16  # generated images that are shown next to the nearest training images


def sampler(run: Run, splits: ImageSplits, *, stop_on_collapse: bool) -> Callable[[keras.Model, int], bool]:
    """Return a function that writes samples after each epoch, and warns of a collapse.

    The samples are a grid of generated images in ``samples/``; every epoch uses the same latents and labels.

    Args:
        run: The run.
        splits: Images that the run is trained on.
        stop_on_collapse: Whether a collapse stops the training.
    """

    def on_epoch_end(model: keras.Model, epoch: int) -> bool:
        images = _generate_grid(run, model.inference_generator(), splits)
        run.write(f"samples/epoch-{epoch:04}.png", image_grids.image_grid(images))
        warning = gan.find_collapse(run.history)
        if warning:
            progress.warn(warning)
        return bool(warning) and stop_on_collapse

    return on_epoch_end


def evaluate_and_report(run: Run, generator: keras.Model, splits: ImageSplits, extractor: FeatureExtractor) -> None:
    """Evaluate a generator next to the real images, and write metrics.json, samples/training.gif and report.html.

    Args:
        run: Trained run, with grids of generated images in ``samples/``.
        generator: Generator of the best epoch.
        splits: Images that the run was trained on.
        extractor: Classifier of the same data, whose features are compared.
    """
    real = splits.images[splits.test], splits.labels[splits.test]
    train_features, _ = extractor.features(splits.images[splits.train])
    metrics = gan.evaluate(run, generator, splits, extractor, train_features, real)
    baseline = metrics.pop("baseline")
    run.write_json("metrics.json", {"test": metrics, "baseline": baseline})
    generated = _generate_grid(run, generator, splits)
    compared = generated[:: GRID // COMPARED]
    rows, _ = gan.nearest(extractor.features(compared)[0], train_features)
    nearest = splits.images[splits.train[rows]]
    frames = sorted((run.path / "samples").glob("epoch-*.png"))
    run.write("samples/training.gif", image_grids.animation([path.read_bytes() for path in frames]))
    page.write(run, samples={"generated": generated, "nearest": (compared, nearest)})


def _generate_grid(run: Run, generator: keras.Model, splits: ImageSplits) -> np.ndarray:
    """Generate images uint8 (GRID, height, width, channels), sorted by class, with equal numbers of each class."""
    labels = np.sort(np.arange(GRID) % len(splits.classes))
    return sampling.sample_images(generator, GRID, labels=labels, seed=run.config.seed)
