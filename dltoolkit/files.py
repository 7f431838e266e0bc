"""Atomic writing of files, and folders that one process at a time may change."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import filelock

from dltoolkit.errors import UserError

PARTIAL_MARK = ".partial"  # part of the names of files that are not complete
LOCK_FILE = ".lock"  # the file in a folder that the process locks which may change the folder
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # errors of file systems that do not support locks


class WriteError(UserError):
    """A file could not be written. The previous file of that name is unchanged."""


class FolderInUse(UserError):
    """Another process holds the lock of a folder."""


@contextlib.contextmanager
def atomic_write(path: Path, suffix: str = "") -> Iterator[Path]:
    """Yield a temporary path to write to, and rename it to ``path`` when the block ends without an error.

    The content is flushed to the disk before the renaming. After a power failure, ``path`` holds either the old or the
    new content.

    Args:
        path: The file to write. Its folder is created if necessary.
        suffix: A suffix of the temporary path, for writers that require one.

    Raises:
        WriteError: If the disk is full or the folder is not writable. No partial file remains.
    """
    partial = path.with_name(f".{path.name}{PARTIAL_MARK}{suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
        _flush_folder(path.parent)
    except OSError as error:
        raise WriteError(f"Cannot write {path}: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":  # Windows cannot open a folder as a file
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partial_files(folder: Path) -> None:
    """Remove the partial files that killed processes left in a folder; call it while holding the folder's lock."""
    for path in folder.rglob(f".*{PARTIAL_MARK}*"):
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Hold the exclusive lock of a folder inside the block. The operating system releases it if the process is killed.

    On a file system without locks, such as some network file systems, the block runs without a lock.

    Raises:
        FolderInUse: If another process, or another block of this process, holds the lock.
        WriteError: If the folder is not writable.
    """
    path = folder / LOCK_FILE
    if path.is_symlink():  # some versions of filelock would truncate the file that the link points to
        raise WriteError(f"Cannot write {path}: it is a symbolic link.")
    lock = filelock.FileLock(path, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise FolderInUse(
            f"Another process is using {folder}: wait until that process has ended, or stop it."
        ) from None
    except NotImplementedError:
        pass
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise WriteError(f"Cannot write {path}: {error.strerror or error}.") from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def new_folder(parent: Path, name: str | None, default_name: str) -> Iterator[Path]:
    """Yield a new, empty folder for a run, and hold its lock inside the block.

    A numbered name is unique among the folders of all parents next to ``parent``, which are those of the other recipes,
    so that the name alone identifies the run.

    Args:
        parent: The folder's parent, created if necessary.
        name: The folder's name; None for a numbered name.
        default_name: The first part of a numbered name.

    Raises:
        UserError: If the name is invalid or taken, or the folder cannot be created.
    """
    if name is not None and not re.fullmatch(r"[\w][\w.-]*", name):
        raise UserError(f"'{name}' is not a valid name for a run: use letters, digits, '-', '_' and '.'.")
    stem = re.sub(r"[^\w.-]+", "-", default_name).strip("-.") or "run"
    names = [name] if name else (f"{stem}-{number}" for number in itertools.count(1))
    with contextlib.ExitStack() as stack:
        try:
            parent.mkdir(parents=True, exist_ok=True)
            path = next((parent / each for each in names if _claim(parent / each, stack, unique=name is None)), None)
        except OSError as error:
            raise UserError(f"Cannot write runs to {parent}: {error.strerror}; choose another --out-dir.") from None
        if path is None:
            raise UserError(f"A run '{name}' already exists in {parent}; choose another --name.")
        yield path


def _claim(path: Path, stack: contextlib.ExitStack, *, unique: bool) -> bool:
    """Create and lock a folder, and return whether that succeeded.

    A folder that holds only partial files is taken over: a process was killed right after it had created the folder.

    Args:
        path: The folder.
        stack: Holds the lock.
        unique: Whether no folder of the same name may exist in the folders next to its parent.
    """
    if unique and any(other != path for other in path.parent.parent.glob(f"*/{path.name}")):
        return False
    try:
        path.mkdir(exist_ok=True)
        if not _is_unused(path):
            return False
        stack.enter_context(exclusive_lock(path))
    except (FileExistsError, FolderInUse):
        return False
    if unique and any(other < path for other in path.parent.parent.glob(f"*/{path.name}")):
        shutil.rmtree(path)  # another process has claimed the name at the same moment, and the first path keeps it
        return False
    remove_partial_files(path)
    return _is_unused(path)


def _is_unused(folder: Path) -> bool:
    return all(path.name == LOCK_FILE or PARTIAL_MARK in path.name for path in folder.iterdir())
