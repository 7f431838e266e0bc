"""Running text for language models: read in pieces, split into contiguous parts, kept as tokens on disk."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dltoolkit.data import disk_cache as store
from dltoolkit.data.language.tokenizers import UNKNOWN, Bytes, Characters, Pieces, Tokenizer
from dltoolkit.data.readers import source, tables
from dltoolkit.data.readers import tfds as published
from dltoolkit.data.readers.source import PARTS, TEXT_SUFFIXES, Source
from dltoolkit.data.text.listing import TEXT_COLUMNS
from dltoolkit.errors import UserError

CHUNK = 1 << 22  # bytes read at a time
HELD_OUT = 0.1  # share of validation, and of test
MOST_HELD_OUT = 1_000_000  # characters of either, which are enough to measure with
PIECES = 8_192  # of bpe, unless said otherwise


@dataclass(eq=False, kw_only=True)
class RunningText:
    """A text as tokens, in contiguous parts.

    Attributes:
        tokens: uint16 (n,), on disk.
        parts: for train, validation and perhaps test, where in ``tokens`` they begin and end.
        characters: how many each part has.
        tokenizer: makes text tokens and tokens text.
        source, name: what the user said, and a name for the run.
        fingerprint: changes with the text, its tokens and its parts.
        warnings: what the user should know.
    """

    tokens: np.ndarray
    parts: dict[str, tuple[int, int]]
    characters: dict[str, int]
    tokenizer: Tokenizer
    source: str
    name: str
    fingerprint: str
    warnings: list[str] = field(default_factory=list)

    def part(self, name: str) -> np.ndarray:
        """Return the tokens of a part, uint16 (n,)."""
        begin, end = self.parts[name]
        return self.tokens[begin:end]

    def let_go(self) -> None:
        """Give back the memory of what has been read from disk."""
        store.let_go(self.tokens)

    def describe(self) -> dict[str, Any]:
        """Return what run.json says about the data."""
        return {
            "source": self.source,
            "fingerprint": self.fingerprint,
            "splits": {name: end - begin for name, (begin, end) in self.parts.items()},
            "characters": self.characters,
            "vocabulary": self.tokenizer.size,
            "warnings": self.warnings,
        }


def load(
    data: Source | str,
    *,
    tokens: str = "char",
    pieces: int | None = None,
    validation_tail: float | None = None,
    limit: int | None = None,
    text_column: str | None = None,
    tokenizer: Tokenizer | None = None,
    cache_dir: Path | None = None,
) -> RunningText:
    """Find and read a text, choose its vocabulary from the training part alone, and keep its tokens on disk.

    The last 10 % test (at most a million characters), as many before them validate and the rest trains, unless the
    data bring their own parts.

    Args:
        data: what ``--data`` says, or a resolved source.
        tokens: "char", "byte" or "bpe".
        pieces: size of the vocabulary of bpe.
        validation_tail: share at the end that validates; all the rest trains, and there is no test.
        limit: read at most so many characters.
        text_column: of a table, by name or position.
        tokenizer: one to be used in place of a new one; characters that it lacks are unknown to it.
        cache_dir: where the tokens are kept.

    Raises:
        UserError: if there is no text, or it cannot be read.
    """
    src = source.resolve(data) if isinstance(data, str) else data
    texts = _Texts(src, text_column, limit)
    counts = {part: sum(map(len, texts.read(part))) for part in texts.parts}
    total = sum(counts.values())
    if not total:
        raise UserError(f"{src.said} holds no text: there is nothing to learn from.")
    if validation_tail is not None:
        tail = round(total * validation_tail)
        characters = {"train": total - tail, "validation": tail}
    elif len(counts) == 1:
        held_out = min(round(total * HELD_OUT), MOST_HELD_OUT)
        characters = {"train": total - 2 * held_out, "validation": held_out, "test": held_out}
    else:
        characters = {part: counts[part] for part in PARTS if part in counts}
        if "validation" not in characters:  # cut from train's end
            cut = min(round(characters["train"] * HELD_OUT), MOST_HELD_OUT)
            characters = {"train": characters["train"] - cut, "validation": cut, "test": characters["test"]}
    tokenizer = tokenizer or _learned(tokens, pieces, Stream(texts.read()).take(characters["train"]))
    return _tokenised(src, texts, characters, tokenizer, cache_dir or store.default_folder())


def read(data: Source | str, *, text_column: str | None = None) -> Iterator[str]:
    """Yield all of a text in pieces.

    Raises:
        UserError: if there is none, or it cannot be read.
    """
    return _Texts(source.resolve(data) if isinstance(data, str) else data, text_column, None).read()


def _learned(tokens: str, pieces: int | None, train: Iterator[str]) -> Tokenizer:
    if tokens == "char":
        return Characters.of(train)
    return Bytes() if tokens == "byte" else Pieces.of(train, pieces or PIECES)


def _tokenised(
    src: Source, texts: _Texts, characters: dict[str, int], tokenizer: Tokenizer, folder: Path
) -> RunningText:
    """Encode each part into one file on disk, or find the file of an earlier run."""
    described = json.dumps([tokenizer.to_json(), characters], sort_keys=True)
    digest, most = hashlib.blake2b(described.encode(), digest_size=16), 0
    for text in texts.read():
        digest.update(raw := text.encode("utf-8", "surrogatepass"))
        most += len(raw)  # no kind of token is shorter than a byte
    fingerprint = digest.hexdigest()
    file = store.KeptArray(folder, f"{src.name}-text-{fingerprint}")
    found = file.find()
    if found is None:
        room = file.create((most, 2), "tokens")
        try:
            parts, unknown, place = {}, {}, 0
            stream = Stream(texts.read())
            for part, count in characters.items():
                begin, unknown[part] = place, 0
                for text in stream.take(count):
                    encoded = tokenizer.encode(text)
                    unknown[part] += int((encoded == UNKNOWN).sum())
                    room[place : place + len(encoded)] = encoded.view(np.uint8).reshape(-1, 2)
                    place += len(encoded)
                    store.let_go(room)
                parts[part] = (begin, place)
        except BaseException:
            file.discard()
            raise
        facts = {"parts": parts, "unknown": unknown, "used": place}
        found = file.keep(room, facts), facts
    array, facts = found
    return RunningText(
        tokens=array.view(np.uint16)[: facts["used"], 0],
        parts={part: tuple(span) for part, span in facts["parts"].items()},
        characters=characters,
        tokenizer=tokenizer,
        source=src.said,
        name=src.name,
        fingerprint=fingerprint,
        warnings=[*src.warnings, *(_unknown(facts["unknown"]) if isinstance(tokenizer, Characters) else [])],
    )


def _unknown(counts: dict[str, int]) -> list[str]:
    """Warn of characters that count as unknown, of which there are so many in each part."""
    if not (total := sum(counts.values())):
        return []
    if counts["train"]:  # the tokenizer is another text's
        return [f"{total:,} characters are none of the tokenizer's and count as unknown."]
    return [f"{total:,} characters outside the training part never occur in it and count as unknown."]


class Stream:
    """Pieces of text one after the other, from which exactly so many characters can be taken."""

    def __init__(self, pieces: Iterator[str]):
        self._pieces, self._rest = pieces, ""

    def take(self, count: int) -> Iterator[str]:
        """Yield the next ``count`` characters in pieces, or fewer where the text ends."""
        while count:
            piece = self._rest or next(self._pieces, None)
            if piece is None:
                return
            self._rest = piece[count:]
            yield piece[:count]
            count -= min(count, len(piece))


class _Texts:
    """The texts of a source, read anew each time.

    Attributes:
        parts: "train" and its siblings, or "" alone where the data bring none.
    """

    def __init__(self, src: Source, text_column: str | None, limit: int | None):
        self._limit = limit
        self._documents: dict[str, list[Path | str]] = _documents(src, text_column)
        self.parts = list(self._documents)
        if limit and self.parts != [""]:
            raise UserError(f"{src.said} brings its own parts, which --limit would cut: leave --limit out.")

    def read(self, part: str | None = None) -> Iterator[str]:
        """Yield the text of a part, or of all parts in order, in pieces; a line's end between two documents."""
        chosen = self._documents if part is None else {part: self._documents[part]}
        pieces = (piece for documents in chosen.values() for piece in _joined(documents))
        return Stream(pieces).take(self._limit) if self._limit else pieces


