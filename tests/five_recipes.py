"""Train recipes for twenty steps with settings whose results do not depend on the number of replicas.

    python five_recipes.py DATA OUT DEVICE RECIPE…

DATA holds images.npz, reviews.csv and book.txt; fine-tune starts from the run of image-classifier in ``OUT/../one``.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dltoolkit.recipes import fine_tune, image_classifier, image_gan, sentiment_analyzer, text_generator

from dltoolkit import report
from dltoolkit.evaluation import feature_extractor

RECIPES = {
    "image-classifier": image_classifier,
    "sentiment-analyzer": sentiment_analyzer,
    "text-generator": text_generator,
    "fine-tune": fine_tune,
    "image-gan": image_gan,
}
STEPS = 20


def options(recipe: str, data: Path, out: Path, device: str) -> dict[str, Any]:
    """Return options with a batch size that two and three replicas can share, and without random numbers."""
    shared = {"device": device, "precision": "float32", "seed": 0, "name": "run", "out_dir": str(out), "batch_size": 12}
    images = str(data / "images.npz")
    return (
        shared
        | {
            "image-classifier": {
                "data": images,
                "model": "resnet",
                "widths": (8, 8, 8),
                "optimizer": "sgd",
                "epochs": 2,
            },
            "sentiment-analyzer": {
                "data": str(data / "reviews.csv"),
                "model": "transformer",
                "units": 8,
                "dropout": 0.0,
                "optimizer": "sgd",
                "learning_rate": 5e-3,
                "epochs": 2,
            },
            "text-generator": {
                "data": str(data / "book.txt"),
                "context_length": 16,
                "embedding_dim": 16,
                "layers": 1,
                "ensemble_size": 2,
                "dropout": 0.0,
                "sample_tokens": 10,
                "optimizer": "sgd",
                "steps": STEPS,
            },
            "fine-tune": {
                "data": images,
                "backbone": str(out.parent / "one" / "image-classifier" / "run"),
                "unfreeze": "all",
                "augment": False,
                "optimizer": "sgd",
                "learning_rate": 1e-2,
                "epochs": 2,
            },
            "image-gan": {"data": images, "width": 8, "epochs": 1},
        }[recipe]
    )


def train(data: Path, out: Path, device: str, recipes: Sequence[str]) -> None:
    """Train recipes on a device, without plots."""
    image_gan.MIN_EPOCH_STEPS = feature_extractor.MAX_STEPS = STEPS
    report.page.write = lambda run, *arguments, **fields: run.write("report.html", "")
    for name in recipes:
        recipe = RECIPES[name]
        recipe.train(recipe.Config(**options(name, data, out, device)))


if __name__ == "__main__":
    train(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
