"""Reading of regular files only, atomic writing of files, and folders that one process at a time may change."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from dltoolkit.errors import UserError

CHUNK_BYTES = 1 << 20  # that are hashed at a time
PARTIAL_MARK = ".partial"  # part of the names of files that are not complete
LATEST = "latest"  # stands for the newest run, so that no run has this name
LOCK_FILE = ".lock"  # the file in a folder that the process locks which may change the folder
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # errors of file systems that do not support locks
KINDS = {  # what is neither a regular file nor a folder, by its type in the mode of ``os.stat``
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFLNK: "a symbolic link",
}
PIPE_AS_INPUT = "a pipe, not a regular file: give - and send the content to stdin"  # reason for predict


class NotRegularFile(OSError):
    """A pipe, device, socket or link where a regular file is needed; ``strerror`` is "a pipe, not a regular file"."""


class WriteError(UserError):
    """A file could not be written. The previous file of that name is unchanged."""


class FolderInUse(UserError):
    """Another process holds the lock of a folder."""


def user_path(text: str | os.PathLike) -> Path:
    """Return the path that a user has written, with the home folder in place of ``~``.

    Raises:
        UserError: If there is no such home folder.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"There is no home folder {Path(text).parts[0]}: write {text} in full.") from None


def special_kind(path: str | os.PathLike, *, follow_links: bool = True) -> str | None:
    """Return "a pipe", "a device", "a socket" or, if links are not followed, "a symbolic link"; None for other paths.

    Files and folders give None, and so does a path that does not exist.
    """
    try:
        return KINDS.get(stat.S_IFMT(os.stat(path, follow_symlinks=follow_links).st_mode))
    except (OSError, ValueError):  # there is no such path, or the name is too long or contains a NUL
        return None


def is_pipe(path: str | os.PathLike) -> bool:
    """Return whether a path names a pipe, such as one that the shell makes for ``<(command)``."""
    return special_kind(path) == KINDS[stat.S_IFIFO]


def open_regular(path: str | os.PathLike, *, follow_links: bool = True) -> BinaryIO:
    """Open a regular file to read its bytes. Everything that is read as a file is opened with this function.

    Pipes, devices and sockets, which could block or never end, are refused before they are opened.

    Args:
        path: The file.
        follow_links: Whether the path may be a symbolic link. Links in the folders above it are followed.

    Raises:
        NotRegularFile: If it is a pipe, a device or a socket, or a link that is not followed.
        OSError: If it is a folder or cannot be opened.
    """
    _require_regular(os.stat(path, follow_symlinks=follow_links), path)  # opening some devices has an effect already
    more_flags = getattr(os, "O_NONBLOCK", 0) | (0 if follow_links else getattr(os, "O_NOFOLLOW", 0))
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | more_flags))  # noqa: SIM115
    try:
        _require_regular(os.fstat(file.fileno()), path)  # it may have been replaced meanwhile
    except OSError:
        file.close()
        raise
    return file


def sha256(path: Path, *, follow_links: bool = True) -> str:
    """Return the SHA-256 of a regular file in hexadecimal digits; the arguments are those of :func:`open_regular`."""
    digest = hashlib.sha256()
    with open_regular(path, follow_links=follow_links) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _require_regular(status: os.stat_result, path: str | os.PathLike) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if kind := KINDS.get(stat.S_IFMT(status.st_mode)):
        raise NotRegularFile(errno.EINVAL, f"{kind}, not a regular file", os.fspath(path))


def refuse_special_files(folder: Path, *, link_targets: Iterable[Path] = ()) -> None:
    """Raise a UserError if a folder from a stranger holds, at any depth, anything but regular files and folders.

    A program that reads or writes below the folder afterward stays inside of it, and does not wait for a pipe.

    Args:
        folder: The folder, which may itself be a link.
        link_targets: Folders to whose regular files links may point, as in the cache of Hugging Face; without links.
    """
    pending, targets = [os.fspath(folder)], list(link_targets)
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    elif not entry.is_file(follow_symlinks=False) and not _points_into(entry, targets):
                        _refuse_special(entry.path, folder)
        except OSError:  # a folder that cannot be listed, or that another process has just removed
            continue


def _points_into(entry: os.DirEntry, folders: list[Path]) -> bool:
    """Return whether an entry is a link to a regular file in one of these folders."""
    target = Path(os.path.realpath(entry.path))
    return entry.is_symlink() and entry.is_file() and any(target.is_relative_to(folder) for folder in folders)


def _refuse_special(path: str, folder: Path) -> None:
    kind = special_kind(path, follow_links=False)
    if kind == KINDS[stat.S_IFLNK]:
        raise UserError(
            f"{path} is a symbolic link, and links inside {folder} are not followed: replace it with what it points "
            "to, or remove it."
        )
    if kind:  # otherwise, another process has just removed it
        raise UserError(f"{path} is {kind}, not a regular file: remove it.")


@contextlib.contextmanager
def atomic_write(path: Path, suffix: str = "") -> Iterator[Path]:
    """Yield a temporary path to write to, and rename it to ``path`` when the block ends without an error.

    The content is flushed to the disk before the renaming. After a power failure, ``path`` holds either the old or the
    new content. A link of either name is replaced, not followed.

    Args:
        path: The file to write. Its folder is created if necessary.
        suffix: A suffix of the temporary path, for writers that require one.

    Raises:
        WriteError: If the disk is full or the folder is not writable. No partial file remains.
    """
    partial = path.with_name(f".{path.name}{PARTIAL_MARK}{suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
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
    import filelock  # a package, which the list of recipes does without

    path = folder / LOCK_FILE
    if kind := special_kind(path, follow_links=False):  # some versions of filelock truncate what a link points to
        raise WriteError(f"Cannot write {path}: it is {kind}.")
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
    if name == LATEST:
        raise UserError(f"'{LATEST}' stands for the newest run: choose another --name.")
    stem = re.sub(r"[^\w.-]+", "-", default_name).strip("-.") or "run"
    names = [name] if name else (f"{stem}-{number}" for number in itertools.count(1))
    with contextlib.ExitStack() as stack:
        try:
            parent.mkdir(parents=True, exist_ok=True)
            path = next((parent / each for each in names if _claim(parent / each, stack, unique=name is None)), None)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG and name and os.path.isdir(parent):
                raise UserError(f"A name of {len(name)} characters is too long: choose a shorter --name.") from None
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
