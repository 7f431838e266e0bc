"""Images with one informative patch, and a network whose filters match the patches, for tests of explanations."""

from pathlib import Path

import keras
import numpy as np
from conftest import save_image
from dltoolkit.recipes import image_classifier

from dltoolkit import report
from dltoolkit.run import Run

SIDE, PATCH = 16, 4
CLASSES = ("across", "down")
STRIPES = np.indices((PATCH, PATCH)) % 2 * 2 - 1  # (2, 4, 4): stripes across and stripes down, -1 and 1


def patch_image(label: int, number: int) -> tuple[np.ndarray, tuple[slice, slice]]:
    """Return noise, uint8 (16, 16, 1), with stripes of a class in one place, and the place."""
    rng = np.random.default_rng([label, number])
    image = rng.integers(110, 140, (SIDE, SIDE, 1)).astype(np.int64)
    top, left = rng.integers(0, SIDE - PATCH + 1, 2)
    place = slice(top, top + PATCH), slice(left, left + PATCH)
    image[*place, 0] += 90 * STRIPES[label]
    return image.clip(0, 255).astype(np.uint8), place


def write_images(folder: Path, per_class: int) -> Path:
    """Write class folders of images with patches, and return the folder."""
    for label, name in enumerate(CLASSES):
        for number in range(per_class):
            save_image(folder / name / f"{number:03d}.png", patch_image(label, number)[0])
    return folder


def matched_network(*, nested: bool = False) -> keras.Model:
    """Return a network that looks for the two patches, whose classes are the larger of its two answers.

    Args:
        nested: Whether the convolutions are a sequential model inside of the network, as a backbone may be.
    """
    convolutions = [
        keras.layers.Rescaling(1 / 128, offset=-1.0, name="scale"),
        keras.layers.Conv2D(2, PATCH, padding="same", use_bias=False, name="match"),
        keras.layers.ReLU(name="relu"),
    ]
    image = x = keras.Input((SIDE, SIDE, 1), name="image")
    if nested:
        x = keras.Sequential(convolutions, name="backbone")(x)
    else:
        for layer in convolutions:
            x = layer(x)
    x = keras.layers.GlobalMaxPooling2D(name="pool")(x)
    model = keras.Model(image, keras.layers.Dense(2, name="logits")(x), name="matched")
    convolutions[1].set_weights([STRIPES.transpose(1, 2, 0)[:, :, None].astype("float32")])
    model.get_layer("logits").set_weights([np.array([[1.0, -1.0], [-1.0, 1.0]]), np.zeros(2)])
    return model


def finished_run(folder: Path, out_dir: Path, model: keras.Model) -> Run:
    """Return a finished run of image-classifier, with report and predictions, that holds a model without training."""
    config = image_classifier.Config(data=str(folder), out_dir=str(out_dir), seed=0)
    run = Run.create(image_classifier.__file__, config, "patches")
    with run.session():
        splits = image_classifier.build_data(config)
        run.describe_data(splits.describe())
        report.image_classification.evaluate_and_report(run, model, splits)
    return run
