"""Listings of labeled examples: folders, tables and TFDS data sets in one form, before their examples are read."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from dltoolkit.data.options import NONE, ReadOptions
from dltoolkit.data.readers import archives, columns, tables, tfds
from dltoolkit.data.readers.folders import File, files_directly_in, find_nested_folders, list_files, subfolders
from dltoolkit.data.readers.source import SPLITS, UNLABELED, VIDEO_SUFFIXES, Source, sort_classes, split_name
from dltoolkit.errors import UserError

MIN_OTHER_FILES = 5  # other files in class folders, and their ratio to the examples, from which a warning is due
MIN_OTHER_RATIO = 0.05


@dataclass(frozen=True)
class ExampleType:
    """The type of the examples of a listing.

    Attributes:
        noun: Name of an example in messages, "image" or "text".
        suffixes: Suffixes of their files.
        unsupported: Suffixes of similar files that cannot be read.
    """

    noun: str
    suffixes: tuple[str, ...]
    unsupported: tuple[str, ...]

    def matches(self, file: File) -> bool:
        """Return whether a file has one of the suffixes."""
        return self.has_suffix(Path(file.path))

    def has_suffix(self, path: Path) -> bool:
        """Return whether a path ends in one of the suffixes."""
        return path.suffix.lower() in self.suffixes


@dataclass(frozen=True)
class Listing:
    """n labeled examples, most of which are not read yet.

    Attributes:
        names: Name of each example in messages and reports.
        labels: int32 (n,), indices into ``classes``.
        classes: Names of the classes.
        items: Files, encoded bytes, texts, or an array (n, …).
        splits: int8 (n,), indices into ``SPLITS``, or None without predefined splits.
        warnings: Sentences for the user.
        cache_key: Identifies encoded images in the disk cache. Files are identified by path, size and time.
        noun: Name of an example in messages.
        columns: Columns of a table that were read, by their meaning: "text" or "image", "label", "split".
        split_origin: What predefines the splits, such as "folders".
        kind: Kind of the source in words if its description does not fit, such as "labels in file names".
    """

    names: list[str]
    labels: np.ndarray
    classes: list[str]
    items: Any
    splits: np.ndarray | None = None
    warnings: list[str] = field(default_factory=list)
    cache_key: str = ""
    noun: str = "image"
    columns: dict[str, str] = field(default_factory=dict)
    split_origin: str = "the data"
    kind: str = ""

    def take(self, indices: np.ndarray) -> "Listing":
        """Return the listing of the examples at these indices (ascending)."""
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
            splits=None if self.splits is None else self.splits[indices],
        )


def from_folder(
    source: Source, example_type: ExampleType, *, labeled: bool = True, label_pattern: str | None = None
) -> Listing:
    """List the files of class folders, or of class folders inside train, validation and test.

    Args:
        source: A folder.
        example_type: Type of the examples.
        labeled: Whether class folders are required. If not, files without a class folder get the class "all".
        label_pattern: Regular expression whose group is the label in the path of a file below the folder, instead of
            the class folder.

    Raises:
        UserError: If there are no class folders or no examples, or the layout is another one.
    """
    noun = example_type.noun
    roots = {split: paths[0] for split, paths in source.splits.items()} or {"": source.path}
    if label_pattern not in (None, NONE):
        return _from_file_names(source, roots, example_type, label_pattern)
    rows: list[tuple[File, str, str]] = []  # file, label, split
    other_files: list[str] = []
    loose_files: list[str] = []
    empty_folders: list[Path] = []
    nested: list[str] = []
    for split, root in roots.items():
        folders = subfolders(root)
        if not folders and not labeled:
            rows += [(file, UNLABELED, split) for file in list_files(root) if example_type.matches(file)]
        elif not folders:
            raise UserError(_no_class_folders(root, example_type))
        files_by_folder: dict[Path, list[File]] = {}
        visited: dict[str, str] = {}
        for folder in folders:
            files = list_files(folder, visited)
            matching = [file for file in files if example_type.matches(file)]
            other_files += [file.path for file in files if not example_type.matches(file)]
            rows += [(file, folder.name, split) for file in matching]
            files_by_folder[folder] = matching
            if not matching and split in ("", "train"):
                empty_folders.append(folder)
        if folders:
            loose_files += [str(path) for path in files_directly_in(root) if example_type.has_suffix(path)]
        nested += find_nested_folders(files_by_folder, source.spec)
    if not rows:
        raise UserError(_no_examples(source, other_files, example_type))
    if empty_folders:
        more = f" (and {len(empty_folders) - 1} more)" if len(empty_folders) > 1 else ""
        raise UserError(f"The class folder {empty_folders[0]}{more} has no {noun}s: add some or remove it.")
    warnings = [*source.warnings, *_warn_of_other_files(other_files, len(rows), example_type)]
    if nested and labeled:
        warnings.append(
            f"The class folders contain folders, such as {nested[0]}, whose names are not read: if these are the "
            "classes, move them up by one level."
        )
    if loose_files:
        warnings.append(f"{len(loose_files)} {noun}s in no class folder are left out, such as {loose_files[0]}.")
    listing = _from_rows([(file.path, file, label, split) for file, label, split in rows], warnings, noun)
    return replace(listing, split_origin="folders", kind="" if any(map(subfolders, roots.values())) else "folder")


def _from_file_names(source: Source, roots: dict[str, Path], example_type: ExampleType, label_pattern: str) -> Listing:
    """List the files below folders, with the label that a regular expression finds in the path of each."""
    rows: list[tuple[str, File, str, str]] = []
    without_label: list[str] = []
    other_files: list[str] = []
    for split, root in roots.items():
        for file in list_files(root):
            match = re.search(label_pattern, Path(file.path).relative_to(root).as_posix())
            if not example_type.matches(file):
                other_files.append(file.path)
            elif match and match[1]:
                rows.append((file.path, file, match[1], split))
            else:
                without_label.append(file.path)
    noun = example_type.noun
    if not rows and not without_label:
        raise UserError(_no_examples(source, other_files, example_type))
    if without_label:
        raise UserError(
            f"--label-pattern '{label_pattern}' does not match the name of {len(without_label)} {noun}s, such as "
            f"{without_label[0]}: change the pattern, or give none to read class folders."
        )
    warnings = [*source.warnings, *_warn_of_other_files(other_files, len(rows), example_type)]
    return replace(_from_rows(rows, warnings, noun), split_origin="folders", kind="labels in file names")


def from_tables(
    source: Source,
    example_type: ExampleType,
    read: ReadOptions,
    find_columns: Callable[[tables.Table], tuple[str, str]],
    parse_cell: Callable[[Any, Path, str], tuple[str, Any]],
    contents: Sequence[tuple[str, tables.Table]] = (),
) -> Listing:
    """List the rows of a table, or of one table for each split.

    Args:
        source: A table, or a folder of tables.
        example_type: Type of the examples.
        read: Options for reading.
        find_columns: Returns the names of the columns of the examples and of the labels in the first table.
        parse_cell: Takes a cell, the folder of the table and a name for the row; returns the name of the example and
            the example, or None for an empty cell.
        contents: Split and table of a source that is no file; see ``objects``.

    Raises:
        UserError: If a table cannot be read, or a row has no example or not exactly one label.
    """
    if contents:
        paths_by_split = {split: (table.path,) for split, table in contents}
        source = replace(source, path=contents[0][1].path, splits={} if "" in paths_by_split else paths_by_split)
    files = [(split, path) for split, paths in source.splits.items() for path in paths] or [("", source.path)]
    if contents:
        contents = [table for _, table in contents]
        tables.require_same_columns(contents)
    else:
        contents = tables.read_tables(
            [path for _, path in files], header=read.header, encoding=read.encoding, skip_invalid=read.skip_invalid
        )
    noun = example_type.noun
    item_column, label_column = find_columns(contents[0])
    columns.refuse_same(contents[0], item_column, label_column, noun)
    split_column, warnings = columns.find_split(contents, source, read, (item_column, label_column))
    if example_type.noun == "text":
        columns.refuse_nested(contents, item_column)
    labels, more = columns.labels_of(contents, label_column)
    warnings = [*source.warnings, *columns.warn_of_damaged(contents), *warnings, *more]
    warnings += columns.warn_of_alternatives(contents[0], {noun: item_column, "label": label_column}, read)
    rows: list[tuple[str, Any, str, str]] = []
    incomplete: list[str] = []
    left_out: Counter[str] = Counter()
    for (file_split, path), table, table_labels in zip(files, contents, labels, strict=True):
        if file_split not in ("", "train") and not any(table_labels):
            warnings.append(f"{path} has no labels and is left out.")
            continue
        splits = table.columns[split_column] if split_column else [None] * len(table)
        cells = zip(table.columns[item_column], table_labels, splits, strict=True)
        for row, (item, label, split_cell) in enumerate(cells):
            split = columns.assign_split(split_cell, left_out) if split_column else file_split
            if split is None:
                continue
            name, content = parse_cell(item, path.parent, f"{path}[{row + 1}]")
            if not label or content is None or (split_column and not split):
                column = item_column if content is None else label_column if not label else split_column
                incomplete.append(f"{table.locate(row)} has nothing in the column '{column}'")
                continue
            rows.append((name, content, label, split))
    if incomplete and not (read.skip_invalid and rows):
        raise UserError(columns.describe_incomplete(incomplete, [content for _, content, _, _ in rows]))
    if incomplete:
        warnings.append(f"{len(incomplete)} rows were skipped; the first: {incomplete[0]}.")
    warnings += columns.warn_of_left_out(left_out, split_column, noun)
    taken = {noun: item_column, "label": label_column} | ({"split": split_column} if split_column else {})
    origin = f"the column '{split_column}'" if split_column else "file names"
    origin = "the dictionary" if source.kind == "object" and not split_column else origin
    return replace(_from_rows(rows, warnings, noun), columns=taken, split_origin=origin)


def select_tfds_splits(source: Source, split_sizes: Sequence[tuple[str, int]]) -> tuple[dict[str, str], list[str]]:
    """Return the TFDS split of each split, or of "" if the data set has a single split; and warnings.

    Args:
        source: A TFDS data set.
        split_sizes: (TFDS split, number of examples) in order.

    Raises:
        UserError: If there are several splits, but none for training.
    """
    names = [name for name, _ in split_sizes]
    if len(names) == 1:
        return {"": names[0]}, []
    selected: dict[str, str] = {}
    for name in names:
        if split_name(name):
            selected.setdefault(split_name(name), name)
    if "train" not in selected:
        raise UserError(f"{source.spec} has the splits {', '.join(names)}, none of them for training.")
    ignored = [name for name in names if name not in selected.values()]
    warnings = [f"These splits of {source.spec} are ignored: {', '.join(ignored)}."] if ignored else []
    return {split: selected[split] for split in SPLITS if split in selected}, warnings


def from_tfds(
    source: Source,
    example_type: ExampleType,
    dataset: tfds.PreparedDataset,
    splits: dict[str, str],
    labels: np.ndarray,
    items: Any,
    *,
    warnings: Sequence[str],
    cache_key: str = "",
) -> Listing:
    """List the examples of a TFDS data set, except those without a label.

    Args:
        source: The source.
        example_type: Type of the examples.
        dataset: The data set.
        splits: The result of :func:`select_tfds_splits`.
        labels: int (n,), one split after the other; -1 for an example without a label.
        items: The examples in the same order.
        warnings: The warnings of :func:`select_tfds_splits`.
        cache_key: See :class:`Listing`.
    """
    sizes, noun = dict(dataset.split_sizes), example_type.noun
    listing = Listing(
        names=[f"{source.name}/{name}[{i}]" for name in splits.values() for i in range(sizes[name])],
        labels=labels.astype(np.int32),
        classes=dataset.classes,
        items=items,
        splits=split_indices([split for split, name in splits.items() for _ in range(sizes[name])]),
        warnings=list(warnings),
        cache_key=cache_key,
        noun=noun,
        split_origin="the data set",
    )
    labeled = np.flatnonzero(labels >= 0)
    if len(labeled) < len(labels):
        warning = f"{len(labels) - len(labeled)} {noun}s of {source.spec} have no label and were skipped."
        listing = replace(listing.take(labeled), warnings=[*warnings, warning])
    return listing


def split_indices(splits: Sequence[str]) -> np.ndarray | None:
    """Return the indices of splits in ``SPLITS``, int8 (n,), or None if the data have no predefined splits ("")."""
    return None if "" in splits else np.array([SPLITS.index(split) for split in splits], np.int8)


def _from_rows(rows: Sequence[tuple[str, Any, str, str]], warnings: list[str], noun: str) -> Listing:
    """Return the listing of (name, item, label, split) rows; labels that Unicode considers equal are one class."""
    rows = [(name, item, columns.normalize_label(label), split) for name, item, label, split in rows]
    classes = sort_classes({label for _, _, label, _ in rows})
    index = {name: i for i, name in enumerate(classes)}
    return Listing(
        names=[name for name, _, _, _ in rows],
        labels=np.array([index[label] for _, _, label, _ in rows], np.int32),
        classes=classes,
        items=[item for _, item, _, _ in rows],
        splits=split_indices([split for _, _, _, split in rows]),
        warnings=warnings,
        noun=noun,
    )


def _no_class_folders(root: Path, example_type: ExampleType) -> str:
    files = list_files(root)
    noun, count = example_type.noun, sum(map(example_type.matches, files))
    if count:
        return (
            f"{root} has {count} {noun}s but no class folders: put each class into a folder with its name, or find the "
            "labels in the names of the files with --label-pattern."
        )
    if unreadable := _describe_unreadable([file.path for file in files], example_type):
        return f"{root} has {unreadable}."
    if packed := [file.path for file in files if archives.suffix(Path(file.path))]:
        return f"{root} has no class folders, but another archive, {packed[0]}: unpack it, or give it as --data."
    return f"{root} has no class folders: put the {noun}s of each class into a folder with its name."


def _no_examples(source: Source, other_files: list[str], example_type: ExampleType) -> str:
    """Return the message about a folder without examples, which names files that cannot be read."""
    message = f"{source.spec} has no {example_type.noun}s in its folders"
    if unreadable := _describe_unreadable(other_files, example_type):
        return f"{message}, but {unreadable}."
    return f"{message}: add files that end in {', '.join(example_type.suffixes)}."


def _describe_unreadable(paths: list[str], example_type: ExampleType) -> str:
    """Return how many files are of similar types that cannot be read, and what to do; "" without such files."""
    unsupported = [path for path in paths if Path(path).suffix.lower() in (*example_type.unsupported, *VIDEO_SUFFIXES)]
    if not unsupported:
        return ""
    remedy = (
        "extract images from videos, for example with ffmpeg"
        if Path(unsupported[0]).suffix.lower() in VIDEO_SUFFIXES
        else f"convert them to {example_type.suffixes[0]}"
    )
    return f"{len(unsupported)} files of types that cannot be read, such as {unsupported[0]}: {remedy}"


def _warn_of_other_files(other_files: list[str], examples: int, example_type: ExampleType) -> list[str]:
    noun = example_type.noun
    unsupported = [path for path in other_files if Path(path).suffix.lower() in example_type.unsupported]
    if unsupported:
        return [
            f"{len(unsupported)} {noun}s of unsupported types were skipped, such as {unsupported[0]}: convert them."
        ]
    if len(other_files) >= max(MIN_OTHER_FILES, int(examples * MIN_OTHER_RATIO)):
        return [f"{len(other_files)} files that are not {noun}s were skipped, such as {other_files[0]}."]
    return []
