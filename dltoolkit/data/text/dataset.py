"""Labelled texts from any source, read, checked and split honestly."""

import codecs
import copy
import functools
import glob
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dltoolkit.data import checks as scan
from dltoolkit.data import disk_cache as store
from dltoolkit.data.labeled import LabeledSplits, divided, limited, of_part, translation
from dltoolkit.data.options import SplitOptions, TextReadOptions
from dltoolkit.data.readers import source, tables
from dltoolkit.data.readers.listing import Listing
from dltoolkit.data.readers.source import File, Source
from dltoolkit.data.text.listing import TEXT_COLUMNS, cell_text, list_texts
from dltoolkit.data.text.vocabulary import Corpus, Encoder, Packed, standardised
from dltoolkit.errors import InvalidInput, UserError
from dltoolkit.lines import Line

LONGEST = 10_000_000  # bytes of a text; what is longer is no text to be classified
TOO_LONG = f"longer than {LONGEST // 1_000_000} MB"
STEP = 500  # texts between two reports of progress


@dataclass(eq=False, kw_only=True)
class TextSplits(LabeledSplits):
    """Texts, labels and who is in which part.

    Attributes:
        texts: as they were written.
        encoder: makes them numbers; set before training.
    """

    texts: list[str]
    encoder: Encoder | None = None

    @functools.cached_property
    def corpus(self) -> Corpus:
        """The texts cut into words."""
        return Corpus(self.texts)

    @functools.cached_property
    def packed(self) -> Packed:
        """The texts as the model's numbers."""
        return self.encoder(self.corpus)

    def read_by(self, encoder: Encoder) -> "TextSplits":
        """Return the same texts for another network, whose numbers ``encoder`` makes of them."""
        other = copy.copy(self)
        other.encoder = encoder
        other.__dict__.pop("packed", None)
        return other

    def in_order(self, part: str) -> np.ndarray:
        """Return the rows of a part, shortest text first: in this order they are evaluated, which saves padding."""
        return self.packed.shortest_first(getattr(self, part))


