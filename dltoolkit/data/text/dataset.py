"""Labeled texts from any source: reading, checking and splitting."""

from __future__ import annotations

import codecs
import copy
import functools
import glob
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit.data import checks, disk_cache
from dltoolkit.data.labeled import LabeledSplits, label_mapping, select_split, split_dataset, subsample
from dltoolkit.data.options import SplitOptions, TextReadOptions
from dltoolkit.data.readers import source, tables
from dltoolkit.data.readers.listing import Listing
from dltoolkit.data.readers.source import File, Source
from dltoolkit.data.text.listing import cell_text, list_texts
from dltoolkit.data.text.ragged import Ragged
from dltoolkit.data.text.words import TokenizedTexts, standardize
from dltoolkit.errors import InvalidInput, UserError
from dltoolkit.lines import Line

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

    def with_encoder(self, encoder: TextEncoder) -> TextSplits:
        """Return the same texts with the encoder of another network."""
        splits = copy.copy(self)
        splits.encoder = encoder
        splits.__dict__.pop("token_ids", None)
        return splits

    def sort_by_length(self, split: str) -> np.ndarray:
        """Return the rows of a split, the shortest text first; in this order, evaluation computes little padding."""
        return self.token_ids.sort_by_length(getattr(self, split))


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
    ``split``). Texts that differ only in case, white space or HTML count as equal.

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
    listing = list_texts(src, read, progress=progress)
    listing = subsample(checks.validate(listing, src.spec), src, limit, seed)
    listing, texts, hashes, bad = _read_listing(listing, src, read, progress)
    if bad:
        listing = checks.validate(listing, src.spec)
    return TextSplits(texts=texts, **split_dataset(listing, hashes, src, split, seed=seed, invalid=bad))


def labeled(
    data: Source | str,
    classes: Sequence[str],
    read: TextReadOptions = TextReadOptions(),
    *,
    warn: Callable[[str], None] | None = None,
) -> tuple[list[str], np.ndarray, list[str]]:
    """Read other labeled texts for a trained model, or their test split if splits are predefined.

    Args:
        data: A value of ``--data``, or a resolved source.
        classes: Classes of the model, which the labels name in any case.
        read: Options for reading.
        warn: Called with each warning.

    Returns:
        The texts, the indices of their classes int32 (n,), and their names.

    Raises:
        UserError: If a label is not one of ``classes``, or texts cannot be read.
    """
    src = source.resolve(data) if isinstance(data, str) else data
    listing = select_split(list_texts(src, read), "test")
    class_indices = label_mapping(listing, classes, src.spec)
    listing, texts, _, _ = _read_listing(listing, src, read)
    for warning in listing.warnings if warn else ():
        warn(warning)
    return texts, class_indices[listing.labels], listing.names


def decode(raw: bytes) -> str:
    """Return the text of bytes in UTF-8, with or without a byte order mark, or in UTF-16 with one.

    Raises:
        UserError: If the bytes are too many, binary, or not UTF-8; the message is a short reason.
    """
    if len(raw) > MAX_BYTES:
        raise UserError(TOO_LONG)
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif b"\0" in raw:
        raise UserError("binary data, not text")
    else:
        encoding = "utf-8-sig"
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(f"not UTF-8: byte 0x{raw[error.start]:02x} in line {line}") from None


def read_text(item: File | os.PathLike | str | bytes) -> str:
    """Return the text of a file, of bytes or of a string.

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
    text = decode(item) if isinstance(item, bytes) else item
    if len(text) > MAX_BYTES:
        raise UserError(TOO_LONG)
    if not text.strip():
        raise UserError("empty")
    return text


def _read_bytes(path: Path) -> bytes:
    if path.stat().st_size > MAX_BYTES:
        raise UserError(TOO_LONG)
    return path.read_bytes()


def expand(inputs: Iterable[Any], *, text_column: str | None = None) -> Iterator[Any]:
    """Yield the texts of files, folders (their .txt files), glob patterns, tables and plain texts.

    A plain text stays a str, a file becomes a Path, a row of a table a Line, and an unreadable input an InvalidInput.

    Args:
        inputs: Names and texts. Other objects are yielded as they are.
        text_column: Column of the texts in tables, by name or position; by default, found by its usual names.
    """
    for item in inputs:
        if isinstance(item, Line) or not isinstance(item, (str, os.PathLike)):
            yield item
            continue
        text = str(item)
        try:
            yield from _expand_name(text, text_column)
        except (OSError, ValueError):  # a text that is too long for a name
            yield text
        except UserError as error:
            yield InvalidInput(text, str(error))


def _expand_name(text: str, text_column: str | None) -> Iterator[Any]:
    """Yield the inputs that a string names, or the string itself if it names nothing."""
    path = Path(os.path.expanduser(text))
    if text.strip() and path.is_dir():
        files = [Path(file.path) for file in source.list_files(path)]
        files = [file for file in files if file.suffix.lower() == ".txt"]
        yield from files or [InvalidInput(text, "no .txt files in this folder")]
    elif text.strip() and path.exists():
        yield from _read_rows(path, text_column) if path.suffix.lower() in source.TABLE_SUFFIXES else [path]
    elif glob.has_magic(text) and (matches := sorted(glob.glob(str(path), recursive=True))):
        yield from (Path(name) for name in matches if os.path.isfile(name))
    elif path.suffix.lower() in source.FILE_SUFFIXES and len(text.split()) == 1:
        yield InvalidInput(text, "no such file")
    else:
        yield text


def _read_rows(path: Path, text_column: str | None) -> Iterator[Line | bytes]:
    table = tables.read_table(path)
    for cell in table.columns[table.find(text_column, tables.TEXT_COLUMNS, "text")]:
        text = cell_text(cell)
        yield text if isinstance(text, bytes) else Line(text)


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
            text = read_text(item)
            content = " ".join(standardize(text).split())
            if not content:
                raise UserError("empty")
        except UserError as error:
            bad[index] = str(error)
            continue
        texts.append(text)
        hashes.append(hashlib.blake2b(content.encode(errors="surrogatepass"), digest_size=8).digest())
    checks.refuse_invalid(bad, listing, read, disk_cache.default_folder(), src.name)
    listing, findings = checks.drop_invalid(listing, bad)
    return listing, texts, np.frombuffer(b"".join(hashes), np.uint64), findings