def _joined(documents: list[Path | str]) -> Iterator[str]:
    for i, document in enumerate(documents):
        if i:
            yield "\n"
        yield from _pieces(document) if isinstance(document, Path) else [document]


def _pieces(path: Path) -> Iterator[str]:
    """Yield a file's text, decoded as it is read."""
    decoder, lines = codecs.getincrementaldecoder("utf-8-sig")(), 0
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            raw = b"x"
            while raw:
                raw = file.read(CHUNK)
                yield decoder.decode(raw, final=not raw)
                lines += raw.count(b"\n")
    except UnicodeDecodeError as error:
        line = 1 + lines + error.object.count(b"\n", 0, error.start)
        byte = error.object[error.start]
        raise UserError(f"{path} is not UTF-8: byte 0x{byte:02x} near line {line}; convert it to UTF-8.") from None
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read: {reason}.") from None


def _documents(src: Source, text_column: str | None) -> dict[str, list[Path | str]]:
    if src.kind == "text":
        return {"": [src.path]}
    if src.kind == "folder":
        return _of_folder(src)
    if src.kind == "table":
        found: dict[str, list[Path | str]] = {}
        for part, paths in (src.parts or {"": (src.path,)}).items():
            for table in tables.read_tables(list(paths)):
                cells = table.columns[table.find(text_column, TEXT_COLUMNS, "text")]
                found.setdefault(part, []).extend(str(cell) for cell in cells if cell)
        return found
    if src.kind == "bundled" and src.reference == "python-docs":
        from pydoc_data import topics

        return {"": [topics.topics[name] for name in sorted(topics.topics)]}
    if src.kind == "tfds":
        return published.tfds_texts(src.reference)
    raise UserError(
        f"{src.said} is no running text: give --data a .txt, .md, .py or .gz file, a folder of them, a table with a "
        "column of texts, python-docs, or a TFDS name such as tiny_shakespeare."
    )


def _of_folder(src: Source) -> dict[str, list[Path | str]]:
    paths = [Path(file.path) for file in source.files(src.path)]
    paths = [path for path in paths if path.suffix.lower() in TEXT_SUFFIXES]
    if not paths:
        raise UserError(f"No texts in {src.said}: they are looked for under {', '.join(TEXT_SUFFIXES)}.")
    named: dict[str, list[Path | str]] = {}
    for path in paths:
        named.setdefault(source.part_of(path.name.split(".")[0]) or "", []).append(path)
    if "train" in named and "test" in named and "" not in named:
        return {part: named[part] for part in PARTS if part in named}
    return {"": paths}
