"""What the recipes that classify pictures share once there is a model: measuring it, and answering with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from dltoolkit.data import pipeline
from dltoolkit.data.image import dataset as images
from dltoolkit.evaluation import baseline, classification, prediction
from dltoolkit.report import write as report

if TYPE_CHECKING:
    from dltoolkit.data.image.dataset import ImageSplits
    from dltoolkit.evaluation.prediction import Prediction
    from dltoolkit.run import Run

MOST_PIXELS = 1 << 20  # of the pictures that are answered together: a network makes a thousand times as many bytes
SMALL = 32  # pixels a side of the pictures that a network from scratch sees
SCRATCH_STEPS = 150  # that it is trained for at least


def conclude(
    run: Run,
    model: keras.Model,
    pictures: ImageSplits,
    *,
    baselines: Mapping[str, Mapping[str, Any]] | None = None,
    samples: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Measure a run's best model beside the baselines, and write metrics.json and report.html.

    Args:
        run: the run, which is trained.
        model: raw pixels in, logits out of a last layer named ``logits``.
        pictures: what it was trained on.
        baselines: scores on the same test split beside those of the majority class and of a linear model of pixels.
        samples: pages of pictures for the report, by title.
    """
    labels, train, test = pictures.labels, pictures.train, pictures.test
    simple = {
        "majority": baseline.majority(labels[train], labels[test], pictures.classes),
        "linear": baseline.linear(
            pictures.images,
            labels[train],
            pictures.images,
            labels[test],
            pictures.classes,
            train_rows=train,
            test_rows=test,
        ),
    }
    classification.conclude(
        run,
        model,
        {name: part(pictures, name) for name in ("validation", "test")},
        baseline={**simple, **(baselines or {})},
        mistake=lambda i, truth, answer, probability: report.Mistake(
            pictures.names[test[i]], truth, answer, probability, image=pictures.images[test[i]]
        ),
        samples=samples,
    )


def scratch(pictures: ImageSplits, *, seed: int) -> dict[str, Any]:
    """Score a small network that is trained from scratch on the same pictures, averaged down, on the test split."""
    from dltoolkit.evaluation import feature_extractor as probe

    train, test = (small(pictures, getattr(pictures, name)) for name in ("train", "test"))
    labels = pictures.labels
    found = probe.train(
        train, labels[pictures.train], pictures.classes, seed=seed, batch_size=32, fewest_steps=SCRATCH_STEPS
    )
    note = f"a small residual network trained from scratch on pictures of {train.shape[2]}x{train.shape[1]}"
    _, answers = found.features(test)
    return baseline.scored(answers, labels[pictures.test], len(pictures.classes), note, seed=seed)


def at_once(shape: tuple[int, ...]) -> int:
    """How many pictures (height, width, channels) are answered together."""
    return max(16, min(256, MOST_PIXELS // (shape[0] * shape[1])))


def small(pictures: ImageSplits, rows: np.ndarray) -> np.ndarray:
    """Return pictures uint8 (n, h, w, c), large ones averaged down to no more than 32 pixels a side."""
    shape = tuple(min(side, SMALL) for side in pictures.image_shape[:2])
    if shape == pictures.image_shape[:2]:
        return pictures.images[rows]
    blocks = np.split(rows, range(256, len(rows), 256))
    shrunk = [keras.ops.image.resize(pictures.images[block], shape, antialias=True) for block in blocks]
    return np.concatenate([np.clip(np.rint(some), 0, 255).astype(np.uint8) for some in shrunk])


def part(pictures: ImageSplits, name: str) -> classification.Part:
    """The labels of a split, and its batches in the same order."""
    return pictures.labels[getattr(pictures, name)], pipeline.evaluation_pipeline(
        pictures, name, at_once(pictures.image_shape)
    )


def evaluate(run: Run, read: Callable[[], ImageSplits], other: str | None, config: Any) -> dict[str, Any]:
    """Measure on the run's own test split, which ``read`` reads again, or on other labelled pictures.

    Args:
        run: a classifier's run.
        read: gives the run's own data.
        other: what ``--data`` takes.
        config: says how to read that.

    Raises:
        UserError: if the run's data have changed, or the other data hold a class that the run does not know.
    """
    if other is None:
        pictures = read()
        run.check_data(pictures.describe())
        return classification.measure(run.model, part(pictures, "test"), run.classes)
    found, labels = labelled(run, other, run.model.input_shape[1:], config)
    size = at_once(found.shape[1:])
    batches = ((found[i : i + size],) for i in range(0, len(found), size))
    return classification.measure(run.model, (labels, batches), run.classes)


def labelled(run: Run, other: str, shape: tuple[int, int, int], config: Any) -> tuple[np.ndarray, np.ndarray]:
    """Read other pictures of a run's classes: uint8 (n, *shape) and class numbers int (n,).

    Args:
        run: whose classes the labels are.
        other: what ``--data`` takes.
        shape: (height, width, channels) to bring them to.
        config: says by ``skip_invalid``, ``image_column``, ``label_column`` and ``header`` how to read them.
    """
    from dltoolkit import progress

    run.warn_of_training_data(other)
    found, labels, _ = images.labelled(
        other,
        run.classes,
        shape,
        skip_invalid=config.skip_invalid,
        image_column=config.image_column,
        label_column=config.label_column,
        header=config.header,
        warn=progress.warn,
    )
    return found, labels


def predictions(
    run: Run, inputs: Iterable[str | np.ndarray], *, top_k: int = 5, threshold: float = 0.0
) -> Iterator[Prediction]:
    """Classify pictures one after the other, as they come.

    Args:
        run: a classifier's run.
        inputs: paths, folders, globs, or arrays (h, w), (h, w, c), uint8 or 0..255.
        top_k: how many classes each answer lists.
        threshold: below this probability the label is ``unsure``.
    """
    shape = run.model.input_shape[1:]
    return prediction.answer(
        run.model,
        run.classes,
        images.expand(inputs),
        lambda item: images.read(item, shape),
        top_k,
        threshold=threshold,
        batch=at_once(shape),
    )
