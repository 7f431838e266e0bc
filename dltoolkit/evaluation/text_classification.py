"""What classifiers of texts share: they are measured, concluded and asked alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit.data.text import dataset as text
from dltoolkit.data.text import pipeline as text_pipeline
from dltoolkit.data.text.vocabulary import Corpus, Encoder, Vocabulary
from dltoolkit.evaluation import baseline, classification, prediction, word_baseline
from dltoolkit.report import write as report
from dltoolkit.report.page import Word

if TYPE_CHECKING:
    import keras

    from dltoolkit.data.text.dataset import TextSplits
    from dltoolkit.data.text.encoders import TextEncoder
    from dltoolkit.evaluation.prediction import Prediction
    from dltoolkit.run import Run

BATCH = 64
ROUNDED = 16  # to such lengths batches are padded: oneDNN prepares itself for each length, and forgets what is too much
PREDICTED = 1024  # texts answered at a time
SCRATCH_PASSES, SCRATCH_STEPS, SCRATCH_BATCH = 5, (150, 800), 32  # of the network from scratch: fewest and most steps
SCRATCH_RATE = 7e-4
LONGEST = 256  # words of a text that it reads


def conclude(
    run: Run,
    model: keras.Model,
    texts: TextSplits,
    *,
    baselines: Mapping[str, Mapping[str, Any]] | None = None,
    words: Sequence[Sequence[Word]] | None = None,
) -> None:
    """Measure the best epoch beside the baselines, and write metrics.json and report.html.

    Args:
        run: the run, which is trained.
        model: numbers (batch, words) in, logits out of its last layer, ``logits``.
        texts: what it was trained on.
        baselines: others than the commonest class and the linear model.
        words: for each class the words that speak for it most; by default those of the linear model.
    """
    labels, train, test = texts.labels, texts.train, texts.in_order("test")
    linear, its_words = word_baseline.linear(texts.corpus, labels, train, test, texts.classes)
    simple = {"majority": baseline.majority(labels[train], labels[test], texts.classes), "linear": linear}
    classification.conclude(
        run,
        model,
        {name: part(texts, name) for name in ("validation", "test")},
        baseline={**simple, **(baselines or {})},
        mistake=lambda i, truth, answer, probability: report.Mistake(
            texts.names[test[i]], truth, answer, probability, text=texts.texts[test[i]]
        ),
        words=dict(zip(texts.classes, words or its_words, strict=True)),
    )


def scratch(texts: TextSplits, *, seed: int) -> dict[str, Any]:
    """Score a small network of words that is trained from scratch on the same texts, on the test split."""
    import keras

    from dltoolkit.config import OptimizerOptions
    from dltoolkit.models.text import classifiers as networks
    from dltoolkit.training import optimizer

    often = 2 if len(texts.train) > 1000 else 1
    words = Vocabulary.build(texts.corpus, texts.train, size=20_000, minimum=often)
    seen, classes = texts.read_by(Encoder(words, LONGEST)), len(texts.classes)
    keras.utils.set_random_seed(seed)
    model = networks.build("cnn", len(words), classes, longest=LONGEST)
    batch_size = min(SCRATCH_BATCH, len(texts.train))
    fewest, most = SCRATCH_STEPS
    steps = min(most, max(fewest, SCRATCH_PASSES * len(texts.train) // batch_size))
    options = OptimizerOptions(optimizer="adamw", learning_rate=SCRATCH_RATE)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    optimizer.compile(model, options, batch_size, loss=loss, jit_compile=False).steps = steps
    endless = text_pipeline.training_pipeline(seen, batch_size=batch_size, seed=seed)
    model.fit(endless, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0)
    labels, batches = part(seen, "test")
    note = "a small convolutional network of words (Kim 2014) trained from scratch"
    return baseline.scored(prediction.logits(model, batches).argmax(axis=1), labels, classes, note, seed=seed)


def part(texts: TextSplits, name: str) -> classification.Part:
    """The labels of a split, and its batches in the same order."""
    return texts.labels[texts.in_order(name)], text_pipeline.evaluation_pipeline(texts, name, BATCH, ROUNDED)


def evaluate(
    run: Run, read: Callable[[], TextSplits], other: str | None, config: Any, encode: TextEncoder
) -> dict[str, Any]:
    """Measure on the run's own test split, which ``read`` reads again, or on other labelled texts.

    Args:
        run: a classifier's run.
        read: gives the run's own data.
        other: what ``--data`` takes.
        config: says by ``skip_invalid``, ``text_column``, ``label_column`` and ``header`` how to read that.
        encode: makes texts the model's numbers.

    Raises:
        UserError: if the run's data have changed, or the other data hold a class that the run does not know.
    """
    from dltoolkit import progress

    if other is None:
        texts = read()
        run.check_data(texts.describe())
        texts.encoder = encode
        return classification.measure(run.model, part(texts, "test"), run.classes)
    run.warn_of_training_data(other)
    rows, labels, _ = text.labelled(
        other,
        run.classes,
        skip_invalid=config.skip_invalid,
        text_column=config.text_column,
        label_column=config.label_column,
        header=config.header,
        warn=progress.warn,
    )
    packed = encode(Corpus(rows))
    order = packed.shortest_first(np.arange(len(packed)))
    return classification.measure(
        run.model, (labels[order], text_pipeline.in_batches(packed, order, BATCH)), run.classes
    )


def predictions(
    run: Run,
    inputs: Iterable[Any],
    encode: TextEncoder,
    *,
    top_k: int = 5,
    threshold: float = 0.0,
    text_column: str | None = None,
) -> Iterator[Prediction]:
    """Classify texts one after the other, as they come.

    Args:
        run: a classifier's run.
        inputs: texts, files, folders, globs, or tables with a column of texts.
        encode: makes texts the model's numbers.
        top_k: how many classes each answer lists.
        threshold: below this probability the label is ``unsure``.
        text_column: of the tables, by name or position; by default found by its usual names.
    """
    return prediction.answer(
        run.model,
        run.classes,
        text.expand(inputs, text_column=text_column),
        text.read,
        top_k,
        threshold=threshold,
        stack=lambda texts: encode(Corpus(texts)).padded(),
        batch=PREDICTED,
    )
