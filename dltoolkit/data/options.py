"""Options for reading and splitting data. The recipes share them as base classes of their ``Config``.

Functions that read take ``read`` and functions that split take ``split``, instead of one parameter for each option.
"""

import re
from dataclasses import dataclass
from typing import Literal

from dltoolkit.config import Options, option
from dltoolkit.data.readers import encoding
from dltoolkit.errors import UserError

ResizeMode = Literal["crop", "letterbox", "stretch"]
MAX_PIXELS = 100_000_000  # default of --max-pixels; decoding takes 12 to 48 bytes per pixel
NONE = "none"  # value of --split-column and --label-pattern that a run's own value is replaced with on other data


@dataclass(frozen=True, kw_only=True)
class ReadOptions(Options):
    """Options for reading labeled examples of any kind."""

    label_column: str | None = option(
        None, "Column of the labels in a table, by name or position (default: found by its usual names)", group="data"
    )
    split_column: str | None = option(
        None,
        "Column of predefined splits (train, validation, test) in a table, or none to ignore it (default: found by its "
        "usual names)",
        group="data",
    )
    header: bool | None = option(
        None, "Column names in the first line of a .csv, .tsv or .xlsx file (default: detected)", group="data"
    )
    encoding: str | None = option(
        None, "Character encoding of texts and tables, such as cp1252 (default: UTF-8)", group="data"
    )
    label_pattern: str | None = option(
        None,
        "Regular expression with one group, the label in the path of a file, such as '(cat|dog)', or none (default: "
        "the label is the folder)",
        group="data",
    )
    skip_invalid: bool = option(False, "Skip examples that cannot be used instead of stopping", group="data")

    def __post_init__(self) -> None:
        super().__post_init__()
        encoding.check_name(self.encoding)
        if self.label_pattern not in (None, NONE):
            _check_pattern(self.label_pattern)


@dataclass(frozen=True, kw_only=True)
class ImageReadOptions(ReadOptions):
    """Options for reading labeled images."""

    image_column: str | None = option(
        None,
        "Column of the image paths in a table, by name or position (default: found by its usual names)",
        group="data",
        applies_to={"task": ("image",)},
    )
    resize: ResizeMode | None = option(
        None,
        "Cut out the center, add black bars, or change the aspect ratio, where images are not square (default: "
        "letterbox if cropping loses more than a fifth of the pixels, otherwise crop)",
        group="data",
        applies_to={"task": ("image",)},
    )
    max_pixels: int = option(
        MAX_PIXELS,
        "Maximum pixels of an image, which protects the memory; larger images cannot be used",
        minimum=1,
        maximum=178_956_970,  # Pillow refuses larger images
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


def _check_pattern(pattern: str) -> None:
    try:
        groups = re.compile(pattern).groups
    except (re.error, RecursionError, OverflowError) as error:
        raise UserError(f"--label-pattern '{pattern}' is not a regular expression: {error}.") from None
    if groups != 1:
        raise UserError(f"--label-pattern '{pattern}' has {groups} groups: put parentheses around the label only.")
