"""Train a language model from scratch on plain text (a small GPT, LSTM, GRU or RNN), and generate text with it.

    dltoolkit train text-generator --data shakespeare.txt --max-time 10m

Measured on two cores of a Zen 5 without an accelerator: Tiny Shakespeare in 9 min 40 s, 2.05 bits per character on the
last tenth of the text (a 5-gram model 2.28). Continue a run, or a KerasHub preset, on other text with --backbone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dltoolkit import data, evaluation, finetuning, models, report, training
from dltoolkit.config import OptimizerOptions, RunConfig, option
from dltoolkit.data.language.options import CorpusOptions
from dltoolkit.errors import UserError
from dltoolkit.models.language.options import NEW, LanguageModelOptions, resolve_defaults
from dltoolkit.run import Run

if TYPE_CHECKING:
    import keras

    from dltoolkit.data.language.corpus import Corpus
    from dltoolkit.data.language.tokenizers import Tokenizer
    from dltoolkit.training.optimizer import WarmupCosine
    from dltoolkit.training.train_spec import TrainSpec

STEPS_PER_EXECUTION = 10
NEWTON_SCHULZ_STEPS = 3  # iterations of Muon; five take a tenth more time to lower the loss by 0.006 nats
LEARNING_RATES = {"muon": 0.02, "adamw": 4e-3, "adam": 4e-3, "sgd": 0.1}
FULL_RATE_STEPS = 200  # longer trainings need lower rates: Muon's best was 0.02 over 200 steps and 0.005 over 2,200
FINETUNE_LR_SCALE = 0.2  # factor of these rates for a network that is trained already
RESOLVED = ("layers", "embedding_dim", "heads", "context_length", "ensemble_size", "dropout", "batch_tokens")


@dataclass(frozen=True, kw_only=True)
class Config(CorpusOptions, LanguageModelOptions, OptimizerOptions, RunConfig):
    """The options of the text generator."""

    data: str = option(
        "python-docs", "Training data: a text file, a folder of text files, a table or a TFDS name", group="data"
    )
    backbone: str | None = option(
        None, "Run of text-generator, or KerasHub preset, to continue with its network and tokenizer", group="model"
    )
    model: Literal["gpt", "lstm", "gru", "rnn"] = option("gpt", "Network family", group="model", applies_to=NEW)
    optimizer: Literal["muon", "adamw", "adam", "sgd"] = option(
        "muon", "Optimizer", group="optimization", applies_to={"the network": ("new", "a run")}
    )
    steps: int | None = option(None, "Training steps, instead of --epochs", minimum=1, group="optimization")
    sample_tokens: int = option(
        300, "Tokens of the sample after each epoch; 0 for none", minimum=0, maximum=10_000, group="evaluation"
    )


def build_data(config: Config, tokenizer: Tokenizer | None = None) -> Corpus:
    """Read the text, split it into contiguous parts, and store its token IDs on disk."""
    return data.language.corpus.load(
        config.data,
        tokenizer=tokenizer or config.tokenizer,
        vocab_size=config.vocab_size,
        validation_tail=config.validation_tail,
        limit=config.limit and config.limit * resolve_defaults(config, 0).context_length,
        text_column=config.text_column,
        encoding=config.encoding,
    )


def build_model(config: Config, corpus: Corpus) -> keras.Model:
    """Return a new network: token IDs int32 (batch, time) in, next-token logits (batch, time, vocab_size) out."""
    config = resolve_defaults(config, len(corpus.split("train")))
    sizes = {name: getattr(config, name) for name in ("layers", "embedding_dim", "heads", "dropout", "ensemble_size")}
    return models.language.gpt.build(config.model, corpus.tokenizer.vocab_size, **sizes)


def train(config: Config = Config(), *, resume: Run | None = None, callbacks: Sequence[Any] = ()) -> Run:
    """Split the text, train, select the epoch on the validation split, evaluate on the test split and report.

    Args:
        config: The options.
        resume: A run of this recipe to continue, instead of a new one.
        callbacks: Callbacks of Keras.
    """
    if config.steps and config.epochs and not resume:
        raise UserError("--steps has no effect with --epochs: leave one of them out.")
    backbone = network = tokenizer = None
    if config.backbone:
        backbone = finetuning.backbone.resolve(config.backbone, out_dir=config.out_dir, seed=config.seed)
        config.refuse_ignored(**{"the network": backbone.kind})
        config = config.resolve(backbone=backbone.spec)
    run = resume or Run.create(__file__, config, data.readers.source.resolve(config.data).name)
    with run.session():
        if backbone:
            training.preparation.start(config)
            network, tokenizer, decided = backbone.language_model(config.context_length, config.learning_rate)
            backbone.check_unchanged(run)
            config = config.resolve(**decided)
        corpus = training.preparation.read_data(config, lambda: build_data(config, tokenizer))
        run.describe_data(corpus.describe())
        run.write_json(evaluation.text_generation.VOCABULARY, corpus.tokenizer.to_json())
        config = resolve_defaults(config.resolve(**run.info.get("resolved", {})), len(corpus.split("train")))
        run.update(resolved={name: getattr(config, name) for name in RESOLVED})
        model = training.fit.fit(run, config, train_spec(run, config, corpus, network), callbacks)
        report.text_generation.evaluate_and_report(run, model, corpus, config.context_length)
    return run


def train_spec(run: Run, config: Config, corpus: Corpus, network: keras.Model | None = None) -> TrainSpec:
    """Return the training specification: model (by default a new one), batches and loss."""
    pipeline, context_length = data.language.pipeline, config.context_length
    windows = pipeline.windows(corpus, context_length)
    if windows < config.ensemble_size:
        raise UserError(
            f"{corpus.source} is too short for {config.ensemble_size} models: use more text or a lower --ensemble-size."
        )
    validation_windows = len(corpus.split("validation")) // context_length
    train_windows = min(windows, max(4 * validation_windows, STEPS_PER_EXECUTION * config.batch_size))
    return training.train_spec.TrainSpec(
        build_model=lambda: network or build_model(config, corpus),
        batches=lambda batch_size, start: pipeline.training_pipeline(
            corpus, context_length=context_length, batch_size=batch_size, seed=config.seed, start_step=start
        ),
        validation=lambda size: pipeline.evaluation_pipeline(corpus, "validation", context_length, size),
        train_examples=config.ensemble_size * train_windows,
        validation_examples=validation_windows,
        validation_batch_size=evaluation.language.BATCH_SIZE,
        ensemble_size=config.ensemble_size,
        compile=compile_model,
        monitor="validation_loss",
        epochs=4,
        max_steps=None if config.epochs else config.steps,
        steps_per_execution=STEPS_PER_EXECUTION,
        xla_on_cpu=True,
        summary=[*corpus.summary(), ("Context", f"{context_length} tokens")],
        evaluation=evaluation.duration.of_corpus(corpus, context_length),
        on_epoch_end=evaluation.text_generation.sampler(
            run, corpus, tokens=config.sample_tokens, context_length=context_length, seed=config.seed
        ),
    )


def compile_model(model: keras.Model, config: Config, batch_size: int, **options: Any) -> WarmupCosine:
    """Compile a model for training, and return the schedule of its learning rate."""
    import keras

    learning_rate = LEARNING_RATES[config.optimizer] * (FINETUNE_LR_SCALE if config.backbone else 1)
    decays = config.learning_rate is None and config.optimizer == "muon"  # with the number of steps
    return training.optimizer.compile(
        model,
        config.resolve(learning_rate=config.learning_rate or learning_rate),
        batch_size,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        newton_schulz_steps=NEWTON_SCHULZ_STEPS,
        full_rate_steps=FULL_RATE_STEPS if decays else None,
        **options,
    )


def evaluate(
    run: Run, other: str | None = None, *, text_column: str | None = None, encoding: str | None = None
) -> dict[str, Any]:
    """Evaluate a run on its test split (on validation if it has no test split), or on all of another text.

    Args:
        run: A run of this recipe.
        other: A value of ``--data``.
        text_column, encoding: Options for reading ``other``, if they differ from those of the run.
    """
    config = run.config
    options = text_column or config.text_column, encoding or config.encoding
    return evaluation.text_generation.evaluate(run, lambda tokenizer: build_data(config, tokenizer), other, *options)


def generate(run: Run, prompt: str | Sequence[str] = "", *, count: int = 1, **options: Any) -> str | list[str]:
    """Continue a prompt, or each of several ``count`` times; return the new text. Options: see :func:`stream_text`."""
    return evaluation.text_generation.collect(lambda prompts: stream_text(run, prompts, **options), prompt, count)


def stream_text(
    run: Run,
    prompts: Sequence[str] = ("",),
    *,
    max_tokens: int = 500,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    seed: int = 0,
    stop: str | Sequence[str] = (),
    unknown_chars: Literal["refuse", "drop"] = "refuse",
) -> Iterator[list[str]]:
    """Yield the new text of each prompt while it is generated; see ``evaluation.text_generation.stream_text``."""
    sampling = models.language.sampling.SamplingParams(temperature, top_k, top_p, min_p, repetition_penalty)
    return evaluation.text_generation.stream_text(
        run, prompts, sampling, max_tokens=max_tokens, seed=seed, stop=stop, unknown_chars=unknown_chars
    )
