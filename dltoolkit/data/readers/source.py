"""Resolution of ``--data``: a path, a bundled name, ``keras:NAME`` or the name of a TFDS data set.

This module opens no image or text and imports neither TensorFlow nor NumPy, so that it refuses a wrong path at once.
Its rules (which folder or file is the test split, which folders are classes) hold for images and texts alike.
"""

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from dltoolkit import data_object
from dltoolkit.data.readers import archives, catalog, table_files
from dltoolkit.data.readers.folders import files_directly_in, subfolders, visible_entries
from dltoolkit.data_object import DataObject
from dltoolkit.errors import UserError, did_you_mean
from dltoolkit.files import special_kind

SPLITS = ("train", "validation", "test")
UNLABELED = "all"  # class of all examples of data without labels
SPLIT_NAMES = {  # names of folders, files and arrays, and the splits that they stand for
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "eval": "validation",
    "evaluation": "validation",
    "test": "test",
    "testing": "test",
    "holdout": "test",
}
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".xlsx", ".parquet", ".arrow")
COMPRESSED_TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".json")  # these types may end in .gz too
TEXT_SUFFIXES = (".txt", ".md", ".py", ".gz")
FILE_SUFFIXES = (*TABLE_SUFFIXES, ".npz", *TEXT_SUFFIXES)
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".m4v", ".wmv")
UNREADABLE = {  # suffixes of files that cannot be read, and what to do with them
    **dict.fromkeys(VIDEO_SUFFIXES, "is a video: extract images from it into class folders, for example with ffmpeg"),
    **dict.fromkeys((".heic", ".heif", ".avif"), "is a HEIC or AVIF image, which cannot be read: convert it to JPEG"),
    **dict.fromkeys((".xls", ".ods"), "is a spreadsheet of a type that cannot be read: save it as .xlsx or .csv"),
    **dict.fromkeys((".rar", ".7z"), "is an archive of a type that cannot be unpacked: unpack it, or pack it as .zip"),
    **dict.fromkeys((".pkl", ".pickle", ".pt", ".pth"), "may contain code, so it is not opened: save arrays as .npz"),
}
BUNDLED = {
    "digits": "1,797 handwritten digits, 8x8 pixels, 10 classes (scikit-learn)",
    "python-docs": "plain text of the language reference that comes with Python (pydoc topics)",
    "reviews": "2,496 short reviews written for dltoolkit, half of them positive: plain, negated, mixed and ironic",
}
KINDS = {  # kinds of sources in words
    "folder": "class folders",
    "table": "table",
    "npz": "arrays",
    "text": "text file",
    "bundled": "bundled",
    "keras": "Keras data set",
    "tfds": "TensorFlow data set",
    "object": "object of a Python program",
}
MAX_NAME_LENGTH = 40  # characters of a source's short name, which becomes part of a run's name
ACCEPTED_DATA = (
    "a folder of class folders, a .zip or .tar of it, a .csv, .tsv, .jsonl, .json, .xlsx, .parquet, .npz or .txt file, "
    f"a bundled name ({', '.join(BUNDLED)}), keras:NAME, or a TFDS name such as fashion_mnist"
)


class NoSuchData(UserError):
    """A value of ``--data`` names nothing."""


@dataclass(frozen=True)
class Source:
    """A resolved value of ``--data``, not read yet.

    Attributes:
        spec: The value of ``--data``.
        kind: Kind of the source, which selects its reader.
        name: Short name that is safe in file names: "digits", "fashion_mnist", or the name of the folder or file.
        path: The folder or file of the kinds "folder", "table", "npz" and "text".
        splits: For a folder or table with predefined splits, the paths of each split in the order of ``SPLITS``; a
            split may have several files. Several files without predefined splits are those of the split "". Empty
            otherwise.
        reference: The bundled, Keras or TFDS name ("mnist", "mnist_corrupted/spatter").
        warnings: Sentences for the user about ignored data.
        value: The data of the kind "object"; see ``objects``.
        unpacked: The folder in the cache into which an archive was unpacked.
    """

    spec: str
    kind: Literal["folder", "table", "npz", "text", "bundled", "keras", "tfds", "object"]
    name: str
    path: Path | None = None
    splits: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    reference: str = ""
    warnings: tuple[str, ...] = ()
    value: Any = field(default=None, repr=False, compare=False)
    unpacked: Path | None = None

    @property
    def description(self) -> str:
        """The kind of the source in words, such as "table"."""
        return KINDS.get(self.kind, self.kind)

    @property
    def folder(self) -> Path | None:
        """The folder of the files, or of the table, to which names in results are relative; None for other data."""
        if self.kind not in ("folder", "table"):
            return None
        return self.path if self.path.is_dir() else self.path.parent


