"""Estimates of how long the evaluation after training will take, from small probes, for the plan.

Each function returns a :class:`dltoolkit.plan.Evaluation`, whose ``seconds`` runs the probes: a forward pass of the
model on one batch, and the baselines on a small sample. They take about a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit.data.text.words import TokenizedTexts
from dltoolkit.evaluation import baseline, feature_extractor, gan, language, ngram_baseline
from dltoolkit.formatting import counted
from dltoolkit.models.gan import sampling
from dltoolkit.plan import Evaluation

if TYPE_CHECKING:
    import keras

    from dltoolkit.data.image.dataset import ImageSplits
    from dltoolkit.data.language.corpus import Corpus
    from dltoolkit.data.text.dataset import TextSplits
    from dltoolkit.evaluation.feature_extractor import FeatureExtractor

PROBE_BATCH_SIZE = 32  # examples of a forward pass that is timed
PROBE_TRAIN, PROBE_TEST = 400, 100  # examples that a baseline is fitted to and classifies when it is timed
PROBE_TOKENS = 20_000  # training tokens of the baselines of a language model when they are timed
UNTUNED = 0.3  # time of a linear baseline whose C is not tuned, as a fraction of the time with tuning
BACKWARD = 3  # time of a training step as a multiple of the time of its forward pass
FROM_SCRATCH_SECONDS = 10.0  # time of the small network that fine-tuning trains for comparison
REPORT_SECONDS = 4.0  # time of the plots and the page, and of the compilation of the prediction


def of_images(splits: ImageSplits, what: str = "", *, extra_seconds: float = 0.0, test_passes: int = 1) -> Evaluation:
    """Return the evaluation of an image classifier.

    Args:
        splits: The images.
        what: Further baselines.
        extra_seconds: Time that the further baselines take, apart from classifying the test split.
        test_passes: Number of times that a network of this size classifies the test split.
    """

    def seconds(model: keras.Model) -> float:
        rows = splits.validation[:PROBE_BATCH_SIZE]
        forward = _timed(lambda: model(splits.images[rows], training=False)) / len(rows)
        count = len(splits.validation) + test_passes * len(splits.test)
        linear = _linear_seconds(splits, baseline.MAX_TUNED, lambda train, test: _fit_pixels(splits, train, test))
        return count * forward + linear + extra_seconds + REPORT_SECONDS

    return Evaluation(_describe(splits, what), seconds)


def of_texts(splits: TextSplits, what: str = "", *, extra_seconds: float = 0.0, test_passes: int = 1) -> Evaluation:
    """Return the evaluation of a text classifier; the arguments are those of :func:`of_images`."""

    def seconds(model: keras.Model) -> float:
        rows = splits.sort_by_length("validation")
        rows = rows[len(rows) // 2 :][:PROBE_BATCH_SIZE]  # of medium length
        token_ids = splits.token_ids.take(rows).to_padded()
        forward = _timed(lambda: model(token_ids, training=False)) / token_ids.size
        tokens = splits.token_ids.lengths[np.concatenate([splits.validation, *[splits.test] * test_passes])].sum()
        linear = _linear_seconds(splits, ngram_baseline.MAX_TUNED, lambda train, test: _fit_ngrams(splits, train, test))
        return tokens * forward + linear + extra_seconds + REPORT_SECONDS

    return Evaluation(_describe(splits, what), seconds)


def of_corpus(corpus: Corpus, context_length: int) -> Evaluation:
    """Return the evaluation of a language model."""
    splits = [split for split in ("test", "validation") if split in corpus.splits]
    tokens = {split: len(corpus.split(split)) for split in ("train", *splits)}

    def seconds(model: keras.Model) -> float:
        batch = np.asarray(corpus.split("train")[: PROBE_BATCH_SIZE * context_length], np.int32)
        batch = batch[: len(batch) // context_length * context_length].reshape(-1, context_length)
        forward = _timed(lambda: model(batch, training=False)) / batch.size
        train, scored = corpus.split("train")[:PROBE_TOKENS], corpus.split(splits[0])[: PROBE_TOKENS // 4]
        vocab_size, text = corpus.tokenizer.vocab_size, corpus.tokenizer.decode(scored)
        start = time.monotonic()
        language.baselines(train, scored, len(text), vocab_size, text)
        read = min(tokens["train"], language.MAX_COUNTED) + tokens[splits[0]]
        baselines = (time.monotonic() - start) * read / (len(train) + len(scored))
        # the scored windows overlap by half, so each token is read twice
        return 2 * sum(tokens[split] for split in splits) * forward + baselines + REPORT_SECONDS

    counts = " and ".join(f"{tokens[split]:,} {split}" for split in splits)
    return Evaluation(f"{counts} tokens, unigram, n-gram and gzip baselines, report", seconds)


def of_gan(splits: ImageSplits, extractor: FeatureExtractor, conditional: bool) -> Evaluation:
    """Return the evaluation of a generator, of which the training of a classifier on its images takes longest."""
    steps, size = extractor.limited_steps, feature_extractor.BATCH_SIZE
    train = min(len(splits.train), steps * size) if steps else len(splits.train)
    steps = steps or min(feature_extractor.MAX_STEPS, max(feature_extractor.MIN_STEPS, 10 * train // size))

    def seconds(generator: keras.Model) -> float:
        latents = [sampling.sample_latents(PROBE_BATCH_SIZE, 0), np.zeros(PROBE_BATCH_SIZE, np.int32)]
        inputs = latents if len(generator.inputs) > 1 else latents[0]
        sample = _timed(lambda: generator(inputs, training=False)) / PROBE_BATCH_SIZE
        images = splits.images[splits.train[:size]]
        features, _ = extractor.features(images)
        forward = _timed(lambda: extractor.features(images)) / len(images)
        compared = min(len(splits.test), gan.MAX_COMPARED) / len(features)
        compare = _timed(lambda: gan.compare(features, features, features)) * compared**2
        generated, read = len(splits.test) + train * conditional, len(splits.train) + 2 * len(splits.test)
        fit = BACKWARD * forward * steps * min(size, train) * conditional
        return sample * generated + forward * read + compare + fit + 2 * REPORT_SECONDS

    what = f"generated images compared with {counted(len(splits.test), 'test image')}"
    if conditional:
        what += f", classifier trained on {counted(train, 'generated image')} in {counted(steps, 'step')}"
    return Evaluation(f"{what}, report", seconds)


def _describe(splits: ImageSplits | TextSplits, what: str) -> str:
    count = f"{len(splits.test):,} test and {counted(len(splits.validation), f'validation {splits.noun}')}"
    return f"{count}, majority-class and linear baselines{f', {what}' if what else ''}, report"


def _timed(function: Callable[[], Any]) -> float:
    """Return the seconds of the second call of a function; the first one prepares the kernels."""
    function()
    start = time.monotonic()
    function()
    return time.monotonic() - start


def _linear_seconds(
    splits: ImageSplits | TextSplits, max_tuned: int, fit: Callable[[np.ndarray, np.ndarray], Any]
) -> float:
    """Return the estimated seconds of a linear baseline, whose time is proportional to the number of examples."""
    import sklearn.linear_model  # noqa: F401  (its import is not a part of the probe)

    rng = np.random.default_rng(0)
    train = rng.permutation(splits.train)[:PROBE_TRAIN]
    start = time.monotonic()
    fit(np.sort(train), np.sort(rng.permutation(splits.test)[:PROBE_TEST]))
    seconds = (time.monotonic() - start) * len(splits.train) / len(train)
    return seconds * UNTUNED if len(splits.train) > max_tuned else seconds


def _fit_pixels(splits: ImageSplits, train: np.ndarray, test: np.ndarray) -> None:
    images, labels = splits.images, splits.labels
    baseline.linear(images, labels[train], images, labels[test], splits.classes, train_rows=train, test_rows=test)


def _fit_ngrams(splits: TextSplits, train: np.ndarray, test: np.ndarray) -> None:
    rows = np.concatenate([train, test])
    numbers = np.arange(len(rows))
    tokenized, labels = TokenizedTexts([splits.texts[row] for row in rows]), splits.labels[rows]
    ngram_baseline.linear(tokenized, labels, numbers[: len(train)], numbers[len(train) :], splits.classes)