def load(
    data: Source | str,
    read: TextReadOptions = TextReadOptions(),
    split: SplitOptions = SplitOptions(),
    *,
    seed: int = 0,
    limit: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> TextSplits:
    """Find, read, check and split labelled texts.

    Splits that the data bring are kept. With a single held-out part that part is the test, and validation is cut from
    train; without any, each class is split by content and seed (see ``split``). Texts that differ in case, spaces or
    HTML only count as the same.

    Args:
        data: Value of ``--data``, or a resolved source.
        read: Options for reading. Texts that are empty, not UTF-8 or without a label are invalid.
        split: Options for splitting. By default, validation and test are 15 % of each class, but no more than 5,000
            and 10,000 texts, which are enough to measure with.
        seed: decides the split and who stays under a limit.
        limit: use at most so many texts in all, each class and part in proportion.
        progress: called with what is being done, how many are done, and how many there are.

    Raises:
        UserError: for anything that cannot be trained on as it is.
    """
    src = source.resolve(data) if isinstance(data, str) else data
    listing = list_texts(src, read, progress=progress)
    listing = limited(scan.trainable(listing, src.said), src, limit, seed)
    listing, texts, hashes, bad = _checked(listing, src, read.skip_invalid, progress)
    fields = divided(
        scan.trainable(listing, src.said) if bad else listing,
        hashes,
        src,
        split,
        seed=seed,
        bad=bad,
    )
    return TextSplits(texts=texts, **fields)


def labeled(
    data: Source | str,
    classes: Sequence[str],
    read: TextReadOptions = TextReadOptions(),
    *,
    warn: Callable[[str], None] | None = None,
) -> tuple[list[str], np.ndarray, list[str]]:
    """Read other labelled texts for a trained model; of data that bring splits, the test.

    Args:
        data: what ``--data`` says, or a resolved source.
        classes: the model's classes; labels are matched by name, whatever their case.
        read: Options for reading.
        warn: called with what the user should know, in plain sentences.
        The rest is as in `load`.

    Returns:
        The texts, int32 (n,) numbers of ``classes``, and n names.

    Raises:
        UserError: if a label is none of ``classes``, or texts cannot be read.
    """
    src = source.resolve(data) if isinstance(data, str) else data
    listing = list_texts(src, read)
    listing = of_part(listing, "test")
    numbers = translation(listing, classes, src.said)
    listing, texts, _, _ = _checked(listing, src, read.skip_invalid, None)
    for warning in listing.warnings if warn else ():
        warn(warning)
    return texts, numbers[listing.labels], listing.names


def decode(raw: bytes) -> str:
    """Return a text from its bytes: UTF-8, with or without byte order mark, or UTF-16 with one.

    Raises:
        UserError: with the reason in a few words if it is too long, binary, or not UTF-8 (which byte, in which line).
    """
    if len(raw) > LONGEST:
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


def read(item: File | os.PathLike | str | bytes) -> str:
    """Return one text: of a file, of bytes, or as it is.

    Raises:
        UserError: with the reason in a few words if it cannot be read, or there is nothing in it.
    """
    try:
        if isinstance(item, File):
            item = Path(item.path)
        if isinstance(item, os.PathLike):
            item = _bytes(Path(item))
    except OSError as error:
        raise UserError(error.strerror or str(error)) from None
    text = decode(item) if isinstance(item, bytes) else item
    if len(text) > LONGEST:
        raise UserError(TOO_LONG)
    if not text.strip():
        raise UserError("empty")
    return text


def _bytes(path: Path) -> bytes:
    if path.stat().st_size > LONGEST:
        raise UserError(TOO_LONG)
    return path.read_bytes()


def expand(inputs: Iterable[Any], *, text_column: str | None = None) -> Iterator[Any]:
    """Yield the texts meant by files, folders (the .txt files below them), glob patterns, tables and plain texts.

    A text as it is stays a str, a file becomes a Path, a row of a table a Line; what is no name passes through.

    Args:
        text_column: of tables, by name or position; by default found by its usual names.
    """
    for item in inputs:
        if isinstance(item, Line) or not isinstance(item, (str, os.PathLike)):
            yield item
            continue
        text = str(item)
        try:
            path = Path(os.path.expanduser(text))
            if text.strip() and path.is_dir():
                yield from [Path(file.path) for file in source.files(path) if file.path.lower().endswith(".txt")] or [
                    InvalidInput(text, "no .txt files in this folder")
                ]
            elif text.strip() and path.exists():
                yield from _rows(path, text_column) if path.suffix.lower() in source.TABLE_SUFFIXES else [path]
            elif glob.has_magic(text) and (matches := sorted(glob.glob(str(path), recursive=True))):
                yield from (Path(name) for name in matches if os.path.isfile(name))
            elif path.suffix.lower() in source.FILE_SUFFIXES and len(text.split()) == 1:
                yield InvalidInput(text, "no such file")
            else:
                yield text
        except (OSError, ValueError):  # too long for a name
            yield text
        except UserError as error:
            yield InvalidInput(text, str(error))


def _rows(path: Path, text_column: str | None) -> Iterator[Line | bytes]:
    table = tables.read_table(path)
    for cell in table.columns[table.find(text_column, TEXT_COLUMNS, "text")]:
        text = cell_text(cell)
        yield text if isinstance(text, bytes) else Line(text)


def _checked(
    listing: Listing, src: Source, skip_invalid: bool, progress: Callable[[str, int, int], None] | None
) -> tuple[Listing, list[str], np.ndarray, list[tuple[str, str]]]:
    """Return the listing without bad texts, its texts, hashes of their contents, and (name, reason) of the bad ones."""
    texts: list[str] = []
    hashes: list[bytes] = []
    bad: dict[int, str] = {}
    for position, item in enumerate(listing.items):
        if progress and position % STEP == 0:
            progress(f"Reading {src.name}", position, len(listing.items))
        try:
            text = read(item)
            content = " ".join(standardised(text).split())
            if not content:
                raise UserError("empty")
        except UserError as error:
            bad[position] = str(error)
            continue
        texts.append(text)
        hashes.append(hashlib.blake2b(content.encode(errors="surrogatepass"), digest_size=8).digest())
    scan.refuse(bad, listing, skip_invalid, store.default_folder(), src.name)
    listing, findings = scan.without(listing, bad)
    return listing, texts, np.frombuffer(b"".join(hashes), np.uint64), findings
