"""Plain-text corpora: read in chunks, split into contiguous parts, and stored on disk as token IDs."""

from __future__ import annotations

import collections
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dltoolkit.data import disk_cache
from dltoolkit.data.language.tokenizers import (
    MAX_TRAINING_CHARACTERS,
    BPETokenizer,
    ByteTokenizer,
    CharTokenizer,
    Tokenizer,
)
from dltoolkit.data.readers import encoding as encodings
from dltoolkit.data.readers import folders, objects, source, tables, tfds
from dltoolkit.data.readers.source import SPLITS, TEXT_SUFFIXES, Source
from dltoolkit.errors import UserError

CHUNK_CHARACTERS = 1 << 22  # characters that are read from a file at a time
MAX_LISTED_TYPES = 5  # types of other files that a warning names
HELD_OUT = 0.1  # fraction of the text for validation, and for the test
MAX_HELD_OUT = 1_000_000  # maximum characters of either split; the loss on them hardly varies
BPE_VOCAB_SIZE = 8_192  # default vocabulary size of bpe


@dataclass(eq=False, kw_only=True)
class Corpus:
    """A text as token IDs, in contiguous splits.

    Attributes:
        token_ids: All token IDs, uint16 (n,), a memory map of a file unless the cache cannot be written.
        splits: For "train", "validation" and, except with a validation tail, "test": begin and end in ``token_ids``.
        characters: Number of characters of each split.
        tokenizer: The tokenizer of the token IDs.
        source: The value of ``--data``.
        name: Short name of the source that is safe in file names.
        fingerprint: Hash of the text, the tokenizer and the splits.
        warnings: Sentences for the user.
    """

    token_ids: np.ndarray
    splits: dict[str, tuple[int, int]]
    characters: dict[str, int]
    tokenizer: Tokenizer
    source: str
    name: str
    fingerprint: str
    warnings: list[str] = field(default_factory=list)

    def split(self, name: str) -> np.ndarray:
        """Return the token IDs of a split, uint16 (n,)."""
        begin, end = self.splits[name]
        return self.token_ids[begin:end]

    def release_pages(self) -> None:
        """Release the memory of the token IDs that have been read from disk."""
        disk_cache.release_pages(self.token_ids)

    def describe(self) -> dict[str, Any]:
        """Return the entry ``data`` of run.json."""
        return {
            "source": self.source,
            "fingerprint": self.fingerprint,
            "splits": {name: end - begin for name, (begin, end) in self.splits.items()},
            "characters": self.characters,
            "vocab_size": self.tokenizer.vocab_size,
            "warnings": self.warnings,
        }

    def summary(self) -> list[tuple[str, str]]:
        """Return labels and values of what was read, for the block that is printed before training."""
        splits = ", ".join(f"{end - begin:,} {name}" for name, (begin, end) in self.splits.items())
        kind = type(self.tokenizer).__name__.removesuffix("Tokenizer")
        kind = {"Char": "character", "Byte": "byte"}.get(kind, kind)
        return [
            ("Data", self.source),
            ("Text", f"{sum(self.characters.values()):,} characters"),
            ("Tokens", f"{splits}; {kind} tokenizer, {self.tokenizer.vocab_size:,} different tokens"),
        ]


def load(
    data: Source | str,
    *,
    tokenizer: Tokenizer | str = "char",
    vocab_size: int | None = None,
    validation_tail: float | None = None,
    limit: int | None = None,
    text_column: str | None = None,
    encoding: str | None = None,
    cache_dir: Path | None = None,
) -> Corpus:
    """Read a corpus, train its tokenizer on the training split, and store its token IDs on disk.

    Predefined splits are kept. Otherwise, the last 10 % of the text (at most a million characters) are the test split,
    the 10 % before them are the validation split, and the rest is the training split.

    Args:
        data: A value of ``--data``, or a resolved source.
        tokenizer: "char", "byte" or "bpe" for a new tokenizer, or an existing one.
        vocab_size: Vocabulary size of a new bpe tokenizer.
        validation_tail: Fraction at the end of the text for validation. All other text is for training, and there is no
            test split.
        limit: Maximum number of characters.
        text_column: Column of the texts in a table, by name or position.
        encoding: Character encoding; by default UTF-8, or UTF-16 or UTF-32 with a byte order mark.
        cache_dir: Folder of the token IDs; by default that of ``disk_cache``.

    Raises:
        UserError: If there is no text, or it cannot be read.
    """
    src = source.resolve(data) if isinstance(data, str) else data
    documents = Documents(src, text_column, encoding, limit)
    characters = _split_characters(documents, validation_tail)
    if isinstance(tokenizer, str):
        train = CharacterStream(documents.read()).take(characters["train"])
        if tokenizer == "bpe" and characters["train"] > MAX_TRAINING_CHARACTERS:
            documents.warnings.append(
                f"The tokenizer is trained on the first {MAX_TRAINING_CHARACTERS:,} of the {characters['train']:,} "
                "characters of the training split."
            )
        tokenizer = _train_tokenizer(tokenizer, vocab_size or BPE_VOCAB_SIZE, train)
    return _tokenize(documents, characters, tokenizer, cache_dir or disk_cache.default_folder())


