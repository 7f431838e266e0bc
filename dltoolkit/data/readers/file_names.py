"""Files that the cells of a table name: paths of any operating system and Unicode form, and IDs without a suffix."""

import functools
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from dltoolkit.data.readers.source import list_files


def find_file(name: str, folder: Path, suffixes: Sequence[str]) -> Path:
    """Return the file that a cell of a table names, or the path as written if there is no such file.

    Args:
        name: Path relative to ``folder``, or absolute; with slashes or backslashes, with or without a suffix. A name
            without a folder may also stand for a file anywhere below ``folder``, if only one file has it.
        folder: Folder of the table.
        suffixes: Suffixes of files that are found for a name without one.
    """
    written = folder / os.path.expanduser(name)
    if _is_file(written):
        return written
    with_slashes = name.replace("\\", "/")
    for form in ("NFC", "NFD"):
        path = folder / unicodedata.normalize(form, with_slashes)
        if _is_file(path):
            return path
        for suffix in suffixes:
            for variant in (suffix, suffix.upper()):
                if _is_file(candidate := path.with_name(path.name + variant) if path.name else path):
                    return candidate
    if "/" not in with_slashes:
        index = _files_by_name(folder, tuple(suffixes))
        matches = index.get(unicodedata.normalize("NFC", with_slashes), ())
        if len(matches) == 1:
            return Path(matches[0])
    return written


@functools.lru_cache(maxsize=8)
def _files_by_name(folder: Path, suffixes: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the paths below a folder by the file's name, with and without its suffix."""
    index: dict[str, list[str]] = {}
    for file in list_files(folder):
        path = Path(file.path)
        if path.suffix.lower() in suffixes:
            for name in {path.name, path.stem}:
                index.setdefault(unicodedata.normalize("NFC", name), []).append(file.path)
    return index


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # the name is too long or contains a NUL
        return False
