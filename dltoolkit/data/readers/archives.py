"""Archives of folders (.zip and .tar), which are unpacked once into the cache.

An archive may come from a stranger: only regular files and folders inside the target are written, links and devices are
refused, and the bytes and files that are written are bounded whatever the archive says about its size.
"""

import atexit
import contextlib
import functools
import hashlib
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO, Any

from dltoolkit.data.readers import bounded
from dltoolkit.errors import UserError
from dltoolkit.files import WriteError, open_regular

SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tbz2", ".txz")
MIN_ENTRY_BYTES = 50  # compressed size of an entry with its name; of smaller ones, only MIN_FILES are unpacked
MIN_FILES = 100_000
MAX_HEADER_BYTES = 1_000_000  # of the headers of one entry of a .tar, which are read into memory
MAX_UNUSED_DAYS = 30  # days after which an unpacked archive that no run has used is removed
CHUNK_BYTES = 1 << 20
REMEDY = "unpack it yourself if you trust it"
ENCRYPTED = 1  # flag of the entry of a .zip


def suffix(path: Path) -> str | None:
    """Return the suffix in ``SUFFIXES`` that a file name ends in, or None."""
    return next((end for end in sorted(SUFFIXES, key=len, reverse=True) if path.name.lower().endswith(end)), None)


def unpack(path: Path, folder: Path) -> Path:
    """Return the folder below ``folder`` to which an archive is unpacked, unless it was already.

    A change of the archive's path, size or time leads to another folder.

    Raises:
        UserError: If the archive is damaged, contains anything but files and folders, or is too large unpacked.
    """
    from dltoolkit import progress  # imports Rich, which takes a noticeable part of the time of --help

    status = path.stat()
    identity = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    folder = _writable(folder / "archives")
    target = folder / hashlib.blake2b(identity.encode(errors="surrogateescape"), digest_size=12).hexdigest()
    if not target.is_dir():
        _remove_unused(target.parent)
        partial = target.with_name(f".{target.name}-{os.getpid()}")
        try:
            partial.mkdir(parents=True, exist_ok=True)
            with progress.phase(f"Unpacking {path.name}"):
                _write_members(path, partial, bounded.unpacked_limit(status.st_size))
            _rename(partial, target)
        except OSError as error:
            raise WriteError(f"Cannot unpack {path} to {target.parent}: {error.strerror or error}.") from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    os.utime(target)
    return target


def _writable(folder: Path) -> Path:
    """Return a folder, or one that is removed when the process ends if it cannot be written."""
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    return _temporary_folder()


@functools.cache
def _temporary_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="dltoolkit-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def top_folder(target: Path) -> Path:
    """Return the only folder in an unpacked archive, or ``target`` itself if it has other files or folders."""
    entries = [entry for entry in target.iterdir() if not entry.name.startswith(".") and entry.name != "__MACOSX"]
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else target


def names_archive(list_examples: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a function that lists a source: its errors and warnings name an archive instead of the unpacked folder.

    Args:
        list_examples: Takes a ``Source``; returns a ``Listing``.
    """

    @functools.wraps(list_examples)
    def listing(source: Any, *args: Any, **options: Any) -> Any:
        def rename(message: str) -> str:
            return message.replace(str(source.unpacked), source.spec) if source.unpacked else message

        try:
            result = list_examples(source, *args, **options)
        except UserError as error:
            raise UserError(rename(str(error))) from None
        return replace(result, warnings=[rename(warning) for warning in result.warnings])

    return listing


def _write_members(path: Path, target: Path, limit: int) -> None:
    """Write the files of an archive below ``target``; a UserError says why it cannot be unpacked."""
    total = count = 0
    max_files, free = max(MIN_FILES, path.stat().st_size // MIN_ENTRY_BYTES), shutil.disk_usage(target).free
    try:
        for name, file in _zip_members(path) if suffix(path) == ".zip" else _tar_members(path):
            count += 1
            if count > max_files:
                raise UserError(f"{path} has more than {max_files:,} entries, as harmful archives have: {REMEDY}.")
            if file is None:  # a folder
                continue
            place = target.joinpath(*_safe_parts(name, path))
            place.parent.mkdir(parents=True, exist_ok=True)
            with file, open(place, "xb") as out:
                while chunk := file.read(CHUNK_BYTES):
                    total += len(chunk)
                    if total > limit:
                        raise UserError(bounded.too_large(path))
                    if total > free // 2:
                        raise UserError(
                            f"{path} would fill more than half of the free disk space at {target.parent}: set "
                            "XDG_CACHE_HOME to a larger disk."
                        )
                    out.write(chunk)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise UserError(f"{path} contains two entries of the name '{name}': pack it again.") from None
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        raise UserError(f"{path} cannot be unpacked: {error or 'it is damaged'}.") from None
    except (RuntimeError, NotImplementedError) as error:  # RecursionError of a path of thousands of folders, too
        raise UserError(f"{path} cannot be unpacked: {error}.") from None
    except OSError as error:
        if error.errno is None:  # damaged data of gzip
            raise UserError(f"{path} cannot be unpacked: {error}.") from None
        raise


def _zip_members(path: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if member.is_dir():
                yield member.filename, None
                continue
            if kind not in (0, stat.S_IFREG):
                raise UserError(_refusal(path, member.filename))
            if member.flag_bits & ENCRYPTED:
                raise UserError(f"{path} is encrypted: unpack it first, and give --data the folder.")
            yield member.filename, archive.open(member)


def _tar_members(path: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    with open_regular(path) as file:
        content = bounded.LimitedReader(
            bounded.decompressed(path, file), MAX_HEADER_BYTES, f"{path} has an entry with a harmful header: {REMEDY}."
        )
        # as a stream, so that a damaged archive is not read twice
        with tarfile.open(fileobj=content, mode="r|") as archive:
            while member := archive.next():
                if not member.isdir() and not member.isreg():
                    raise UserError(_refusal(path, member.name))
                content.remaining = MAX_HEADER_BYTES + (0 if member.isdir() else member.size)
                yield member.name, None if member.isdir() else archive.extractfile(member)
                archive.members.clear()
                content.remaining = MAX_HEADER_BYTES


def _safe_parts(name: str, path: Path) -> tuple[str, ...]:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or parts[0].startswith("/") or ".." in parts or ":" in parts[0] or "\0" in name:
        raise UserError(f"{path} contains '{name}', which lies outside of the folder of the archive: pack it again.")
    return parts


def _refusal(path: Path, name: str) -> str:
    return f"{path} contains '{name}', which is a link or no regular file: pack it again with files and folders only."


def _rename(partial: Path, target: Path) -> None:
    try:
        partial.rename(target)
    except OSError:
        if not target.is_dir():  # otherwise, another process has unpacked the archive meanwhile
            raise


def _remove_unused(folder: Path) -> None:
    limit = time.time() - MAX_UNUSED_DAYS * 86_400
    for path in folder.glob("*") if folder.is_dir() else ():
        if path.stat().st_mtime < limit:
            shutil.rmtree(path, ignore_errors=True)
