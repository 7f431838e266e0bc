"""The files and folders of a data set: hidden ones are left out, and each linked folder counts once."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dltoolkit.errors import UserError

IGNORED_FOLDERS = ("__MACOSX", "@eaDir")  # left by archives made on a Mac, and by network drives with thumbnails


class File(NamedTuple):
    """A file in a folder: its path, its size in bytes and its modification time in nanoseconds."""

    path: str
    size: int
    mtime: int


def subfolders(folder: Path) -> list[Path]:
    """Return the visible folders directly inside a folder, sorted by name."""
    return sorted(Path(entry.path) for entry in visible_entries(folder) if os.path.isdir(entry.path))


def files_directly_in(folder: Path) -> list[Path]:
    """Return what is visible directly inside a folder and is no folder, sorted by name."""
    return sorted(Path(entry.path) for entry in visible_entries(folder) if not os.path.isdir(entry.path))


def list_files(folder: Path, visited: dict[str, str] | None = None) -> list[File]:
    """Return all visible files anywhere below a folder, sorted by path.

    Links to files and to folders elsewhere are followed, and each folder is listed once. Links that lead nowhere,
    pipes, devices and sockets are in the list as well, so that reading them names the reason.

    Args:
        folder: The folder.
        visited: The folders that were listed before for other classes: their names by their real paths. Those of this
            folder are added.

    Raises:
        UserError: If a link leads to a folder that contains this one, or to a folder that was listed before.
    """
    visited = {} if visited is None else visited
    files: list[File] = []
    top = os.path.realpath(folder)
    _refuse_repeated(str(folder), visited.get(top))
    own, pending = {top: str(folder)}, [str(folder)]
    while pending:
        for entry in visible_entries(pending.pop()):
            try:
                if entry.is_dir():
                    real = os.path.realpath(entry.path)
                    _refuse_repeated(entry.path, visited.get(real))
                    if real != top and top.startswith(os.path.join(real, "")):
                        raise UserError(f"{entry.path} is a link to a folder that contains {folder}: remove the link.")
                    if real not in own:
                        own[real] = entry.path
                        pending.append(entry.path)
                elif entry.is_file():
                    status = entry.stat()
                    files.append(File(entry.path, status.st_size, status.st_mtime_ns))
                else:
                    files.append(File(entry.path, 0, 0))
            except OSError:  # a link to itself, or into a folder without permission
                files.append(File(entry.path, 0, 0))
    visited.update(own)
    return sorted(files)


def _refuse_repeated(folder: str, other: str | None) -> None:
    if other is not None:
        raise UserError(
            f"{other} and {folder} are the same folder, because one is a link or contains one, so that its files would "
            "belong to two classes: remove the link."
        )


def find_nested_folders(files_by_folder: dict[Path, list[File]], spec: str) -> list[str]:
    """Return a nested folder of each class folder, such as "animal/cat", if all of them contain different folders.

    Args:
        files_by_folder: The files anywhere below each class folder.
        spec: Value of ``--data``, for messages.

    Raises:
        UserError: If class folders contain the same folders: seg_train/cat, seg_test/cat, …
    """
    folder_of: dict[frozenset[str], Path] = {}
    for folder, files in files_by_folder.items():
        below = [file.path[len(str(folder)) + 1 :].partition(os.sep) for file in files]
        names = frozenset(first if deeper else "" for first, deeper, _ in below)
        if len(names) < 2 or "" in names:
            continue
        if names in folder_of:
            raise UserError(
                f"'{folder_of[names].name}' and '{folder.name}' in {spec} contain the same folders "
                f"({', '.join(sorted(names)[:3])}, …), which look like the classes: give --data one of them, "
                "or name them train and test."
            )
        folder_of[names] = folder
    if len(files_by_folder) < 2 or len(folder_of) < len(files_by_folder):
        return []
    return [f"{folder.name}/{min(names)}" for names, folder in folder_of.items()]


def visible_entries(folder: Path | str) -> Iterator[os.DirEntry]:
    """Yield the entries of a folder except hidden ones and ``IGNORED_FOLDERS``."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.name not in IGNORED_FOLDERS:
                    yield entry
    except PermissionError:
        raise UserError(f"No permission to read the folder {folder}: change its permissions.") from None
    except OSError as error:
        raise UserError(f"The folder {folder} cannot be read: {error.strerror or error}.") from None