def resolve(spec: str, *, trains: bool = True) -> Source:
    """Return the source that a value of ``--data`` stands for.

    Existing paths take precedence over bundled names, ``keras:NAME``, ``tfds:NAME/CONFIG`` and plain TFDS names.

    Args:
        spec: The value.
        trains: Whether a model is trained on the data, so that predefined splits must contain one for training.

    Raises:
        NoSuchData: If the value is none of these.
        UserError: If it is a folder that is empty or has an unusable layout.
    """
    resolved = _resolve(spec)
    if trains and resolved.splits and not {"", "train"} & set(resolved.splits):
        what, remedy = "folder", "add a folder named train"
        if resolved.kind == "table":
            what, remedy = "table", "name the training table train.csv"
        raise UserError(f"{spec} has a {what} for {_join(resolved.splits)} but none for train: {remedy}.")
    return resolved


def _resolve(spec: str) -> Source:
    if isinstance(spec, DataObject):
        return Source(spec, "object", spec.kind, value=spec.value)
    spec = str(spec)
    path = Path(os.path.expanduser(spec))
    if is_url(spec):
        raise UserError(f"{spec} is a URL: download it, and give --data the file or folder.")
    if spec.strip() and _exists(path):
        return _resolve_folder(spec, path) if path.is_dir() else _resolve_file(spec, path)
    if spec in BUNDLED:
        return Source(spec, "bundled", spec, reference=spec)
    if data_object.is_lost(spec):
        raise UserError(
            f"{spec} stands for data that a Python program held, and that are not stored: resume the run from Python, "
            "as dltoolkit.resume(run, data=…), or evaluate it on other data."
        )
    scheme, colon, name = spec.partition(":")
    if colon and scheme == "keras":
        if name not in catalog.KERAS_CLASSES:
            raise UserError(
                f"Keras has no data set '{name}' that dltoolkit reads.{did_you_mean(name, catalog.KERAS_CLASSES)} "
                f"It reads {', '.join(catalog.KERAS_CLASSES)}."
            )
        return Source(spec, "keras", name, reference=name)
    if colon and scheme == "tfds" and name:
        return Source(spec, "tfds", _safe_name(name), reference=name)
    if "/" in spec or os.sep in spec or spec.startswith((".", "~")) or path.suffix.lower() in FILE_SUFFIXES:
        raise NoSuchData(f"No such file or folder: {spec}.{_similar_path(path)}")
    if catalog.is_tfds_name(spec):
        return Source(spec, "tfds", _safe_name(spec), reference=spec)
    near = did_you_mean(spec, BUNDLED) or did_you_mean(spec, catalog.tfds_names())
    raise NoSuchData(f"No data set and no file is called '{spec}'.{near} --data takes {ACCEPTED_DATA}.")


def is_url(text: str) -> bool:
    """Return whether a text is the address of a file on the network."""
    return re.match(r"(https?|ftp|s3|gs|hf|file)://\S+$", text) is not None


def table_suffix(path: Path) -> str | None:
    """Return the suffix in ``TABLE_SUFFIXES`` of a file, compressed or not, or None if it is no table by its name."""
    suffix = path.suffix.lower()
    if suffix == ".gz":
        suffix = Path(path.stem).suffix.lower()
        return suffix if suffix in COMPRESSED_TABLE_SUFFIXES else None
    return suffix if suffix in TABLE_SUFFIXES else None


