"""The options of a new language model, and its default sizes for the training time and the length of the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from dltoolkit.config import Options, option
from dltoolkit.run_schema import CONTEXT

NEW = {"backbone": (None,)}  # options of a new network have no effect with a backbone, which decides them
# Default sizes of a network, by the smallest --max-time in seconds for which they are used
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
# Networks that read a short text many times overfit, each in another way, so an ensemble of small networks
# predicts better than a large one
MAX_SHORT_TEXT = 5_000_000  # training tokens below which a text is short
SHORT_TEXT_SIZES = {
    0: {},
    300: {"ensemble_size": 2, "batch_tokens": 4096},
    1800: {**SIZES[120], "ensemble_size": 5, "batch_tokens": 10_240},
}
RECURRENT_LAYERS = 2  # default of the recurrent families, whose layers take more time each
HEAD_DIM = 64  # dimensions per attention head


@dataclass(frozen=True, kw_only=True)
class LanguageModelOptions(Options):
    """Tokenizer, sizes and batches; they depend on the options ``backbone`` and ``model`` of the recipe."""

    tokenizer: Literal["char", "byte", "bpe"] = option(
        "char", "Tokens: characters, bytes or byte-pair encoding", group="data", applies_to=NEW
    )
    vocab_size: int | None = option(
        None,
        "Vocabulary size of bpe (default: 8192)",
        minimum=300,
        maximum=65_536,
        group="data",
        applies_to={**NEW, "tokenizer": ("bpe",)},
    )
    layers: int | None = option(
        None, "Decoder blocks or recurrent layers (default: from --max-time)", minimum=1, group="model", applies_to=NEW
    )
    embedding_dim: int | None = option(
        None, "Embedding dimension (default: from --max-time)", minimum=2, group="model", applies_to=NEW
    )
    heads: int | None = option(
        None,
        "Attention heads (default: one per 64 embedding dimensions)",
        minimum=1,
        group="model",
        applies_to={**NEW, "model": ("gpt",)},
    )
    context_length: int | None = option(
        None,
        "Context length in tokens (default: from --max-time)",
        minimum=CONTEXT.minimum,
        maximum=CONTEXT.maximum,
        group="model",
        applies_to={"the network": ("new", "a KerasHub preset")},
    )
    ensemble_size: int | None = option(
        None,
        "Number of models in the ensemble (default: from --max-time)",
        minimum=1,
        maximum=32,
        group="model",
        applies_to=NEW,
    )
    dropout: float | None = option(
        None, "Dropout rate (default: from --max-time)", minimum=0, maximum=0.9, group="model", applies_to=NEW
    )
    batch_size: int | None = option(
        None, "Windows per step (default: from --batch-tokens)", minimum=1, group="optimization"
    )
    batch_tokens: int | None = option(
        None,
        "Tokens per step (default: from --max-time)",
        minimum=16,
        group="optimization",
        applies_to={"batch_size": (None,)},
    )


def resolve_defaults(config: Any, tokens: int) -> Any:
    """Choose the sizes that the user left open, for the training time and the length of the text.

    Args:
        config: Options with ``model``, ``max_time`` and those of :class:`LanguageModelOptions`.
        tokens: Tokens of the training split.

    Returns:
        The options with every size set; the batch size is a multiple of the ensemble size.
    """
    size = dict(_by_time(SIZES, config.max_time))
    if tokens < MAX_SHORT_TEXT:
        size |= _by_time(SHORT_TEXT_SIZES, config.max_time)
    if config.model != "gpt":
        size["layers"] = RECURRENT_LAYERS
    config = config.resolve(**{name: value for name, value in size.items() if getattr(config, name) is None})
    tokens_per_step = config.batch_size * config.context_length if config.batch_size else config.batch_tokens
    windows = max(1, tokens_per_step // config.context_length // config.ensemble_size)  # windows per step of each model
    return config.resolve(
        heads=config.heads or _default_heads(config.embedding_dim),
        batch_tokens=tokens_per_step,
        batch_size=windows * config.ensemble_size,
    )


def _default_heads(embedding_dim: int) -> int:
    """Return about one attention head per ``HEAD_DIM``, each with an even number of dimensions."""
    most = max(2, embedding_dim // HEAD_DIM)
    return next((heads for heads in range(most, 0, -1) if embedding_dim % (2 * heads) == 0), 1)


def _by_time(sizes: dict[int, dict[str, Any]], max_time: float | None) -> dict[str, Any]:
    return sizes[max(seconds for seconds in sizes if seconds <= (max_time or 0))]
