"""Files that the cells of a table name: paths of any operating system and Unicode form, and IDs without a suffix."""

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from dltoolkit.data.readers.folders import list_files
from dltoolkit.errors import UserError


class FileFinder:
    """Find the files that the cells of a table name.

    Args:
        suffixes: Suffixes of files that are found for a name without one.
    """

    def __init__(self, suffixes: Sequence[str]):
        self._suffixes = tuple(suffixes)
        self._files_by_name: dict[Path, dict[str, list[str]]] = {}  # of each folder, filled when a name needs it

    def find(self, name: str, folder: Path) -> Path:
        """Return the file that a cell names, or the path as it is written if there is no such file.

        Args:
            name: Path relative to ``folder``, or absolute; with slashes or backslashes, with or without a suffix. A
                name without a folder may also stand for a file anywhere below ``folder``.
            folder: Folder of the table.

        Raises:
            UserError: If the name, without its suffix or its folder, stands for several files.
        """
        written = folder / os.path.expanduser(name)
        if _is_file(written):
            return written
        with_slashes = name.replace("\\", "/")
        for form in ("NFC", "NFD"):
            path = folder / unicodedata.normalize(form, with_slashes)
            if _is_file(path):
                return path
            endings = [ending for suffix in self._suffixes for ending in (suffix, suffix.upper())] if path.name else []
            candidates = [path.with_name(path.name + ending) for ending in endings]
            if files := [candidate for candidate in candidates if _is_file(candidate)]:
                return _single(files, name, "its suffix")
        if "/" not in with_slashes:
            matches = self._index(folder).get(unicodedata.normalize("NFC", with_slashes), ())
            if matches:
                return _single([Path(match) for match in matches], name, "its folder and its suffix")
        return written

    def _index(self, folder: Path) -> dict[str, list[str]]:
        """Return the paths below a folder by the file's name, with and without its suffix."""
        if folder not in self._files_by_name:
            index = self._files_by_name[folder] = {}
            for file in list_files(folder):
                path = Path(file.path)
                if path.suffix.lower() in self._suffixes:
                    for name in {path.name, path.stem}:
                        index.setdefault(unicodedata.normalize("NFC", name), []).append(file.path)
        return self._files_by_name[folder]


def _single(files: list[Path], name: str, what: str) -> Path:
    """Return the first of the files if the others are the same, as in folders that ignore case."""
    if other := next((file for file in files[1:] if not file.samefile(files[0])), None):
        raise UserError(f"The name '{name}' in the table means both {files[0]} and {other}: write {what} too.")
    return files[0]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # the name is too long or contains a NUL
        return False
