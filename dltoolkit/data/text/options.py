"""Options of a vocabulary that is built from the training texts."""

from __future__ import annotations

from dataclasses import dataclass

from dltoolkit.config import Options, option

NGRAM = {"model": ("ngram",)}  # the network family that reads bags of n-grams
FAMILIES = {"model": ("ngram", "cnn", "lstm", "gru", "rnn", "transformer")}  # the models that options can change
SEQUENCE = {"model": ("cnn", "lstm", "gru", "rnn", "transformer")}  # the families that read words in order
READS_WORDS = {"model": (*SEQUENCE["model"], "custom")}  # those families, and a model that a program passes
LAYERED = {"model": ("lstm", "gru", "rnn", "transformer")}  # the families with a variable number of layers


@dataclass(frozen=True, kw_only=True)
class VocabularyOptions(Options):
    """The options of a vocabulary of words or n-grams."""

    vocab_size: int | None = option(
        None, "Maximum vocabulary size (default: 1,000,000 for ngram, 20,000 otherwise)", minimum=10, group="data"
    )
    min_df: int | None = option(
        None, "Minimum document frequency of an entry (default: 1 up to 10,000 texts, then 2)", minimum=1, group="data"
    )
    ngrams: int = option(3, "Maximum n-gram length in words", minimum=1, maximum=3, group="data", applies_to=NGRAM)
    prefix_length: int | None = option(
        None,
        "Length of the word prefixes in the vocabulary (default: 5 up to 10,000 texts, then 0)",
        minimum=0,
        maximum=20,
        group="data",
        applies_to=NGRAM,
    )
    max_length: int = option(
        400, "Maximum text length in words; the middle is removed", minimum=4, group="data", applies_to=READS_WORDS
    )
