"""Options for reading and splitting data. The recipes share them as base classes of their ``Config``.

Functions that read take ``read`` and functions that split take ``split``, instead of one parameter for each option.
"""

from dataclasses import dataclass

from dltoolkit.config import Options, option


@dataclass(frozen=True, kw_only=True)
class ReadOptions(Options):
    """Options for reading labeled examples of any kind."""

    label_column: str | None = option(
        None, "Column of the labels in a table, by name or position (default: found by its usual names)", group="data"
    )
    header: bool | None = option(
        None, "Column names in the first line of a .csv or .tsv file (default: detected)", group="data"
    )
    skip_invalid: bool = option(False, "Skip examples that cannot be used instead of stopping", group="data")


@dataclass(frozen=True, kw_only=True)
class ImageReadOptions(ReadOptions):
    """Options for reading labeled images."""

    image_column: str | None = option(
        None,
        "Column of the image paths in a table, by name or position (default: found by its usual names)",
        group="data",
        applies_to={"task": ("image",)},
    )


@dataclass(frozen=True, kw_only=True)
class TextReadOptions(ReadOptions):
    """Options for reading labeled texts."""

    text_column: str | None = option(
        None,
        "Column of the texts in a table, by name or position (default: found by its usual names)",
        group="data",
        applies_to={"task": ("text",)},
    )


@dataclass(frozen=True, kw_only=True)
class SplitOptions(Options):
    """Options for splitting labeled examples into train, validation and test."""

    validation_fraction: float | None = option(
        None,
        "Fraction of each class for validation, if no such split is predefined (default: 0.15)",
        minimum=0.01,
        maximum=0.5,
        group="data",
    )
    test_fraction: float | None = option(
        None,
        "Fraction of each class for the test, if no such split is predefined (default: 0.15)",
        minimum=0.01,
        maximum=0.5,
        group="data",
    )
    shots: int | None = option(
        None, "Number of training examples of each class, for few-shot training (default: all)", minimum=1, group="data"
    )
