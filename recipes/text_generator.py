"""Train a language model from scratch on running text (a small GPT, or an LSTM or GRU), and generate text with it.

dltoolkit train text-generator --data shakespeare.txt --max-time 10m
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import dltoolkit
from dltoolkit import data, evaluation, models, progress, report, training
from dltoolkit.config import OptimizerOptions, RunConfig, option
from dltoolkit.errors import UserError
from dltoolkit.run import Run

if TYPE_CHECKING:
    import keras
    import numpy as np

    from dltoolkit.data.language.corpus import RunningText
    from dltoolkit.data.language.tokenizers import Continuation, Tokenizer

VOCABULARY = "vocabulary.json"
STEPS_PER_CALL = 10
NEWTON_SCHULZ_STEPS = 3  # five take a tenth of the time more, for a loss that is 0.006 nats lower after as many steps
LEARNING_RATES = {"muon": 0.02, "adamw": 4e-3, "adam": 4e-3, "sgd": 0.1}
FULL_RATE_STEPS = 200  # more steps want lower rates: of Muon's, 0.02 was best over 200 and 0.005 over 2,200
SHAPE = ("layers", "embedding_dim", "heads", "context_length", "ensemble_size")
CHOSEN = (*SHAPE, "dropout", "batch_tokens")
HUB_CONTEXT, HUB_OPTIMIZER, HUB_RATE = 128, "adamw", 1e-4  # what suits decoders of KerasHub
GONE_ON = 0.2  # of the usual learning rate, for a network that has learned before
# What suits a --max-time of so many seconds or more
SIZES = {
    0: {
        "layers": 4,
        "embedding_dim": 128,
        "context_length": 64,
        "ensemble_size": 1,
        "batch_tokens": 1024,
        "dropout": 0.0,
    },
    120: {
        "layers": 4,
        "embedding_dim": 128,
        "context_length": 128,
        "ensemble_size": 1,
        "batch_tokens": 3072,
        "dropout": 0.1,
    },
    1800: {
        "layers": 6,
        "embedding_dim": 192,
        "context_length": 256,
        "ensemble_size": 1,
        "batch_tokens": 4096,
        "dropout": 0.1,
    },
}
# and what is other where there is little text: a network that reads it often learns it by heart, each in its own way,
# so that several small ones together foretell better than a large one
LITTLE = 5_000_000  # training tokens
TOGETHER = {
    0: {},
    300: {"ensemble_size": 2, "batch_tokens": 4096},
    1800: {**SIZES[120], "ensemble_size": 5, "batch_tokens": 10_240},
}


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig, OptimizerOptions):
    """The options of the text generator."""

    data: str = option("python-docs", "What to train on: a text file, a folder of them, a table, or a TFDS name.")
    backbone: str | None = option(
        None, "Run of text-generator, or KerasHub preset, to go on from: its network and its tokens, on other text."
    )
    model: Literal["gpt", "lstm", "gru", "rnn"] = option("gpt", "Network family.")
    tokenizer: Literal["char", "byte", "bpe"] = option(
        "char", "What a token is: a character, a byte or a piece of a word."
    )
    vocab_size: int | None = option(None, "Pieces that bpe learns; by default 8,192.", minimum=300, maximum=65_536)
    layers: int | None = option(None, "Decoder blocks or recurrent layers; by default --max-time decides.", minimum=1)
    embedding_dim: int | None = option(None, "Length of a token's vector; by default --max-time decides.", minimum=2)
    heads: int | None = option(
        None, "Attention heads; by default one for each 64 numbers of the embedding_dim.", minimum=1
    )
    context_length: int | None = option(
        None, "Tokens that are read together; by default --max-time decides.", minimum=4
    )
    ensemble_size: int | None = option(
        None,
        "Networks that learn side by side and answer together; by default --max-time decides.",
        minimum=1,
        maximum=32,
    )
    dropout: float | None = option(None, "Dropout rate; by default --max-time decides.", minimum=0, maximum=0.9)
    optimizer: Literal["muon", "adamw", "adam", "sgd"] = option("muon", "Optimizer.")
    batch_size: int | None = option(
        None, "Windows per step; by default --batch-tokens over --context-length.", minimum=1
    )
    batch_tokens: int | None = option(None, "Tokens per step; by default --max-time decides.", minimum=16)
    steps: int | None = option(None, "Train for so many steps, where --epochs is not given.", minimum=1)
    validation_tail: float | None = option(
        None, "Validate on this share at the end, train on all the rest and have no test.", minimum=0.001, maximum=0.5
    )
    limit: int | None = option(None, "Use at most this many windows of text, for a quick try.", minimum=10)
    sample_tokens: int = option(300, "Length of the sample after each epoch; 0 for none.", minimum=0, maximum=10_000)
    text_column: str | None = option(None, "Column of a table that holds the texts.")


def build_data(config: Config, tokenizer: Tokenizer | None = None) -> RunningText:
    """Read the text, split it into contiguous parts, and keep it as tokens on disk; of a new tokenizer, by default."""
    return data.language.corpus.load(
        config.data,
        tokens=config.tokenizer,
        pieces=config.vocab_size,
        validation_tail=config.validation_tail,
        limit=config.limit and config.limit * suited(config, 0).context_length,
        tokenizer=tokenizer,
        text_column=config.text_column,
    )


def start(config: Config) -> tuple[keras.Model, Tokenizer, dict[str, Any]]:
    """The network that ``--backbone`` names, its tokenizer, and the options that it decides.

    Raises:
        UserError: if there is no such run or preset, or it writes no text.
    """
    name, run = config.backbone, None
    if not models.pretrained.keras_hub.is_preset(name):
        try:
            run = dltoolkit.load(name, config.out_dir)
        except UserError:
            if name not in models.pretrained.keras_hub.names():
                raise
    if run is None:
        model, tokenizer, size = models.language.gpt.of_hub(name)
        rate = config.learning_rate or HUB_RATE
        context_length = min(config.context_length or HUB_CONTEXT, size.pop("longest"))
        decided = {"context_length": context_length, "ensemble_size": 1, "learning_rate": rate}
        return model, data.language.tokenizers.HubPieces(tokenizer), {**size, **decided, "optimizer": HUB_OPTIMIZER}
    if run.info["recipe"] != "text-generator":
        raise UserError(f"{name} is a run of {run.info['recipe']}, which writes no text.")
    decided = {"model": run.config.model, **{key: run.info["chosen"][key] for key in SHAPE}}
    return run.model, saved_tokenizer(run), decided


def build_model(config: Config, text: RunningText) -> keras.Model:
    """Tokens int32 (batch, time) in, logits of each next token (batch, time, vocab_size) out."""
    config = suited(config, len(text.part("train")))
    return models.language.gpt.build(
        config.model,
        text.tokenizer.size,
        layers=config.layers,
        embedding_dim=config.embedding_dim,
        heads=config.heads,
        dropout=config.dropout,
        ensemble_size=config.ensemble_size,
    )


def train(config: Config = Config(), *, resume: Run | None = None) -> Run:
    """Split, train, keep the best epoch by validation, test once, report.

    Args:
        config: the options.
        resume: a run of this recipe to go on with, instead of a new one.
    """
    run = resume or Run.create(__file__, config, data.readers.source.resolve(config.data).name)
    with run.session():
        training.distribute.strategy.devices(config.device)  # before anything starts TensorFlow
        network = tokenizer = None
        if config.backbone:
            network, tokenizer, decided = start(config)
            config = config.resolve(**decided)
        text = build_data(config, tokenizer)
        run.describe_data(text.describe())
        run.write_json(VOCABULARY, text.tokenizer.to_json())
        config = suited(config.resolve(**run.info.get("chosen", {})), len(text.part("train")))
        work = job(run, config, text, network)
        run.update(chosen={name: getattr(config, name) for name in CHOSEN})
        model = training.fit.fit(run, config, work)
        conclude(run, config, model, text)
    return run


def suited(config: Config, tokens: int) -> Config:
    """Choose the size of network and batch, where nothing was said, for the time there is and the training tokens."""
    size = _for_time(SIZES, config.max_time) | (_for_time(TOGETHER, config.max_time) if tokens < LITTLE else {})
    if config.model != "gpt":
        size = {**size, "layers": 2}
    chosen = {name: value for name, value in size.items() if getattr(config, name) is None}
    config = config.resolve(**chosen)
    heads = next(
        (n for n in range(max(2, config.embedding_dim // 64), 0, -1) if config.embedding_dim % (2 * n) == 0), 1
    )
    tokens = config.batch_size * config.context_length if config.batch_size else config.batch_tokens
    return replace(
        config,
        heads=config.heads or heads,
        batch_tokens=tokens,
        batch_size=max(1, tokens // config.context_length // config.ensemble_size) * config.ensemble_size,
    )


def _for_time(sizes: dict[int, dict[str, Any]], seconds: float | None) -> dict[str, Any]:
    return sizes[max(least for least in sizes if least <= (seconds or 0))]


def job(run: Run, config: Config, text: RunningText, network: keras.Model | None = None) -> training.fit.Job:
    """Say what the training loop needs: model (by default a new one), batches, loss."""
    windows = data.language.pipeline.windows(text, config.context_length)
    if windows < config.ensemble_size:
        raise UserError(
            f"{text.source} is too short for {config.ensemble_size} networks; give more text, or fewer --ensemble-size."
        )
    validation = len(text.part("validation")) // config.context_length

    def after_epoch(model: keras.Model, epoch: int) -> None:
        text.let_go()
        sample(run, config, model, text, epoch)

    return training.fit.Job(
        build_model=lambda: network or build_model(config, text),
        batches=lambda batch_size, start: data.language.pipeline.training_pipeline(
            text, context_length=config.context_length, batch_size=batch_size, seed=config.seed, start_step=start
        ),
        validation=lambda batch_size: data.language.pipeline.evaluation_pipeline(
            text, "validation", config.context_length, batch_size
        ),
        examples=config.ensemble_size * min(windows, max(4 * validation, STEPS_PER_CALL * config.batch_size)),
        validation_examples=validation,
        validation_batch=evaluation.language.BATCH,
        ensemble_size=config.ensemble_size,
        compile=compile_model,
        score="validation_loss",
        epochs=4,
        steps=None if config.epochs else config.steps,
        steps_per_call=STEPS_PER_CALL,
        compiled=True,
        after_epoch=after_epoch,
    )


def compile_model(model: keras.Model, config: Config, batch_size: int, **how: Any) -> training.optimizer.WarmupCosine:
    """Compile a model for training, and return its schedule."""
    import keras

    falling = config.learning_rate is None and config.optimizer == "muon"
    usual = LEARNING_RATES[config.optimizer] * (GONE_ON if config.backbone else 1)
    return training.optimizer.compile(
        model,
        config.resolve(learning_rate=config.learning_rate or usual),
        batch_size,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        newton_schulz_steps=NEWTON_SCHULZ_STEPS,
        full_rate_steps=FULL_RATE_STEPS if falling else None,
        **how,
    )


def sample(run: Run, config: Config, model: keras.Model, text: RunningText, epoch: int) -> None:
    """Write what the model makes of the beginning of the validation text to samples/, if that is wanted."""
    if not config.sample_tokens:
        return
    begin = text.part("validation")[: config.context_length // 4].tolist()
    drawn = models.language.sampling.generate(
        model,
        [begin],
        max_tokens=config.sample_tokens,
        context_length=config.context_length,
        how=models.language.sampling.Sampling(temperature=0.8),
        seed=config.seed,
    )
    written = [token for tokens in drawn for token in tokens[0].tolist()]
    decode = text.tokenizer.decode
    run.write(f"samples/epoch-{epoch:04}.txt", f"{decode(begin)}{decode(written)}\n")


def conclude(run: Run, config: Config, model: keras.Model, text: RunningText) -> None:
    """Measure the best epoch beside the baselines, and write metrics.json and report.html."""
    parts = [part for part in ("test", "validation") if part in text.parts]
    scores = {
        part: evaluation.language.measure(model, [text.part(part)], text.characters[part], config.context_length)
        for part in parts
    }
    scored = text.part(parts[0])
    baseline = evaluation.language.baselines(
        text.part("train"), scored, text.characters[parts[0]], text.tokenizer.size, text.tokenizer.decode(scored)
    )
    run.write_json("metrics.json", {**scores, "baseline": baseline})
    samples = sorted((run.path / "samples").glob("*.txt"))
    report.write.write(run, texts={path.stem: path.read_text(encoding="utf-8") for path in samples})


def evaluate(run: Run, other: str | None = None, *, text_column: str | None = None) -> dict[str, Any]:
    """Measure on the run's own test text (or validation text, where it has no test), or on any other text.

    Args:
        run: a run of this recipe.
        other: what ``--data`` takes; all of it is scored.
        text_column: of a table, where it differs from the run's own.

    Raises:
        UserError: if the run's data have changed, or there is no text to score.
    """
    config, context_length = run.config, run.info["chosen"]["context_length"]
    if other is None:
        text = build_data(config, saved_tokenizer(run))
        run.check_data(text.describe())
        part = "test" if "test" in text.parts else "validation"
        return evaluation.language.measure(run.model, [text.part(part)], text.characters[part], context_length)
    run.warn_of_training_data(other)
    text_column, tokenizer = text_column or config.text_column, saved_tokenizer(run)
    characters, unknown = 0, []
    for text in data.language.corpus.read(other, text_column=text_column):
        characters += len(text)
        unknown = list(dict.fromkeys([*unknown, *tokenizer.unknown(text)]))
    if unknown:
        progress.warn(f"Training never saw {_named(unknown)}: each counts as unknown.")
    tokens = (tokenizer.encode(text) for text in data.language.corpus.read(other, text_column=text_column))
    return evaluation.language.measure(run.model, tokens, characters, context_length)


def generate(run: Run, prompt: str | Sequence[str] = "", *, count: int = 1, **options: Any) -> str | list[str]:
    """Continue a prompt; return the continuation without the prompt, or a list for several prompts or ``count`` > 1.

    The options are those of :func:`stream`.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    texts = [""] * (len(prompts) * count)
    for pieces in stream(run, [one for one in prompts for _ in range(count)], **options):
        texts = [text + piece for text, piece in zip(texts, pieces, strict=True)]
    return texts[0] if isinstance(prompt, str) and count == 1 else texts