def same_examples(spec: str, other: str) -> bool:
    """Return whether two values of ``--data`` mean the same examples, without predefined splits."""
    if data_object.SCHEME in (spec[: len(data_object.SCHEME)], other[: len(data_object.SCHEME)]):
        return spec is other
    first, second = resolve(spec, trains=False), resolve(other, trains=False)
    same = (first.path, first.reference) == (second.path, second.reference)
    return same and set(first.splits) <= {""}


def split_name(name: str) -> str | None:
    """Return "train", "validation" or "test" if the name of a folder or the stem of a file means one, or None.

    The name may end in "set", as in "training_set".
    """
    return SPLIT_NAMES.get(re.sub(r"[-_ ]?set$", "", name.lower()))


def sort_classes(names: set[str]) -> list[str]:
    """Return class names in order: as numbers if all of them are integers (2 before 10), otherwise as strings."""
    are_numbers = all(re.fullmatch(r"[+-]?\d{1,18}", name) for name in names)
    return sorted(names, key=lambda name: (int(name), name)) if are_numbers else sorted(names)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # the name is too long or contains a NUL
        return False


def _safe_name(name: str) -> str:
    """Return a name of letters, digits, dots, dashes and underscores, at most ``MAX_NAME_LENGTH`` characters long."""
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.")[:MAX_NAME_LENGTH] or "data"


def _similar_path(path: Path) -> str:
    """Return a hint if the folder of a missing path has an entry with a similar name."""
    try:
        return did_you_mean(path.name, os.listdir(path.parent))
    except OSError:
        return ""


def _resolve_file(spec: str, path: Path) -> Source:
    suffix = path.suffix.lower()
    if kind := special_kind(path):
        raise UserError(f"{spec} is {kind}, not a regular file: store the data in a file or folder, and give that.")
    if end := archives.suffix(path):
        from dltoolkit.data import disk_cache  # imports NumPy

        unpacked = archives.unpack(path, disk_cache.default_folder())
        resolved = _resolve_folder(spec, archives.top_folder(unpacked))
        return replace(resolved, name=_safe_name(path.name[: -len(end)]), unpacked=unpacked)
    if suffix in UNREADABLE:
        raise UserError(f"{spec} {UNREADABLE[suffix]}.")
    if table_suffix(path) or (suffix != ".npz" and table_files.is_fasttext(path)):
        return Source(spec, "table", _safe_name(Path(path.name.removesuffix(".gz")).stem), path)
    if suffix not in FILE_SUFFIXES:
        raise UserError(f"{spec} is a file of a type that cannot be trained on: give --data {ACCEPTED_DATA}.")
    return Source(
        spec, "npz" if suffix == ".npz" else "text", _safe_name(Path(path.name.removesuffix(".gz")).stem), path
    )


def _resolve_folder(spec: str, path: Path) -> Source:
    name = _safe_name(path.resolve().name)
    entries = list(visible_entries(path))
    if not entries:
        kind = "folder" if os.path.isdir(os.path.expanduser(spec)) else "archive"
        raise UserError(f"The {kind} {spec} is empty: give --data {ACCEPTED_DATA}.")
    folders = sorted(Path(entry.path) for entry in entries if os.path.isdir(entry.path))
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return _resolve_saved_dataset(spec, name, path)
    if any(split_name(folder.name) == "train" and subfolders(folder) for folder in folders):
        return _resolve_class_folders(spec, name, path, folders)
    tables = _tables_in(path)
    splits = _tables_by_split(path, folders)
    if not splits and not tables:
        nested = [folder for folder in folders if _tables_by_split(folder, subfolders(folder))]
        if len(nested) == 1:  # the layout of the Hugging Face Hub: data/train-00000-of-00001.parquet
            return replace(_resolve_folder(spec, nested[0]), name=name)
        if nested:
            names = ", ".join(folder.name for folder in nested)
            raise UserError(f"{spec} has several data sets ({names}): give --data one of these folders.")
    if splits:
        used = [file for files in splits.values() for file in files]
        suffixes = sorted({table_suffix(file) or file.suffix for file in used})
        if len(suffixes) > 1:
            raise UserError(
                f"{spec} has tables of several types ({', '.join(suffixes)}): keep one type for all splits."
            )
        ignored = [table.name for table in tables if table not in used]
        return Source(spec, "table", name, path, _in_order(splits), warnings=_warn_of_ignored(spec, "tables", ignored))
    single = [table for table in tables if table_suffix(table) != ".json"]  # it may describe something else
    if len(single) == 1 and len(folders) <= 1:  # for example labels.csv next to a folder of images
        return Source(spec, "table", name, single[0])
    return _resolve_class_folders(spec, name, path, folders)


