"""Options for reading and splitting data. The recipes share them as base classes of their ``Config``.

They are handed down whole: every function that reads takes ``read``, and every function that splits takes ``split``.
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
        "Fraction of each class for validation, if the data bring no validation split (default: 0.15)",
        minimum=0.01,
        maximum=0.5,
        group="data",
    )
    test_fraction: float | None = option(
        None,
        "Fraction of each class for the test, if the data bring no test split (default: 0.15)",
        minimum=0.01,
        maximum=0.5,
        group="data",
    )
    shots: int | None = option(
        None, "Number of training examples of each class, for few-shot training (default: all)", minimum=1, group="data"
    )
