"""Train a text classifier, for sentiment or any other labels, from scratch on reviews, tweets, sentences or files.

dltoolkit train sentiment-analyzer --data ~/reviews.csv --model ngram
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from dltoolkit import data, evaluation, models, progress, report, training
from dltoolkit.config import OptimizerOptions, RunConfig, option
from dltoolkit.data.text.vocabulary import Encoder, Vocabulary, log_count_ratios
from dltoolkit.run import Run

if TYPE_CHECKING:
    import keras

    from dltoolkit.data.text.dataset import TextSplits
    from dltoolkit.evaluation.prediction import Prediction

VOCABULARY = "vocabulary.txt"
FEW = 10_000  # training texts, up to which every word counts and steps are small


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig, OptimizerOptions):
    """The options of the sentiment analyzer."""

    data: str = option("reviews", "What to train on: a folder, a table, reviews or a TFDS name.")
    model: Literal["ngram", "cnn", "lstm", "gru", "rnn", "transformer"] = option("ngram", "Network family.")
    optimizer: Literal["auto", "adamw", "adam", "sgd", "muon"] = option(
        "auto", "Optimizer; auto is sgd for ngram and adamw for the others."
    )
    batch_size: int | None = option(
        None, "Texts per step, over all devices together; by default 32, on many texts the family's.", minimum=1
    )
    ngrams: int = option(3, "Most words in a row that ngram knows as one entry.", minimum=1, maximum=3)
    vocab_size: int | None = option(
        None, "Most entries that the model knows; by default 1,000,000 in ngram, 20,000 otherwise.", minimum=10
    )
    min_df: int | None = option(
        None,
        "Training texts in which an entry must occur to be known; by default 1 up to 10,000 texts, or 2.",
        minimum=1,
    )
    prefix_length: int | None = option(
        None,
        "Letters of a word's beginning that are an entry of ngram too, 0 for none; by default 5 up to 10,000 texts.",
        minimum=0,
        maximum=20,
    )
    max_length: int = option(
        400, "Words of a text that are read; of longer ones the middle is left out. ngram reads all.", minimum=4
    )
    embedding_dim: int | None = option(None, "Length of a word's vector; by default the family's.", minimum=1)
    units: int | None = option(None, "Units (or filters) of a layer; by default the family's.", minimum=1)
    layers: int | None = option(None, "Recurrent layers or transformer blocks; by default the family's.", minimum=1)
    dropout: float | None = option(None, "Dropout rate; by default the family's.", minimum=0, maximum=0.9)
    label_smoothing: float = option(0.0, "Share of the target spread over all classes.", minimum=0, maximum=0.9)
    class_weights: Literal["none", "balanced"] = option("none", "Weigh rare classes up in the loss.")
    shots: int | None = option(None, "Train on this many texts of each class only.", minimum=1)
    validation_fraction: float | None = option(
        None, "Share kept for validation, where the data bring none; by default 10 %.", minimum=0.01, maximum=0.5
    )
    test_fraction: float | None = option(
        None, "Share kept for the test, where the data bring none; by default 15 %.", minimum=0.01, maximum=0.5
    )
    text_column: str | None = option(None, "Column of a table that holds the texts.")
    label_column: str | None = option(None, "Column of a table that holds the labels.")
    header: bool | None = option(None, "Whether a table begins with column names; by default recognised.")
    skip_invalid: bool = option(False, "Leave out texts that are empty, unreadable or without a label.")


def build_data(config: Config) -> TextSplits:
    """Read, check and split the texts, and choose the vocabulary from the training texts alone."""
    with progress.counting() as on_progress:
        texts = data.text.dataset.load(
            config.data,
            seed=config.seed,
            validation_fraction=config.validation_fraction or 0.1,
            test_fraction=config.test_fraction,
            limit=config.limit,
            shots=config.shots,
            skip_invalid=config.skip_invalid,
            text_column=config.text_column,
            label_column=config.label_column,
            header=config.header,
            progress=on_progress,
        )
    bag, few = config.model == "ngram", len(texts.train) <= FEW
    prefix_length = config.prefix_length if config.prefix_length is not None else 5 if few else 0
    vocabulary = Vocabulary.build(
        texts.corpus,
        texts.train,
        ngrams=config.ngrams if bag else 1,
        size=config.vocab_size or (1_000_000 if bag else 20_000),
        minimum=config.min_df or (1 if few else 2),
        letters=prefix_length if bag else 0,
    )
    texts.encoder = encoder(config, vocabulary)
    return texts


def encoder(config: Config, vocabulary: Vocabulary) -> Encoder:
    """What makes texts the model's numbers: a bag of n-grams, or words in order."""
    return Encoder(vocabulary, None if config.model == "ngram" else config.max_length)


