"""Folders and tables brought to one form: which examples there are, their labels, and the splits they came with."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from dltoolkit.data.options import ReadOptions
from dltoolkit.data.readers import tables
from dltoolkit.data.readers import tfds as published
from dltoolkit.data.readers.source import PARTS, File, Source, classes_in_order, files, part_of, subfolders
from dltoolkit.errors import UserError

LABEL_COLUMNS = ("label", "class", "target", "category", "labels", "class_name")


@dataclass(frozen=True)
class Kind:
    """What sort of examples are listed.

    Attributes:
        noun: what to call one.
        suffixes: of their files.
        unread: suffixes of the same sort of file that cannot be read here.
    """

    noun: str
    suffixes: tuple[str, ...]
    unread: tuple[str, ...]


@dataclass(frozen=True)
class Listing:
    """n labelled examples, as a rule not read yet.

    Attributes:
        names: what to call each in messages and reports.
        labels: int32 (n,), numbers of ``classes``.
        classes: class names.
        items: files, encoded bytes, texts, or an array (n, …).
        parts: int8 (n,), numbers of `PARTS`, or None if the data bring no splits.
        warnings: what the user should know.
        stamp: what identifies encoded pictures for the cache on disk (files bring their own).
        noun: what to call one.
    """

    names: list[str]
    labels: np.ndarray
    classes: list[str]
    items: Any
    parts: np.ndarray | None = None
    warnings: list[str] = field(default_factory=list)
    stamp: str = ""
    noun: str = "picture"

    def take(self, indices: np.ndarray) -> "Listing":
        """Return the listing of those at ``indices`` (ascending)."""
        if isinstance(self.items, list):
            items: Any = [self.items[i] for i in indices]
        elif isinstance(self.items, np.ndarray):
            items = self.items[indices]
        else:
            items = self.items.take(indices)
        return replace(
            self,
            names=[self.names[i] for i in indices],
            labels=self.labels[indices],
            items=items,
            parts=None if self.parts is None else self.parts[indices],
        )


def from_folder(source: Source, kind: Kind, *, labeled: bool = True) -> Listing:
    """List the files of class folders, or of class folders inside train, validation and test.

    Args:
        labelled: whether there must be class folders; without, files outside of any are of the class "all".

    Raises:
        UserError: if there are none, or the folders are laid out in another way.
    """
    roots = {part: paths[0] for part, paths in source.parts.items()} or {"": source.path}
    found: list[tuple[File, str, str]] = []
    others: list[str] = []
    empty: list[Path] = []
    for part, root in roots.items():
        folders = subfolders(root)
        if not folders and not labeled:
            found += [(file, "all", part) for file in files(root) if _fits(file, kind)]
        elif not folders:
            raise UserError(_no_class_folders(root, kind))
        inside_of: dict[Path, list[File]] = {}
        for folder in folders:
            inside = files(folder)
            fitting = [file for file in inside if _fits(file, kind)]
            others += [file.path for file in inside if not _fits(file, kind)]
            found += [(file, folder.name, part) for file in fitting]
            inside_of[folder] = fitting
            if not fitting and part in ("", "train"):
                empty.append(folder)
        _refuse_nested(inside_of, source)
    if not found:
        raise UserError(
            f"No {kind.noun}s in the folders of {source.said}: they are looked for under {', '.join(kind.suffixes)}."
        )
    if empty:
        more = f" (and {len(empty) - 1} more)" if len(empty) > 1 else ""
        raise UserError(f"The class folder {empty[0]}{more} has no {kind.noun}s: add some or remove it.")
    classes = classes_in_order({label for _, label, _ in found})
    number = {name: i for i, name in enumerate(classes)}
    return Listing(
        names=[file.path for file, _, _ in found],
        labels=np.array([number[label] for _, label, _ in found], np.int32),
        classes=classes,
        items=[file for file, _, _ in found],
        parts=part_numbers([part for _, _, part in found]),
        warnings=[*source.warnings, *_about_others(others, len(found), kind)],
        noun=kind.noun,
    )


def from_tables(
    source: Source,
    kind: Kind,
    read: ReadOptions,
    find_columns: Callable[[tables.Table], tuple[str, str]],
    parse_cell: Callable[[Any, Path, str], tuple[str, Any]],
) -> Listing:
    """List the rows of a table, or of one table for each split.

    Args:
        kind: Kind of the examples.
        read: Options for reading.
        find_columns: Returns the names of the columns of the examples and of the labels in the first table.
        parse_cell: Takes a cell, the folder of the table and a name for the row; returns the name of the example and
            the example, or None for an empty cell.
    """
    places = [(part, path) for part, paths in source.parts.items() for path in paths] or [("", source.path)]
    found = tables.read_tables([path for _, path in places], header=read.header)
    item_column, label_column = find_columns(found[0])
    rows: list[tuple[str, Any, str, str]] = []
    lacking: list[str] = []
    for (part, path), table in zip(places, found, strict=True):
        cells = zip(table.columns[item_column], table.columns[label_column], strict=True)
        for row, (item, label) in enumerate(cells, start=1):
            if isinstance(label, (list, dict)):
                raise UserError(f"Row {row} of {path} has several labels ('{str(label)[:40]}'): one is needed.")
            label = "" if label is None or label != label else str(label).strip()  # NaN differs from itself
            name, content = parse_cell(item, path.parent, f"{path}[{row}]")
            if not label or content is None:
                missing = label_column if content is not None else item_column
                lacking.append(f"Row {row} of {path} (without the header) has nothing in the column '{missing}'")
                continue
            rows.append((name, content, label, part))
    if lacking and not (read.skip_invalid and rows):
        others = f", and {len(lacking) - 1} more rows like it" if len(lacking) > 1 else ""
        raise UserError(f"{lacking[0]}{others}: mend or remove them, or leave them out with --skip-invalid.")
    warnings = [f"{len(lacking)} rows were left out; the first: {lacking[0]}."] if lacking else []
    classes = classes_in_order({label for _, _, label, _ in rows})
    number = {name: i for i, name in enumerate(classes)}
    return Listing(
        names=[name for name, _, _, _ in rows],
        labels=np.array([number[label] for _, _, label, _ in rows], np.int32),
        classes=classes,
        items=[content for _, content, _, _ in rows],
        parts=part_numbers([part for _, _, _, part in rows]),
        warnings=[*source.warnings, *warnings],
        noun=kind.noun,
    )


def tfds_splits(source: Source, splits: Sequence[tuple[str, int]]) -> tuple[dict[str, str], list[str]]:
    """Return part -> TFDS split; a set with a single split, whatever its name, is one whole.

    Args:
        splits: (TFDS split, number of examples) in order.
    """
    names = [name for name, _ in splits]
    if len(names) == 1:
        return {"": names[0]}, []
    found: dict[str, str] = {}
    for name in names:
        if part_of(name):
            found.setdefault(part_of(name), name)
    if "train" not in found:
        raise UserError(f"{source.said} has the splits {', '.join(names)}, none of them for training.")
    aside = [name for name in names if name not in found.values()]
    warnings = [f"Splits of {source.said} that were left aside: {', '.join(aside)}."] if aside else []
    return {part: found[part] for part in PARTS if part in found}, warnings


def from_tfds(
    source: Source,
    kind: Kind,
    prepared: published.Prepared,
    splits: dict[str, str],
    labels: np.ndarray,
    items: Any,
    *,
    warnings: Sequence[str],
    stamp: str = "",
) -> Listing:
    """List what was read of a TFDS set, without the examples that have no label.

    Args:
        splits, warnings: what `tfds_splits` returned.
        labels: int (n,), of one split after the other; -1 where there is none.
        items: the examples, in the same order.
        stamp: see `Listing`.
    """
    sizes = dict(prepared.splits)
    listing = Listing(
        names=[f"{source.name}/{split}[{i}]" for split in splits.values() for i in range(sizes[split])],
        labels=labels.astype(np.int32),
        classes=prepared.classes,
        items=items,
        parts=part_numbers([part for part, split in splits.items() for _ in range(sizes[split])]),
        warnings=list(warnings),
        stamp=stamp,
        noun=kind.noun,
    )
    known = np.flatnonzero(labels >= 0)
    if len(known) < len(labels):
        unlabelled = f"{len(labels) - len(known)} {kind.noun}s of {source.said} have no label and were left out."
        listing = replace(listing.take(known), warnings=[*warnings, unlabelled])
    return listing


def part_numbers(parts: Sequence[str]) -> np.ndarray | None:
    """Return parts by number, int8 (n,), or None where the data bring no splits."""
    return None if "" in parts else np.array([PARTS.index(part) for part in parts], np.int8)


def _refuse_nested(items: dict[Path, list[File]], source: Source) -> None:
    """Raise a UserError where the classes seem to lie one level deeper: seg_train/cat, seg_test/cat, …

    Args:
        items: class folder -> all the files below it.
    """
    seen: dict[frozenset[str], Path] = {}
    for folder, inside in items.items():
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


def _fits(file: File, kind: Kind) -> bool:
    return Path(file.path).suffix.lower() in kind.suffixes


def _no_class_folders(root: Path, kind: Kind) -> str:
    here = [file for file in files(root) if _fits(file, kind)]
    if here:
        return f"{root} holds {len(here)} {kind.noun}s but no class folders: put each class in a folder of its name."
    return f"{root} has no class folders: put the {kind.noun}s of each class in a folder of its name."


def _about_others(others: list[str], fitting: int, kind: Kind) -> list[str]:
    telling = [path for path in others if Path(path).suffix.lower() in kind.unread]
    if telling:
        return [
            f"{len(telling)} {kind.noun}s of types that are not read were left out, such as {telling[0]}: convert them."
        ]
    if len(others) >= max(5, fitting // 20):
        return [f"{len(others)} files that are not {kind.noun}s were left out, such as {others[0]}."]
    return []