class CharacterStream:
    """Chunks of text from which exact numbers of characters can be taken."""

    def __init__(self, chunks: Iterator[str]):
        self._chunks, self._rest = chunks, ""

    def take(self, count: int) -> Iterator[str]:
        """Yield the next ``count`` characters in chunks, or fewer if the text ends."""
        while count:
            chunk = self._rest or next(self._chunks, None)
            if chunk is None:
                return
            self._rest = chunk[count:]
            yield chunk[:count]
            count -= min(count, len(chunk))


class Documents:
    """The documents of a source, which can be read several times.

    Args:
        src: The source.
        text_column: Column of the texts in a table.
        encoding: Character encoding; None for UTF-8 or that of a byte order mark.
        limit: Maximum number of characters.

    Attributes:
        source: The source.
        splits: The predefined splits, or "" alone if there are none.
        warnings: Sentences about what is left out.

    Raises:
        UserError: If the source is no corpus, or cannot be read.
    """

    def __init__(
        self, src: Source, text_column: str | None = None, encoding: str | None = None, limit: int | None = None
    ):
        self.source, self._encoding, self._limit = src, encoding, limit
        self.warnings: list[str] = []
        self._documents = self._list(text_column)
        self.splits = list(self._documents)
        if limit and self.splits != [""]:
            raise UserError(f"{src.spec} has predefined splits, which --limit would cut: leave --limit out.")

    def read(self, split: str | None = None) -> Iterator[str]:
        """Yield the text of a split, or of all splits in order, in chunks, with a line break between two documents."""
        selected = self._documents if split is None else {split: self._documents[split]}
        chunks = (chunk for documents in selected.values() for chunk in self._join(documents))
        return CharacterStream(chunks).take(self._limit) if self._limit else chunks

    def warn_of_limit(self) -> None:
        """Add a warning if the text is longer than the limit."""
        if self._limit:
            chunks = (chunk for documents in self._documents.values() for chunk in self._join(documents))
            stream = CharacterStream(chunks)
            collections.deque(stream.take(self._limit), maxlen=0)
            if any(stream.take(1)):
                self.warnings.append(f"--limit uses the first {self._limit:,} characters of the text only.")

    def _join(self, documents: list[Path | str]) -> Iterator[str]:
        for i, document in enumerate(documents):
            if i:
                yield "\n"
            yield from self._read_file(document) if isinstance(document, Path) else [document]

    def _read_file(self, path: Path) -> Iterator[str]:
        """Yield the text of a file in chunks, which are decoded one by one."""
        with encodings.open_text(path, self._encoding) as file:
            line = 1
            while chunk := file.read(CHUNK_CHARACTERS):
                if "\0" in chunk:
                    raise UserError(encodings.describe_nul(path, line + chunk.count("\n", 0, chunk.index("\0"))))
                line += chunk.count("\n")
                yield chunk

    def _list(self, text_column: str | None) -> dict[str, list[Path | str]]:
        """Return the files or texts of each split; the key is "" if there are no predefined splits."""
        src = self.source
        if src.kind == "text":
            return {"": [src.path]}
        if src.kind == "folder":
            return self._list_folder()
        if src.kind == "table":
            return self._list_cells(text_column)
        if src.kind == "bundled" and src.reference == "python-docs":
            from pydoc_data import topics

            return {"": [topics.topics[name] for name in sorted(topics.topics)]}
        if src.kind == "object":
            return objects.documents(src, text_column)
        if src.kind == "tfds":
            return tfds.read_texts(src.reference)
        raise UserError(
            f"{src.spec} is not a plain-text corpus: give --data a .txt, .md, .py or .gz file, a folder of them, a "
            "table with a column of texts, python-docs, or a TFDS name such as tiny_shakespeare."
        )

    def _list_cells(self, text_column: str | None) -> dict[str, list[Path | str]]:
        """Return the cells of a table's column of texts, by split."""
        documents: dict[str, list[Path | str]] = {}
        empty = 0
        for split, paths in (self.source.splits or {"": (self.source.path,)}).items():
            for table in tables.read_tables(list(paths), encoding=self._encoding):
                cells = table.columns[table.find(text_column, tables.TEXT_COLUMNS, "text")]
                texts = [_cell_text(cell) for cell in cells]
                documents.setdefault(split, []).extend(text for text in texts if text)
                empty += texts.count("")
        if empty:
            rows = "1 row" if empty == 1 else f"{empty:,} rows"
            self.warnings.append(f"Left out, because they have no text: {rows} of {self.source.spec}.")
        return documents

    def _list_folder(self) -> dict[str, list[Path | str]]:
        """Return the text files of a folder, by split if every file is named after one and train and test exist."""
        src, paths, other = self.source, [], collections.Counter()
        for file in folders.list_files(self.source.path):
            path = Path(file.path)
            suffix = path.suffix.lower()
            if suffix in TEXT_SUFFIXES:
                paths.append(path)
            else:
                other[suffix or "no suffix"] += 1
        if not paths:
            types = ", ".join(TEXT_SUFFIXES)
            raise UserError(f"No texts in {src.spec}: give a folder with files of the types {types}.")
        if other:
            types = ", ".join(f"{count:,} × {suffix}" for suffix, count in other.most_common(MAX_LISTED_TYPES))
            more = ", …" if len(other) > MAX_LISTED_TYPES else ""
            self.warnings.append(
                f"Left out, because {src.spec} is read as files of the types {', '.join(TEXT_SUFFIXES)}: {types}{more}."
            )
        by_split: dict[str, list[Path | str]] = {}
        for path in paths:
            by_split.setdefault(source.split_name(path.name.split(".")[0]) or "", []).append(path)
        if "train" in by_split and "test" in by_split and "" not in by_split:
            return {split: by_split[split] for split in SPLITS if split in by_split}
        return {"": paths}


