"""Texts that the arguments of the command line mean: files, folders, glob patterns, tables and literal texts."""

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from dltoolkit.data.readers import folders, source, streams
from dltoolkit.errors import InvalidInput, UserError
from dltoolkit.files import PIPE_AS_INPUT, is_pipe
from dltoolkit.lines import Line

Meaning = Literal["auto", "text", "file"]


def expand(
    words: Iterable[Any],
    *,
    text_column: str | None = None,
    meaning: Meaning = "auto",
    encoding: str | None = None,
) -> Iterator[Any]:
    """Yield the texts of files, folders (their .txt files), glob patterns, tables and literal texts.

    A literal text stays a str, a file becomes a Path, a row of a table a Line, and an unreadable input an InvalidInput.

    Args:
        words: Names and texts. Other objects, and lines of a stream, are yielded as they are.
        text_column: Column of the texts in tables, by name or position; by default, found by its usual names.
        meaning: What a word is: a "text", the name of a "file", or ("auto") a text unless there is a file of this name.
        encoding: Character encoding of tables.
    """
    for word in words:
        if isinstance(word, Line) or not isinstance(word, str) or meaning == "text":
            yield word
            continue
        if is_pipe(word):
            yield InvalidInput(word, PIPE_AS_INPUT)
            continue
        try:
            inputs = list_files(word) if word.strip() else []
            if inputs:
                for path in inputs:
                    yield from (
                        streams.read_table_texts(path, text_column, encoding) if source.table_suffix(path) else [path]
                    )
            elif meaning == "file":
                yield InvalidInput(word, "a URL: download the file" if source.is_url(word) else "no such file")
            else:
                yield word
        except UserError as error:
            yield InvalidInput(word, str(error))


def looks_like_file(word: str) -> bool:
    """Return whether a word that names no file ends like the name of one, and so may be misspelled."""
    path = Path(word)
    is_name = len(word.split()) == 1 and (path.suffix.lower() in source.FILE_SUFFIXES or source.table_suffix(path))
    return bool(is_name) and not list_files(word)


def list_files(word: str) -> list[Path]:
    """Return the files that a name or a glob pattern means; a folder means the .txt files below it, or its tables.

    Raises:
        UserError: If it is a folder without .txt files and tables, or with tables of several splits.
    """
    path = Path(os.path.expanduser(word))
    try:
        if path.is_dir():
            files = [Path(file.path) for file in folders.list_files(path)]
            if files := [file for file in files if file.suffix.lower() == ".txt"]:
                return files
            return _list_tables(word)
        if path.exists():
            return [path]
        matches = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(word) else []
    except (OSError, ValueError):  # a text that is too long for a name, or has a NUL
        return []
    return [Path(name) for name in matches if not os.path.isdir(name)]


def _list_tables(folder: str) -> list[Path]:
    """Return the tables of a folder, such as one that ``save_to_disk`` of Hugging Face datasets has written."""
    try:
        resolved = source.resolve(folder, trains=False)
    except UserError:  # its folder is empty, for example
        resolved = None
    if resolved is None or resolved.kind != "table":
        raise UserError("no .txt files and no tables in this folder")
    if len(resolved.splits) > 1:
        paths = [str(paths[0] if len(paths) == 1 else paths[0].parent) for paths in resolved.splits.values()]
        raise UserError(f"a data set with several splits: give the files of one, such as {paths[-1]}")
    return [path for paths in resolved.splits.values() for path in paths] or [resolved.path]