def stream(
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
    """Continue prompts, and yield for each of them the text that is new, as it is drawn.

    Args:
        run: a run of this recipe.
        prompts: what to continue; an empty one begins on a new line.
        max_tokens: how many tokens are drawn for each.
        temperature: below 1 more probable, above 1 more surprising text; 0 takes the most probable token.
        top_k, top_p, min_p, repetition_penalty: see ``models.language.sampling.Sampling``.
        seed: equal seeds give equal texts.
        stop: a text ends before any of these.
        unknown_chars: what becomes of characters that training never saw: ``refuse`` the prompt, or ``drop`` them.

    Raises:
        UserError: if a number is out of its range, or a prompt holds unknown characters.
    """
    _check(max_tokens, temperature, top_k, top_p, min_p, repetition_penalty)
    tokenizer = saved_tokenizer(run)
    if missing := tokenizer.unknown("".join(prompts)):
        if unknown_chars == "refuse":
            raise UserError(
                f"The prompt holds {_named(missing)}, which training never saw: leave it out, or say --unknown-chars drop."
            )
        prompts = ["".join(letter for letter in prompt if letter not in missing) for prompt in prompts]
    drawn = models.language.sampling.generate(
        run.model,
        [tokenizer.encode(prompt or "\n").tolist() for prompt in prompts],
        max_tokens=max_tokens,
        context_length=run.info["chosen"]["context_length"],
        how=models.language.sampling.Sampling(temperature, top_k, top_p, min_p, repetition_penalty),
        seed=seed,
    )
    stops = [stop] if isinstance(stop, str) else stop
    return _told(drawn, [data.language.tokenizers.Continuation(tokenizer, stops) for _ in prompts], max_tokens)


def _told(drawn: Iterator[np.ndarray], texts: list[Continuation], left: int) -> Iterator[list[str]]:
    """Yield the text that is new in each of ``texts``, until all are told or ``left`` tokens have come."""
    for tokens in drawn:
        left -= tokens.shape[1]
        yield [text.add(some, last=not left) for text, some in zip(texts, tokens.tolist(), strict=True)]
        if all(text.stopped for text in texts):
            return


def saved_tokenizer(run: Run) -> Tokenizer:
    """What a run was trained with makes text tokens.

    Raises:
        UserError: if its vocabulary is missing or damaged.
    """
    path = run.path / VOCABULARY
    try:
        return data.language.tokenizers.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged or cannot be read, so the run cannot read texts.") from None


def _named(characters: Sequence[str]) -> str:
    shown = ", ".join(repr(character) for character in characters[:5])
    return shown + (f" and {len(characters) - 5} more characters" if len(characters) > 5 else "")


def _check(max_tokens: int, temperature: float, top_k: int, top_p: float, min_p: float, penalty: float) -> None:
    rules = {
        f"--max-tokens must be at least 1, not {max_tokens}": max_tokens >= 1,
        f"--temperature must be 0 (the most probable token) or more, not {temperature}": 0 <= temperature < 1e6,
        f"--top-k must be 0 (all) or more, not {top_k}": top_k >= 0,
        f"--top-p must be above 0 and at most 1, not {top_p}": 0 < top_p <= 1,
        f"--min-p must be at least 0 and below 1, not {min_p}": 0 <= min_p < 1,
        f"--repetition-penalty must be above 0, not {penalty}": penalty > 0,
    }
    for sentence, holds in rules.items():
        if not holds:
            raise UserError(f"{sentence}.")
