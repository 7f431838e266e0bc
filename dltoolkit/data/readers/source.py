"""What ``--data`` means: a path, a bundled name, ``keras:NAME`` or a TFDS name.

Nothing here opens a picture or a text or imports TensorFlow, so a wrong path is answered at once. The layout rules
(which folder or file is the test split, which folders are classes) serve pictures and texts alike.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from dltoolkit.data.readers import catalog as catalogue
from dltoolkit.errors import UserError, did_you_mean

PARTS = ("train", "validation", "test")
PART_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
TEXT_SUFFIXES = (".txt", ".md", ".py", ".gz")
FILE_SUFFIXES = (*TABLE_SUFFIXES, ".npz", *TEXT_SUFFIXES)
BUNDLED = {
    "digits": "1,797 handwritten digits, 8x8 pixels, 10 classes (scikit-learn)",
    "python-docs": "the language reference that comes with Python (pydoc's topics), running text",
    "reviews": "2,496 short reviews written for dltoolkit, half of them positive: plain, negated, mixed and ironic",
}

LITTER = ("__MACOSX", "@eaDir")  # of archives made on a Mac, and of network drives with thumbnails

FORMS = (
    "a folder of class folders, a .csv, .tsv, .jsonl, .parquet, .npz or .txt file, "
    f"a bundled name ({', '.join(BUNDLED)}), keras:NAME, or a TFDS name such as fashion_mnist"
)


@dataclass(frozen=True)
class Source:
    """Where data come from; reading them is the job of ``images`` and its siblings.

    Attributes:
        said: what the user wrote.
        kind: which reader is responsible.
        name: short, safe in file names: "digits", "fashion_mnist", the folder's or file's name.
        path: the folder or file of kinds "folder", "table", "npz" and "text".
        parts: for a folder or table that brings its own splits, where "train" and its siblings are (a split may be
            several files); empty otherwise.
        reference: the bundled, Keras or TFDS name ("mnist", "mnist_corrupted/spatter").
        warnings: what was left aside, in plain sentences.
    """

    said: str
    kind: Literal["folder", "table", "npz", "text", "bundled", "keras", "tfds"]
    name: str
    path: Path | None = None
    parts: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    reference: str = ""
    warnings: tuple[str, ...] = ()


class File(NamedTuple):
    """A file found in a folder: its path, size in bytes and modification time in nanoseconds."""

    path: str
    size: int
    mtime: int


def bundled() -> dict[str, str]:
    """Return the data sets that come with the toolkit and need no network: name -> one line about it."""
    return dict(BUNDLED)


def resolve(data: str) -> Source:
    """Say what ``data`` (the value of ``--data``) stands for.

    An existing path comes first, then bundled names, ``keras:NAME``, ``tfds:NAME/CONFIG`` and plain TFDS names.

    Raises:
        UserError: if it is none of these, or a folder that is empty or whose splits make no sense.
    """
    data = str(data)
    path = Path(os.path.expanduser(data))
    if data.strip() and _exists(path):
        return _folder(data, path) if path.is_dir() else _file(data, path)
    if data in BUNDLED:
        return Source(data, "bundled", data, reference=data)
    scheme, colon, name = data.partition(":")
    if colon and scheme == "keras":
        if name not in catalogue.KERAS_NAMES:
            raise UserError(
                f"There is no Keras data set '{name}'.{did_you_mean(name, catalogue.KERAS_NAMES)} "
                f"Known are: {', '.join(catalogue.KERAS_NAMES)}."
            )
        return Source(data, "keras", name, reference=name)
    if colon and scheme == "tfds" and name:
        return Source(data, "tfds", _safe(name), reference=name)
    if "/" in data or os.sep in data or data.startswith((".", "~")) or path.suffix.lower() in FILE_SUFFIXES:
        raise UserError(f"There is no such file or folder: {data}.{_sibling(path)}")
    if catalogue.is_tfds_name(data):
        return Source(data, "tfds", _safe(data), reference=data)
    near = did_you_mean(data, BUNDLED) or did_you_mean(data, catalogue.tfds_names())
    raise UserError(f"There is no data set and no file called '{data}'.{near} --data takes {FORMS}.")


def same(data: str, other: str) -> bool:
    """Return whether two values of ``--data`` mean the same examples, without splits of their own."""
    one, two = resolve(data), resolve(other)
    return (one.path, one.reference) == (two.path, two.reference) and not one.parts


def part_of(name: str) -> str | None:
    """Return "train", "validation" or "test" if ``name`` (a folder's name or a file's stem) means one, or None."""
    return PART_NAMES.get(name.lower())


def subfolders(folder: Path) -> list[Path]:
    """Return the visible folders directly inside ``folder``, sorted by name."""
    return sorted(Path(entry.path) for entry in _entries(folder) if os.path.isdir(entry.path))


def files(folder: Path) -> list[File]:
    """Return all visible files anywhere under ``folder``, sorted by path. Links to folders are followed once."""
    found: list[File] = []
    waiting, seen = [str(folder)], {os.path.realpath(folder)}
    while waiting:
        for entry in _entries(waiting.pop()):
            try:
                if entry.is_dir():
                    real = os.path.realpath(entry.path)
                    if real not in seen:
                        seen.add(real)
                        waiting.append(entry.path)
                elif entry.is_file():
                    status = entry.stat()
                    found.append(File(entry.path, status.st_size, status.st_mtime_ns))
                elif entry.is_symlink():  # a dangling link: reading it will say so
                    found.append(File(entry.path, 0, 0))
            except OSError:  # a link to itself, or into a closed folder
                found.append(File(entry.path, 0, 0))
    return sorted(found)


def classes_in_order(names: set[str]) -> list[str]:
    """Return class names sorted, as numbers if all of them are whole numbers (2 before 10)."""
    numbers = all(re.fullmatch(r"[+-]?\d{1,18}", name) for name in names)
    return sorted(names, key=lambda name: (int(name), name)) if numbers else sorted(names)


def _entries(folder: Path | str) -> Iterator[os.DirEntry]:
    """Yield what a folder holds, without hidden files and the litter of archives and file servers."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith(".") and entry.name not in LITTER)
    except PermissionError:
        raise UserError(f"No permission to read the folder {folder}: change its permissions.") from None
    except OSError as error:
        raise UserError(f"The folder {folder} cannot be read: {error.strerror or error}.") from None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, or holds a NUL
        return False