def _resolve_saved_dataset(spec: str, name: str, path: Path) -> Source:
    """Resolve a folder that ``save_to_disk`` of Hugging Face datasets has written, with one or several splits."""
    by_split: dict[str, tuple[Path, ...]] = {}
    ignored: list[str] = []
    for folder in subfolders(path) if (path / "dataset_dict.json").is_file() else [path]:
        split = "" if folder == path else split_name(folder.name)
        files = tuple(sorted((*folder.glob("data-*.arrow"), *folder.glob("dataset.arrow"))))
        if split is not None and files:
            by_split[split] = files
        else:
            ignored.append(folder.name)
    if not by_split:
        raise UserError(f"{spec} has no .arrow files of a split: save the data set again.")
    warnings = _warn_of_ignored(spec, "splits", ignored)
    return Source(spec, "table", name, path, _in_order(by_split), warnings=warnings)


def _tables_in(folder: Path) -> list[Path]:
    return [
        path
        for path in files_directly_in(folder)
        if table_suffix(path) or (_split_of_file(path) and path.suffix != ".npz" and table_files.is_fasttext(path))
    ]


def _tables_by_split(folder: Path, folders: list[Path]) -> dict[str, tuple[Path, ...]]:
    """Return the tables of each split: train.csv, or train/0000.parquet in folders without other files."""
    splits: dict[str, tuple[Path, ...]] = {}
    for table in _tables_in(folder):
        if split := _split_of_file(table):
            splits[split] = (*splits.get(split, ()), table)
    if splits:
        return splits
    for child in folders:
        split = split_name(child.name)
        if split and (tables := _tables_in(child)) and len(tables) == len(list(visible_entries(child))):
            splits[split] = tuple(tables)
    return splits


def _warn_of_ignored(spec: str, noun: str, names: list[str]) -> tuple[str, ...]:
    return (f"These {noun} of {spec} are ignored: {', '.join(names)}.",) if names else ()


def _resolve_class_folders(spec: str, name: str, path: Path, folders: list[Path]) -> Source:
    """Distinguish class folders from split folders, which contain class folders themselves."""
    splits: dict[str, tuple[Path, ...]] = {}
    candidates = {folder: subfolders(folder) for folder in folders if split_name(folder.name)}
    for folder, classes in candidates.items():
        split = split_name(folder.name)
        if split in splits:
            raise UserError(f"{spec} has two folders for {split}, {splits[split][0].name} and {folder.name}: keep one.")
        if classes:
            splits[split] = (folder,)
    if "train" in splits:
        ignored = [folder.name for folder in folders if (folder,) not in splits.values()]
        warnings = (f"{spec} has folders that are not part of a split and are ignored: {', '.join(ignored)}.",)
        return Source(spec, "folder", name, path, _in_order(splits), warnings=warnings if ignored else ())
    if splits and len(candidates) == len(folders):
        return Source(spec, "folder", name, path, _in_order(splits))
    return Source(spec, "folder", name, path)


def _split_of_file(path: Path) -> str | None:
    """Return the split of train.csv, val.jsonl, train-00000-of-00002.parquet or test_1.csv, or None."""
    stem = Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem
    match = re.fullmatch(r"([a-z]+)([-_.]?\d.*)?", stem.lower())
    return split_name(match[1]) if match else None


def _in_order(splits: dict[str, tuple[Path, ...]]) -> dict[str, tuple[Path, ...]]:
    return {split: splits[split] for split in ("", *SPLITS) if split in splits}


def _join(splits: dict[str, tuple[Path, ...]]) -> str:
    return " and ".join(_in_order(splits))
