"""Every source brought to one form: which pictures there are, their labels, and the splits they came with."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from dltoolkit.data import arrays, catalogue, decode, published, store, tables
from dltoolkit.data.source import PARTS, File, Source, classes_in_order, files, part_of, subfolders
from dltoolkit.errors import UserError

IMAGE_COLUMNS = ("image", "file", "filename", "file_name", "path", "image_path", "filepath", "img")
LABEL_COLUMNS = ("label", "class", "target", "category", "labels", "class_name")
OTHER_PICTURES = (".heic", ".heif", ".avif", ".svg", ".psd", ".raw", ".cr2", ".nef", ".dng", ".jp2", ".jxl")

Pictures = list[decode.Picture] | np.ndarray | published.Encoded


@dataclass(frozen=True)
class Listing:
    """n labelled pictures, not decoded yet unless they were arrays to begin with.

    Attributes:
        names: what to call each in messages and reports.
        labels: int32 (n,), numbers of ``classes``.
        classes: class names.
        pictures: files, encoded bytes, or uint8 (n, h, w, c).
        parts: int8 (n,), numbers of `PARTS`, or None if the data bring no splits.
        warnings: what the user should know.
        stamp: what identifies encoded pictures for the cache on disk (files bring their own).
    """

    names: list[str]
    labels: np.ndarray
    classes: list[str]
    pictures: Pictures
    parts: np.ndarray | None = None
    warnings: list[str] = field(default_factory=list)
    stamp: str = ""

    def take(self, indices: np.ndarray) -> "Listing":
        """Return the listing of those at ``indices`` (ascending)."""
        if isinstance(self.pictures, list):
            pictures: Pictures = [self.pictures[i] for i in indices]
        elif isinstance(self.pictures, np.ndarray):
            pictures = self.pictures[indices]
        else:
            pictures = self.pictures.take(indices)
        return replace(
            self,
            names=[self.names[i] for i in indices],
            labels=self.labels[indices],
            pictures=pictures,
            parts=None if self.parts is None else self.parts[indices],
        )


def list_pictures(
    source: Source,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    header: bool | None = None,
    progress: decode.Progress | None = None,
) -> Listing:
    """List the labelled pictures of any source.

    Raises:
        UserError: if it holds none, or is not a source of pictures.
    """
    if source.kind == "folder":
        return _from_folder(source)
    if source.kind == "table":
        return _from_tables(source, image_column, label_column, header)
    if source.kind == "npz":
        return _from_arrays(source, arrays.read_npz(source.path), None)
    if source.kind == "bundled" and source.reference == "digits":
        return _from_arrays(source, arrays.digits(), None)
    if source.kind == "keras":
        parts = published.keras_set(source.reference)
        pixels = {part: (arrays.to_pixels(x, source.said), y) for part, (x, y) in parts.items()}
        return _from_arrays(source, pixels, catalogue.KERAS_NAMES[source.reference])
    if source.kind == "tfds":
        return _from_tfds(source, published.tfds_set(source.reference, progress), progress)
    raise UserError(f"{source.said} holds text, not pictures: give --data a folder of class folders with pictures.")


def _from_folder(source: Source) -> Listing:
    roots = {part: paths[0] for part, paths in source.parts.items()} or {"": source.path}
    found: list[tuple[File, str, str]] = []
    others: list[str] = []
    empty: list[Path] = []
    for part, root in roots.items():
        folders = subfolders(root)
        if not folders:
            raise UserError(_no_class_folders(source, root))
        inside_of: dict[Path, list[File]] = {}
        for folder in folders:
            inside = files(folder)
            pictures = [file for file in inside if Path(file.path).suffix.lower() in decode.SUFFIXES]
            others += [file.path for file in inside if Path(file.path).suffix.lower() not in decode.SUFFIXES]
            found += [(file, folder.name, part) for file in pictures]
            inside_of[folder] = pictures
            if not pictures and part in ("", "train"):
                empty.append(folder)
        _refuse_nested(inside_of, source)
    if not found:
        raise UserError(
            f"No pictures in the folders of {source.said}: they are looked for under {', '.join(decode.SUFFIXES)}."
        )
    if empty:
        more = f" (and {len(empty) - 1} more)" if len(empty) > 1 else ""
        raise UserError(f"The class folder {empty[0]}{more} has no pictures: add some or remove it.")
    classes = classes_in_order({label for _, label, _ in found})
    number = {name: i for i, name in enumerate(classes)}
    return Listing(
        names=[file.path for file, _, _ in found],
        labels=np.array([number[label] for _, label, _ in found], np.int32),
        classes=classes,
        pictures=[file for file, _, _ in found],
        parts=_part_numbers([part for _, _, part in found]),
        warnings=[*source.warnings, *_about_others(others, len(found))],
    )


def _refuse_nested(pictures: dict[Path, list[File]], source: Source) -> None:
    """Raise a UserError where the classes seem to lie one level deeper: seg_train/cat, seg_test/cat, …

    Args:
        pictures: class folder -> all the pictures below it.
    """
    seen: dict[frozenset[str], Path] = {}
    for folder, inside in pictures.items():
        below = [file.path[len(str(folder)) + 1 :].partition(os.sep) for file in inside]
        names = frozenset(first if deeper else "" for first, deeper, _ in below)
        if len(names) < 2 or "" in names:
            continue
        if names in seen:
            raise UserError(
                f"'{seen[names].name}' and '{folder.name}' in {source.said} hold the same folders "
                f"({', '.join(sorted(names)[:3])}, …), which look like the classes: give --data one of them, "
                "or name them train and test."
            )
        seen[names] = folder


def _no_class_folders(source: Source, root: Path) -> str:
    here = [file for file in files(root) if Path(file.path).suffix.lower() in decode.SUFFIXES]
    if here:
        return f"{root} holds {len(here)} pictures but no class folders: put each class in a folder of its name."
    return f"{root} has no class folders: put the pictures of each class in a folder of its name."


def _about_others(others: list[str], pictures: int) -> list[str]:
    telling = [path for path in others if Path(path).suffix.lower() in OTHER_PICTURES]
    if telling:
        return [
            f"{len(telling)} pictures of types that are not read were left out, such as {telling[0]}: convert them."
        ]
    if len(others) >= max(5, pictures // 20):
        return [f"{len(others)} files that are not pictures were left out, such as {others[0]}."]
    return []


def _from_tables(source: Source, image_column: str | None, label_column: str | None, header: bool | None) -> Listing:
    places = [(part, path) for part, paths in source.parts.items() for path in paths] or [("", source.path)]
    found = tables.read_tables([path for _, path in places], header=header)
    image_column, label_column = _columns(found[0], image_column, label_column)
    names: list[str] = []
    labels: list[str] = []
    pictures: list[decode.Picture] = []
    parts: list[str] = []
    for (part, path), table in zip(places, found, strict=True):
        folder = path.parent
        cells = zip(table.columns[image_column], table.columns[label_column], strict=True)
        for row, (image, label) in enumerate(cells, start=1):
            if isinstance(label, (list, dict)):
                raise UserError(f"Row {row} of {path} has several labels ('{str(label)[:40]}'): one is needed.")
            label = "" if label is None or label != label else str(label).strip()  # NaN differs from itself
            name, picture = _picture(image, folder, f"{path}[{row}]")
            if not label or picture is None:
                missing = label_column if picture is not None else image_column
                raise UserError(f"Row {row} of {path} (without the header) has nothing in the column '{missing}'.")
            names.append(name)
            labels.append(label)
            pictures.append(picture)
            parts.append(part)
    classes = classes_in_order(set(labels))
    number = {name: i for i, name in enumerate(classes)}
    codes = np.array([number[label] for label in labels], np.int32)
    return Listing(names, codes, classes, pictures, _part_numbers(parts), list(source.warnings))


def _columns(table: tables.Table, image: str | None, label: str | None) -> tuple[str, str]:
    """Return the names of the two columns; in a table without names, that of the pictures is known by its cells."""
    names = list(table.columns)
    if names == [str(i + 1) for i in range(len(names))]:
        first = {name: str(cells[0]) for name, cells in table.columns.items()}
        with_suffix = [name for name in names if Path(first[name]).suffix.lower() in decode.SUFFIXES]
        if image is None and len(with_suffix) == 1:
            image = with_suffix[0]
        rest = [name for name in names if name != image]
        if label is None and image in names and len(rest) == 1:
            label = rest[0]
    return table.find(image, IMAGE_COLUMNS, "image"), table.find(label, LABEL_COLUMNS, "label")


def _picture(cell: object, folder: Path, name: str) -> tuple[str, decode.Picture | None]:
    """Return name and picture of a table's cell: a path relative to the table's ``folder``, or the encoded bytes."""
    if isinstance(cell, dict):  # the way Hugging Face stores pictures in Parquet
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes):
        return name, cell
    text = "" if cell is None else str(cell).strip()
    if not text:
        return name, None
    path = folder / os.path.expanduser(text)
    try:
        status = path.stat()
    except (OSError, ValueError):
        return str(path), File(str(path), 0, 0)
    return str(path), File(str(path), status.st_size, status.st_mtime_ns)


def _from_arrays(source: Source, parts: arrays.Parts, names: list[str] | None) -> Listing:
    for part, (pictures, labels) in parts.items():
        if len(pictures) != len(labels):
            raise UserError(f"{source.said}: {len(pictures)} pictures but {len(labels)} labels {part}".rstrip() + ".")
    shapes = {pictures.shape[1:] for pictures, _ in parts.values()}
    if len(shapes) > 1:
        listed = " and ".join(map(str, sorted(shapes)))
        raise UserError(f"{source.said} has splits of different picture shapes: {listed}.")
    labels, classes = arrays.to_codes([labels for _, labels in parts.values()], names, source.said)
    pictures = [pictures for pictures, _ in parts.values()]
    return Listing(
        names=[
            f"{source.name}/{part}[{i}]".replace("/[", "[") for part, (x, _) in parts.items() for i in range(len(x))
        ],
        labels=labels,
        classes=classes,
        pictures=np.concatenate(pictures) if len(pictures) > 1 else pictures[0],
        parts=_part_numbers([part for part, (x, _) in parts.items() for _ in range(len(x))]),
        warnings=list(source.warnings),
    )


def _from_tfds(source: Source, prepared: published.Prepared, progress: decode.Progress | None) -> Listing:
    splits, warnings = _tfds_splits(source, prepared)
    sizes = dict(prepared.splits)
    total = sum(sizes[split] for split in splits.values())
    shape = prepared.shape
    decoded = shape is not None and shape[-1] in (1, 3) and total * int(np.prod(shape)) <= 2**29
    pixels = store.room((total, *shape)) if decoded else None
    labels = np.empty(total, np.int64)
    place = 0
    for split in splits.values():
        for batch, batch_labels in prepared.batches(split, pictures=decoded, decoded=decoded):
            end = place + len(batch_labels)
            labels[place:end] = batch_labels
            if decoded:
                pixels[place:end] = batch
            place = end
            if progress:
                progress(f"Reading {source.name}", place, total)
    listing = Listing(
        names=[f"{source.name}/{split}[{i}]" for split in splits.values() for i in range(sizes[split])],
        labels=labels.astype(np.int32),
        classes=prepared.classes,
        pictures=pixels if decoded else published.Encoded(prepared, list(splits.values()), np.ones(total, bool)),
        parts=_part_numbers([part for part, split in splits.items() for _ in range(sizes[split])]),
        warnings=warnings,
        stamp=f"{prepared.builder.data_path} {list(splits.values())}",
    )
    known = np.flatnonzero(labels >= 0)
    if len(known) < total:
        listing.warnings.append(f"{total - len(known)} pictures of {source.said} have no label and were left out.")
        listing = listing.take(known)
    return listing


def _tfds_splits(source: Source, prepared: published.Prepared) -> tuple[dict[str, str], list[str]]:
    """Return part -> TFDS split; a set with a single split, whatever its name, is one whole."""
    names = [name for name, _ in prepared.splits]
    if len(names) == 1:
        return {"": names[0]}, []
    splits: dict[str, str] = {}
    for name in names:
        if part_of(name):
            splits.setdefault(part_of(name), name)
    if "train" not in splits:
        raise UserError(f"{source.said} has the splits {', '.join(names)}, none of them for training.")
    aside = [name for name in names if name not in splits.values()]
    warnings = [f"Splits of {source.said} that were left aside: {', '.join(aside)}."] if aside else []
    return {part: splits[part] for part in PARTS if part in splits}, warnings


def _part_numbers(parts: list[str]) -> np.ndarray | None:
    return None if "" in parts else np.array([PARTS.index(part) for part in parts], np.int8)