def _safe(name: str) -> str:
    """Return ``name`` made fit for a run's name: letters, digits, dot, dash and underscore, at most 40."""
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.")[:40] or "data"


def _sibling(path: Path) -> str:
    """Return a hint if the folder where ``path`` should be has something of nearly that name."""
    try:
        return did_you_mean(path.name, os.listdir(path.parent))
    except OSError:
        return ""


def _file(said: str, path: Path) -> Source:
    suffix = path.suffix.lower()
    if suffix not in FILE_SUFFIXES:
        raise UserError(
            f"{said} is a file that cannot be trained on: --data takes {FORMS} (a single picture goes to predict)."
        )
    kind = "table" if suffix in TABLE_SUFFIXES else "text" if suffix in TEXT_SUFFIXES else "npz"
    return Source(said, kind, _safe(Path(path.name.removesuffix(".gz")).stem), path)


def _folder(said: str, path: Path) -> Source:
    name = _safe(path.resolve().name)
    entries = list(_entries(path))
    if not entries:
        raise UserError(f"The folder {said} is empty: --data takes {FORMS}.")
    paths = [Path(entry.path) for entry in entries]
    tables = sorted(path for path in paths if os.path.isfile(path) and path.suffix.lower() in TABLE_SUFFIXES)
    folders = sorted(path for path in paths if os.path.isdir(path))
    if any(part_of(folder.name) == "train" and subfolders(folder) for folder in folders):
        return _class_folders(said, name, path, folders)
    named: dict[str, tuple[Path, ...]] = {}
    for table in tables:
        if part := _part_of_file(table):
            named[part] = (*named.get(part, ()), table)
    if named:
        if "train" not in named:
            raise UserError(f"{said} has a table for {_listed(named)} but none named train (such as train.csv).")
        _one_kind(said, named)
        return Source(said, "table", name, path, _ordered(named))
    if len(tables) == 1 and len(folders) <= 1:  # labels.csv beside a folder of pictures
        return Source(said, "table", name, tables[0])
    return _class_folders(said, name, path, folders)


def _class_folders(said: str, name: str, path: Path, folders: list[Path]) -> Source:
    """Tell class folders from split folders: those are split folders that hold class folders themselves."""
    named: dict[str, tuple[Path, ...]] = {}
    inner = {folder: subfolders(folder) for folder in folders if part_of(folder.name)}
    for folder, classes in inner.items():
        part = part_of(folder.name)
        if part in named:
            raise UserError(f"{said} has two folders for {part}, {named[part][0].name} and {folder.name}: keep one.")
        if classes:
            named[part] = (folder,)
    if "train" in named:
        aside = [folder.name for folder in folders if (folder,) not in named.values()]
        warnings = (f"Left aside in {said}: {', '.join(aside)} (no class folders of a split).",) if aside else ()
        return Source(said, "folder", name, path, _ordered(named), warnings=warnings)
    if named and len(inner) == len(folders):
        raise UserError(f"{said} has a folder for {_listed(named)} but none for train.")
    return Source(said, "folder", name, path)


def _part_of_file(path: Path) -> str | None:
    """Return the split of train.csv, val.jsonl, train-00000-of-00002.parquet or test_1.csv."""
    match = re.fullmatch(r"([a-z]+)([-_.]?\d.*)?", path.stem.lower())
    return part_of(match[1]) if match else None


def _one_kind(said: str, named: dict[str, tuple[Path, ...]]) -> None:
    suffixes = sorted({path.suffix.lower() for paths in named.values() for path in paths})
    if len(suffixes) > 1:
        raise UserError(f"{said} has tables of several types ({', '.join(suffixes)}): keep one type for all splits.")


def _ordered(named: dict[str, tuple[Path, ...]]) -> dict[str, tuple[Path, ...]]:
    return {part: named[part] for part in PARTS if part in named}


def _listed(named: dict) -> str:
    return " and ".join(part for part in PARTS if part in named)