def build_model(config: Config, texts: TextSplits) -> keras.Model:
    """Numbers of words or n-grams int32 (batch, words) in, logits (batch, classes) out."""
    size, classes = len(texts.encoder.vocabulary), len(texts.classes)
    model = models.text.classifiers.build(
        config.model,
        size,
        classes,
        longest=config.max_length,
        embedding_dim=config.embedding_dim,
        units=config.units,
        layers=config.layers,
        dropout=config.dropout,
    )
    if config.model == "ngram":
        known = texts.packed.take(texts.train)
        ratios = log_count_ratios(known, texts.labels[texts.train], size, classes)
        models.text.classifiers.set_naive_bayes(model, ratios, len(known.numbers) / len(known))
    return model


def train(config: Config = Config(), *, resume: Run | None = None) -> Run:
    """Split, train, keep the best epoch by validation, test once, report.

    Args:
        config: the options.
        resume: a run of this recipe to go on with, instead of a new one.
    """
    run = resume or Run.create(__file__, config, data.readers.source.resolve(config.data).name)
    with run.session():
        training.distribute.strategy.devices(config.device)  # before anything starts TensorFlow
        texts = build_data(config)
        run.describe_data(texts.describe(), texts.findings)
        run.write(VOCABULARY, texts.encoder.vocabulary.text())
        model = training.fit.fit(run, suited(config, len(texts.train)), job(config, texts))
        evaluate_and_report(run, model, texts)
    return run


def suited(config: Config, examples: int) -> Config:
    """Choose optimizer, learning rate and batch size where nothing was said, for so many training texts.

    ngram needs plain gradients: multiplied by an entry's ratio, they leave entries that say little almost alone, which
    Adam's division by their size would undo.
    """
    ngram = config.model == "ngram"
    many = {"ngram": 256, "transformer": 64}.get(config.model, 128)
    batch_size = config.batch_size or (many if examples > FEW else 32)
    if config.optimizer != "auto":
        return replace(config, batch_size=batch_size)
    rate = (0.5 if ngram else 2e-3) * math.sqrt(batch_size / 256)
    return replace(
        config,
        batch_size=batch_size,
        optimizer="sgd" if ngram else "adamw",
        learning_rate=config.learning_rate or rate,
    )


def job(config: Config, texts: TextSplits) -> training.fit.Job:
    """Say what the training loop needs: model, batches, loss."""
    import keras

    weights = texts.balanced_weights() if config.class_weights == "balanced" else None
    return training.fit.Job(
        build_model=lambda: build_model(config, texts),
        batches=lambda batch_size, start: data.text.pipeline.training_pipeline(
            texts, batch_size=batch_size, seed=config.seed, class_weights=weights, start_step=start
        ),
        validation=lambda batch_size: data.text.pipeline.evaluation_pipeline(texts, "validation", batch_size),
        examples=len(texts.train),
        validation_examples=len(texts.validation),
        compile=functools.partial(
            training.optimizer.compile,
            loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=config.label_smoothing),
            metrics=["accuracy"],
        ),
        epochs=min(10, max(4, 100_000 // len(texts.train))),
        varying=True,
    )


def evaluate_and_report(run: Run, model: keras.Model, texts: TextSplits) -> None:
    """Evaluate the best epoch next to the baselines, and write metrics.json and report.html."""
    top_features = None
    if run.config.model == "ngram":
        train_bags = texts.packed.take(texts.train)
        top_features = evaluation.ngram_baseline.top_features(
            texts.encoder.vocabulary, models.text.classifiers.weights(model), train_bags
        )
    report.text_classification.evaluate_and_report(run, model, texts, top_features=top_features)


def evaluate(run: Run, other: str | None = None, **reading: Any) -> dict[str, Any]:
    """Measure on the run's own test split, or on other labelled texts; shaped like ``metrics["test"]``.

    Args:
        run: a run of this recipe.
        other: what ``--data`` takes.
        reading: ``skip_invalid``, ``text_column``, ``label_column`` or ``header``, where they differ from the run's own.

    Raises:
        UserError: if the run's data have changed, or the other data hold a class that the run does not know.
    """
    config = replace(run.config, **reading)
    return evaluation.text_classification.evaluate(run, lambda: build_data(config), other, config, saved_encoder(run))


def predict(run: Run, inputs: Iterable[Any], **options: Any) -> list[Prediction]:
    """Classify texts; inputs and options are those of :func:`stream_predictions`."""
    return list(stream_predictions(run, inputs, **options))


def stream_predictions(
    run: Run, inputs: Iterable[Any], *, top_k: int = 5, threshold: float = 0.0, text_column: str | None = None
) -> Iterator[Prediction]:
    """Classify texts one after the other, as they come.

    Args:
        run: a run of this recipe.
        inputs: texts, files, folders, globs, or tables with a column of texts.
        top_k: how many classes each answer lists.
        threshold: below this probability the label is ``unsure``.
        text_column: of the tables, by name or position; by default found by its usual names.
    """
    how = {"top_k": top_k, "threshold": threshold, "text_column": text_column}
    return evaluation.text_classification.stream_predictions(run, inputs, saved_encoder(run), **how)


def saved_encoder(run: Run) -> Encoder:
    """What a run was trained with makes texts its model's numbers.

    Raises:
        UserError: if its vocabulary is missing or damaged.
    """
    return data.text.encoders.load(run.path, None if run.config.model == "ngram" else run.config.max_length)
