"""Files that the cells of a table name: paths of any operating system and Unicode form, and IDs without a suffix."""

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from dltoolkit.data.readers.folders import list_files


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
                name without a folder may also stand for a file anywhere below ``folder``, if only one file has it.
            folder: Folder of the table.
        """
        written = folder / os.path.expanduser(name)
        if _is_file(written):
            return written
        with_slashes = name.replace("\\", "/")
        for form in ("NFC", "NFD"):
            path = folder / unicodedata.normalize(form, with_slashes)
            endings = [ending for suffix in self._suffixes for ending in (suffix, suffix.upper())] if path.name else []
            for candidate in (path, *(path.with_name(path.name + ending) for ending in endings)):
                if _is_file(candidate):
                    return candidate
        if "/" not in with_slashes:
            matches = self._index(folder).get(unicodedata.normalize("NFC", with_slashes), ())
            if len(matches) == 1:
                return Path(matches[0])
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


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # the name is too long or contains a NUL
        return False
