"""Labeled texts from any source: reading, checking and splitting."""

from __future__ import annotations

import copy
import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit.data import checks, disk_cache
from dltoolkit.data.labeled import (
    LabeledSplits,
    describe_evaluated,
    label_mapping,
    select_split,
    split_dataset,
    subsample,
)
from dltoolkit.data.options import SplitOptions, TextReadOptions
from dltoolkit.data.readers import encoding, source
from dltoolkit.data.readers.folders import File
from dltoolkit.data.readers.listing import Listing
from dltoolkit.data.readers.source import Source
from dltoolkit.data.text.listing import list_texts
from dltoolkit.data.text.ragged import Ragged
from dltoolkit.data.text.words import TokenizedTexts, standardize
from dltoolkit.errors import UserError
from dltoolkit.files import open_regular
from dltoolkit.formatting import percent

if TYPE_CHECKING:
    from dltoolkit.data.text.encoders import TextEncoder

MAX_BYTES = 10_000_000  # size of a text; larger files are not texts that a person has labeled
TOO_LONG = f"longer than {MAX_BYTES // 1_000_000} MB"
PROGRESS_INTERVAL = 500  # texts between two reports of progress


@dataclass(eq=False, kw_only=True)
class TextSplits(LabeledSplits):
    """Labeled texts with their splits.

    Attributes:
        texts: The texts as they were read.
        encoder: Encoder that turns them into token IDs; it is set before training.
    """

    texts: list[str]
    encoder: TextEncoder | None = None

    @functools.cached_property
    def tokenized(self) -> TokenizedTexts:
        """The texts split into words."""
        return TokenizedTexts(self.texts)

    @functools.cached_property
    def token_ids(self) -> Ragged:
        """The token IDs of each text."""
        return self.encoder(self.tokenized)

    def truncation(self) -> dict[str, Any] | None:
        """Return how many texts are longer than the network reads, their fraction and the limit; None without one.

        The middle of longer texts is removed. The encoder must be set.
        """
        if self.encoder is None or self.encoder.max_length is None:
            return None
        count = self.token_ids.truncated
        return {
            "count": count,
            "fraction": round(count / len(self.texts), 4),
            "max_length": self.encoder.max_length,
            "unit": self.encoder.unit,
        }

    def unknown(self) -> dict[str, Any] | None:
        """Return how much of the training texts the network does not know: count, fraction and unit.

        White space and the start and end tokens do not count. The encoder must be set; None if it reads no sequences,
        or if nothing can be unknown to it.
        """
        encoder = self.encoder
        if encoder is None or encoder.max_length is None or encoder.unknown_token_id is None:
            return None
        values = self.token_ids.take(self.train).values
        is_unknown = values == encoder.unknown_token_id
        counted = is_unknown | ~np.isin(values, [*encoder.unknown_token_ids, *encoder.special_token_ids])
        count = int(is_unknown.sum())
        return {"count": count, "fraction": count / max(1, int(counted.sum())), "unit": encoder.unit}

    def describe(self) -> dict[str, Any]:
        """Return the description of the data for run.json, with truncated and unknown parts if the encoder is set."""
        description, truncated = super().describe(), self.truncation()
        if truncated is None:
            return description
        warnings = (
            [*self.warnings, describe_truncation(truncated, len(self.texts))] if truncated["count"] else self.warnings
        )
        unknown = self.unknown()
        return {
            **description,
            "truncated": truncated,
            **({"unknown": unknown} if unknown else {}),
            "warnings": warnings,
        }

    def summary(self) -> list[tuple[str, str]]:
        """Return labels and values of what was read, with length and unknown words if the encoder is set."""
        rows, truncated = super().summary(), self.truncation()
        if truncated is None:
            return rows
        limit = f"at most {truncated['max_length']:,} {truncated['unit']} per text"
        cut = f"; {percent(truncated['fraction'])} of the texts are longer" if truncated["count"] else ""
        rows, unknown = [*rows, ("Length", f"{limit}{cut}")], self.unknown()
        if not unknown or not unknown["count"]:
            return rows
        return [*rows, ("Unknown", f"{percent(unknown['fraction'])} of the {unknown['unit']} of the training texts")]

    def with_encoder(self, encoder: TextEncoder) -> TextSplits:
        """Return the same texts with the encoder of another network."""
        splits = copy.copy(self)
        splits.encoder = encoder
        splits.__dict__.pop("token_ids", None)
        return splits

    def sort_by_length(self, split: str) -> np.ndarray:
        """Return the rows of a split, the shortest text first; in this order, evaluation computes little padding."""
        return self.token_ids.sort_by_length(getattr(self, split))


def describe_truncation(truncated: dict[str, Any], total: int) -> str:
    """Return a sentence about truncated texts, from :meth:`TextSplits.truncation` and the number of all texts."""
    limit = f"{truncated['max_length']:,} {truncated['unit']}"
    verb, whose = ("is", "its") if truncated["count"] == 1 else ("are", "their")
    return (
        f"{truncated['count']:,} of {total:,} texts {verb} longer than {limit}; {whose} middle is removed (see "
        "--max-length)."
    )


