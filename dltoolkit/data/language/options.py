"""Options for reading a plain-text corpus."""

from __future__ import annotations

from dataclasses import dataclass

from dltoolkit.config import Options, option
from dltoolkit.data.readers import encoding


@dataclass(frozen=True, kw_only=True)
class CorpusOptions(Options):
    """Options for reading a plain-text corpus."""

    limit: int | None = option(None, "Maximum number of windows of text, for a quick trial", minimum=10, group="data")
    text_column: str | None = option(None, "Column of a table with the texts", group="data")
    encoding: str | None = option(
        None, "Character encoding of text files and tables, such as cp1252 (default: UTF-8)", group="data"
    )
    validation_tail: float | None = option(
        None, "Fraction at the end for validation, with no test split", minimum=0.001, maximum=0.5, group="data"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        encoding.check_name(self.encoding)
