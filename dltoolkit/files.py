"""Files that are whole or not there at all, and folders into which one process writes at a time."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from dltoolkit.errors import UserError

MARK = ".partial"  # in the names of files that are not complete yet


class NotWritten(UserError):
    """A file could not be written; what was there before is there still."""


class InUse(UserError):
    """Another process writes into the folder."""


@contextlib.contextmanager
def atomic_write(path: Path, suffix: str = "") -> Iterator[Path]:
    """Yield a path beside ``path`` to write to, and rename it into place when the block ends well.

    The content is on the disk before it gets its name: a machine that loses power has the old file or the new one.

    Raises:
        NotWritten: if the disk is full or the directory cannot be written; nothing half-written stays.
    """
    beside = path.with_name(f".{path.name}{MARK}{suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        _put_on_disk(beside)
        os.replace(beside, path)
        _put_on_disk(path.parent)
    except OSError as error:
        raise NotWritten(f"Cannot write {path}: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def _put_on_disk(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left half-written anywhere in a folder; call it in :func:`alone`."""
    for path in folder.rglob(f".*{MARK}*"):
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Keep others out of a folder as long as the block lasts, or this process: a killed one leaves nothing locked.

    Where the file system knows no locks of folders (NFS), nobody is kept out.

    Raises:
        InUse: if another process, or another part of this one, is in there.
    """
    opened = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUse(f"Another process is at work in {folder}: wait until it has ended, or stop it.") from None
        except OSError:
            pass
        yield
    finally:
        os.close(opened)


@contextlib.contextmanager
def new_folder(parent: Path, name: str | None, data_name: str) -> Iterator[Path]:
    """Yield an empty folder for a run, and keep other processes out of it as long as the block lasts.

    Args:
        parent: of the folder; made if it is not there.
        name: of the folder.
        data_name: what it is named after, with a number, where ``name`` is None.

    Raises:
        UserError: if the name is taken or no good, or the folder cannot be made.
    """
    if name is not None and not re.fullmatch(r"[\w][\w.-]*", name):
        raise UserError(f"'{name}' is no name for a run: use letters, digits, '-', '_' and '.'.")
    stem = re.sub(r"[^\w.-]+", "-", data_name).strip("-.") or "run"
    names = [name] if name else (f"{stem}-{number}" for number in itertools.count(1))
    with contextlib.ExitStack() as stack:
        try:
            parent.mkdir(parents=True, exist_ok=True)
            path = next((parent / one for one in names if _is_free(parent / one, stack)), None)
        except OSError as error:
            reason = error.strerror
            raise UserError(f"Cannot write runs to {parent}: {reason}; choose another --out-dir.") from None
        if path is None:
            raise UserError(f"A run '{name}' exists already in {parent}; choose another --name.")
        yield path


def _is_free(path: Path, stack: contextlib.ExitStack) -> bool:
    """Make a directory, or take one that is empty because a process was killed when it had just made it."""
    if (path / "run.json").exists():
        return False
    try:
        path.mkdir(exist_ok=True)
        stack.enter_context(exclusive_lock(path))
    except (FileExistsError, InUse):
        return False
    remove_unfinished(path)
    return not any(path.iterdir())
