"""Train every recipe for twenty steps where the arithmetic does not depend on how many share it.

    python five_recipes.py DATA OUT DEVICE

DATA holds pictures.npz, reviews.csv and book.txt; fine-tune goes on from the classifier in ``OUT/../one``.
"""

import sys
from pathlib import Path

from dltoolkit.recipes import fine_tune, image_classifier, image_gan, sentiment_analyzer, text_generator

from dltoolkit.evaluation import feature_extractor as probe
from dltoolkit.run import Run

STEPS = 20


def train(data: Path, out: Path, device: str) -> list[Run]:
    """Train all five on a device, each with batches that two and three replicas can share, and return the runs."""
    pictures, same = str(data / "pictures.npz"), {"device": device, "precision": "float32", "seed": 0, "name": "run"}
    plain = {**same, "optimizer": "sgd", "epochs": 2, "out_dir": str(out)}
    classifier = image_classifier.Config(data=pictures, batch_size=12, model="resnet", widths=(8, 8, 8), **plain)
    reviews = sentiment_analyzer.Config(
        data=str(data / "reviews.csv"),
        batch_size=12,
        model="transformer",
        learning_rate=5e-3,
        units=8,
        dropout=0.0,
        **plain,
    )
    writer = text_generator.Config(
        data=str(data / "book.txt"),
        batch_size=12,
        context_length=16,
        embedding_dim=16,
        layers=1,
        ensemble_size=2,
        dropout=0.0,
        sample_tokens=10,
        steps=STEPS,
        **{**plain, "epochs": None},
    )
    start = str(out.parent / "one" / "image-classifier" / "run")
    tuned = fine_tune.Config(
        data=pictures, backbone=start, batch_size=12, learning_rate=1e-2, unfreeze="all", augment=False, **plain
    )
    image_gan.SHORTEST_EPOCH = probe.MOST_STEPS = STEPS
    artist = image_gan.Config(data=pictures, batch_size=12, width=8, **{**plain, "optimizer": "adam", "epochs": 1})
    return [
        image_classifier.train(classifier),
        sentiment_analyzer.train(reviews),
        text_generator.train(writer),
        fine_tune.train(tuned),
        image_gan.train(artist),
    ]


if __name__ == "__main__":
    train(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