def load(
    data: Source | str,
    read: TextReadOptions = TextReadOptions(),
    split: SplitOptions = SplitOptions(),
    *,
    seed: int = 0,
    limit: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> TextSplits:
    """Read, check and split labeled texts.

    Predefined splits are kept. If only one of validation and test is predefined, it is the test split, and the
    validation split is taken from the training split. Otherwise, each class is split by content and seed (see
    ``split``). Texts that differ only in case, punctuation, white space or HTML count as equal.

    Args:
        data: A value of ``--data``, or a resolved source.
        read: Options for reading. Texts that are empty, not UTF-8 or without a label are invalid.
        split: Options for splitting. By default, validation and test are 15 % of each class, but no more than 5,000
            and 10,000 texts, which are enough to measure with.
        seed: Seed of the split and of the limit.
        limit: Maximum number of texts, in proportion to the classes and splits.
        progress: Function that is called with the task, the number of processed texts and the total.

    Raises:
        UserError: If the texts cannot be trained on.
    """
    src = source.resolve(data) if isinstance(data, str) else data
    checks.refuse_unused(vars(read), src, "text")
    listing = list_texts(src, read, progress=progress)
    listing = subsample(checks.validate(listing, src.spec), src, limit, seed)
    listing, texts, hashes, bad = _read_listing(listing, src, read, progress)
    if bad:
        listing = checks.validate(listing, src.spec)
    tokenized = TokenizedTexts(texts, progress)
    fields = split_dataset(listing, hashes, src, split, seed=seed, invalid=bad, groups=tokenized.hashes(hashes))
    splits = TextSplits(texts=texts, **fields)
    splits.tokenized = tokenized
    return splits


def labeled(
    data: Source | str,
    classes: Sequence[str],
    read: TextReadOptions = TextReadOptions(),
    *,
    warn: Callable[[str], None] | None = None,
    note: Callable[[str], None] | None = None,
    trained: np.ndarray | None = None,
) -> tuple[TokenizedTexts, np.ndarray, list[str]]:
    """Read other labeled texts for a trained model, or their test split if splits are predefined.

    Args:
        data: A value of ``--data``, or a resolved source.
        classes: Classes of the model, which the labels name in any case.
        read: Options for reading.
        warn: Called with each warning.
        note: Called with a sentence about the texts that were read.
        trained: Hashes of the examples that the model was trained on, to warn if they are among the texts.

    Returns:
        The texts, the indices of their classes int32 (n,), and their names.

    Raises:
        UserError: If a label is not one of ``classes``, or texts cannot be read.
    """
    src = source.resolve(data, trains=False) if isinstance(data, str) else data
    everything = list_texts(src, read)
    listing = select_split(everything, "test")
    class_indices = label_mapping(listing, classes, src.spec)
    listing, texts, hashes, _ = _read_listing(listing, src, read)
    if note:
        note(describe_evaluated(everything, listing, src))
    tokenized = TokenizedTexts(texts)
    same = [] if trained is None else checks.warn_of_training_data(tokenized.hashes(hashes), "text", trained)
    for warning in [*listing.warnings, *same] if warn else ():
        warn(warning)
    return tokenized, class_indices[listing.labels], listing.names


def read_text(item: File | os.PathLike | str | bytes, encoding_name: str | None = None) -> str:
    """Return the text of a file, of bytes or of a string.

    Args:
        item: The file, bytes or string.
        encoding_name: Character encoding; by default UTF-8, or UTF-16 or UTF-32 with a byte order mark.

    Raises:
        UserError: If it cannot be read, or is empty; the message is a short reason.
    """
    try:
        if isinstance(item, File):
            item = Path(item.path)
        if isinstance(item, os.PathLike):
            item = _read_bytes(Path(item))
    except OSError as error:
        raise UserError(error.strerror or str(error)) from None
    if isinstance(item, bytes) and len(item) > MAX_BYTES:
        raise UserError(TOO_LONG)
    text = encoding.decode(item, encoding_name) if isinstance(item, bytes) else item
    if len(text) > MAX_BYTES:
        raise UserError(TOO_LONG)
    if encoding.is_blank(text):
        raise UserError("empty")
    return text


def _read_bytes(path: Path) -> bytes:
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > MAX_BYTES:
            raise UserError(TOO_LONG)
        return file.read()


def _read_listing(
    listing: Listing, src: Source, read: TextReadOptions, progress: Callable[[str, int, int], None] | None = None
) -> tuple[Listing, list[str], np.ndarray, list[tuple[str, str]]]:
    """Read the texts of a listing.

    Returns:
        The listing without invalid texts, its texts, hashes of their contents uint64 (n,), and the name of each invalid
        text with the reason.
    """
    texts: list[str] = []
    hashes: list[bytes] = []
    bad: dict[int, str] = {}
    for index, item in enumerate(listing.items):
        if progress and index % PROGRESS_INTERVAL == 0:
            progress(f"Reading {src.name}", index, len(listing.items))
        try:
            text = read_text(item, read.encoding)
            content = " ".join(standardize(text).split())
            if encoding.is_blank(content):
                raise UserError("empty")
        except UserError as error:
            bad[index] = str(error)
            continue
        texts.append(text)
        hashes.append(hashlib.blake2b(content.encode(errors="surrogatepass"), digest_size=8).digest())
    checks.refuse_invalid(bad, listing, read, disk_cache.default_folder(), src.name)
    listing, findings = checks.drop_invalid(listing, bad)
    return listing, texts, np.frombuffer(b"".join(hashes), np.uint64), findings