def _cell_text(cell: Any) -> str:
    """Return the text of a table's cell; an empty cell and NaN give an empty text."""
    if cell is None or cell != cell:  # NaN differs from itself
        return ""
    return encodings.decode(cell) if isinstance(cell, bytes) else str(cell)


def _split_characters(documents: Documents, validation_tail: float | None) -> dict[str, int]:
    """Return the number of characters of each split."""
    counts = {split: sum(map(len, documents.read(split))) for split in documents.splits}
    total = sum(counts.values())
    if not total:
        raise UserError(f"{documents.source.spec} contains no text: give --data a file or folder with text.")
    if validation_tail is not None:
        tail = round(total * validation_tail)
        return {"train": total - tail, "validation": tail}
    if len(counts) == 1:
        held_out = min(round(total * HELD_OUT), MAX_HELD_OUT)
        return {"train": total - 2 * held_out, "validation": held_out, "test": held_out}
    if "validation" in counts:
        return {split: counts[split] for split in SPLITS if split in counts}
    held_out = min(round(counts["train"] * HELD_OUT), MAX_HELD_OUT)  # the end of the training split
    return {"train": counts["train"] - held_out, "validation": held_out, "test": counts["test"]}


def _train_tokenizer(kind: str, vocab_size: int, train: Iterator[str]) -> Tokenizer:
    if kind == "char":
        return CharTokenizer.train(train)
    return ByteTokenizer() if kind == "byte" else BPETokenizer.train(train, vocab_size)


def _tokenize(documents: Documents, characters: dict[str, int], tokenizer: Tokenizer, folder: Path) -> Corpus:
    """Return a corpus whose token IDs are in a file, which is written unless an earlier run has written it."""
    description = json.dumps([tokenizer.to_json(), characters], sort_keys=True)
    digest, max_tokens = hashlib.blake2b(description.encode(), digest_size=16), 0
    for text in documents.read():
        digest.update(raw := text.encode("utf-8", "surrogatepass"))
        max_tokens += len(raw)  # a token of any tokenizer is at least one byte long
    src, fingerprint = documents.source, digest.hexdigest()
    file = disk_cache.DiskCache(folder, f"{src.name}-text-{fingerprint}")
    cached = file.find()
    if cached is None:
        array = file.create((max_tokens, 2), "tokens")
        try:
            facts = _write_tokens(array, documents, characters, tokenizer)
        except BaseException:
            file.discard()
            raise
        cached = file.commit(array, facts), facts
    array, facts = cached
    documents.warn_of_limit()
    return Corpus(
        token_ids=array.view(np.uint16)[: facts["tokens"], 0],
        splits={split: tuple(span) for split, span in facts["splits"].items()},
        characters=characters,
        tokenizer=tokenizer,
        source=src.spec,
        name=src.name,
        fingerprint=fingerprint,
        warnings=[*src.warnings, *documents.warnings, *_warn_of_unknown(facts["unknown"])],
    )


def _write_tokens(
    array: np.ndarray, documents: Documents, characters: dict[str, int], tokenizer: Tokenizer
) -> dict[str, Any]:
    """Write the token IDs of all splits to an array of bytes (n, 2).

    Returns:
        The splits (begin and end of each), the unknown tokens of each split, and the number of tokens.
    """
    splits, unknown, position = {}, {}, 0
    stream = CharacterStream(documents.read())
    for split, count in characters.items():
        begin, unknown[split] = position, 0
        for text in stream.take(count):
            token_ids = tokenizer.encode(text)
            unknown[split] += 0 if tokenizer.unknown_id is None else int((token_ids == tokenizer.unknown_id).sum())
            array[position : position + len(token_ids)] = token_ids.view(np.uint8).reshape(-1, 2)
            position += len(token_ids)
            disk_cache.release_pages(array)
        splits[split] = (begin, position)
    return {"splits": splits, "unknown": unknown, "tokens": position}


def _warn_of_unknown(unknown: dict[str, int]) -> list[str]:
    """Return a warning about the unknown characters of each split, if there are any."""
    total = sum(unknown.values())
    if not total:
        return []
    if unknown["train"]:  # the tokenizer was trained on another text
        return [f"The vocabulary lacks {total:,} characters of the text, which count as unknown."]
    return [f"{total:,} characters of the other splits do not occur in the training split and count as unknown."]
