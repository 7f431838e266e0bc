"""Checks of the data before training: unusable, repeated and leaking examples, imbalanced and missing classes."""

import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dltoolkit.data import split
from dltoolkit.data.options import NONE, ReadOptions
from dltoolkit.data.readers.listing import Listing
from dltoolkit.data.readers.source import SPLITS, Source, table_suffix
from dltoolkit.errors import UserError
from dltoolkit.formatting import counted

MAX_IMBALANCE = 10  # ratio of the largest to the smallest class above which a warning recommends class weights
UNLABELED = ("unsup", "unlab", "nolabel", "no_label")  # beginnings of the names of folders that are no classes
SAME = {"text": "word for word"}  # how examples that count as equal repeat others, if not exactly
MAX_LISTED = 5  # names in a message; more names would hide the message itself
MAX_NAME_LENGTH = 200  # characters of a name in a message


def needs_split(listing: Listing) -> bool:
    """Return whether the data have no predefined held-out split, so that the toolkit splits them."""
    return listing.splits is None or not listing.splits.any()


def refuse_unused(values: Mapping[str, Any], source: Source, noun: str) -> None:
    """Raise a UserError if an option for reading has no effect on a source.

    Args:
        values: Values of options by name; None and options of other kinds are ignored.
        source: The source.
        noun: What is read, "image" or "text".
    """
    is_table, is_folder = source.kind in ("table", "object"), source.kind == "folder"
    suffix = table_suffix(next((path for paths in source.splits.values() for path in paths), source.path or Path()))
    effective = {
        "label_column": is_table,
        "image_column": is_table,
        "text_column": is_table,
        "split_column": is_table,
        "header": is_table and suffix in (".csv", ".tsv", ".xlsx"),
        "encoding": (is_table and suffix not in (".xlsx", ".parquet", ".arrow"))
        or (noun == "text" and (is_folder or source.kind == "text")),
        "label_pattern": is_folder,
    }
    for name, has_effect in effective.items():
        if values.get(name) not in (None, NONE) and not has_effect:
            flag = "--no-header" if values[name] is False else f"--{name.replace('_', '-')}"
            kind = f"{suffix} files" if is_table and suffix else "folder" if is_folder else source.description
            raise UserError(f"{flag} has no effect on {source.spec} ({kind}): leave it out.")


def validate(listing: Listing, spec: str, *, labeled: bool = True) -> Listing:
    """Return a listing without the class names that no example has.

    Args:
        listing: The listing.
        spec: Value of ``--data``, for messages.
        labeled: Whether the labels matter, so that there must be at least two classes.

    Raises:
        UserError: If there are too few classes, or a class that cannot be both trained on and tested.
    """
    if listing.splits is not None and len(listing.splits) and not (listing.splits == 0).any():
        present = " and ".join(SPLITS[index] for index in np.unique(listing.splits))
        raise UserError(f"{spec} has {listing.noun}s for {present} but none for train: add training {listing.noun}s.")
    listing = leave_out_unlabeled(listing) if labeled else listing
    noun, warnings = listing.noun, listing.warnings
    used, labels, counts = np.unique(listing.labels, return_inverse=True, return_counts=True)
    classes = [listing.classes[index] for index in used]
    if len(used) < len(listing.classes):
        unused = [name for index, name in enumerate(listing.classes) if index not in set(used.tolist())]
        warnings = [*warnings, f"These labels have no {noun} and are left out: {_join(unused)}."]
    if len(classes) < (2 if labeled else 1):
        only = f"only one class, '{classes[0]}'" if classes else f"no labeled {noun}s"
        if len(classes) == 1 and (nested := _find_nested_folders(listing, classes[0])):
            names = _join(sorted({folder.name for folder in nested}))
            remedy = f"give --data={nested[0].parent}" if needs_split(listing) else "move them up by one level"
            raise UserError(f"{spec} has {only}, but its folders {names} look like the classes: {remedy}.")
        raise UserError(f"{spec} has {only}: give a classifier {noun}s of at least two classes.")
    if needs_split(listing):
        for name, count in zip(classes, counts, strict=True):
            if count < 3:
                raise UserError(
                    f"Class '{name}' has only {count} {noun}{'s' if count > 1 else ''}, but train, validation and "
                    "test need one each: add more or remove the class."
                )
    else:
        trained = set(labels[listing.splits == 0].tolist())
        if missing := [index for index in range(len(classes)) if index not in trained]:
            splits = [SPLITS[index] for index in np.unique(listing.splits[labels == missing[0]])]
            raise UserError(
                f"Class '{classes[missing[0]]}' is only in {' and '.join(splits)}: add training {noun}s of it or "
                "remove it there."
            )
        if labeled and listing.split_origin == "folders":
            held_out = listing.splits == listing.splits.max()
            if absent := set(range(len(classes))) - set(labels[held_out].tolist()):
                name = SPLITS[listing.splits.max()]
                raise UserError(
                    f"The class '{classes[min(absent)]}' has a folder in train but no {noun}s in {name}: "
                    "add some to test it, or remove its folder in train if it is no class."
                )
    similar: dict[str, str] = {}
    for name in classes:
        folded = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        if folded in similar:
            warnings = [*warnings, f"The labels '{similar[folded]}' and '{name}' differ only in case or spaces."]
        similar[folded] = name
    return replace(listing, labels=labels.astype(np.int32), classes=classes, warnings=warnings)


def _find_nested_folders(listing: Listing, name: str) -> list[Path]:
    """Return the folders directly in the class folder ``name`` that hold all of its examples, if several do.

    A folder around the data may have the same name, so the innermost one counts.
    """
    if listing.split_origin != "folders":
        return []
    parents = (Path(path).parents for path in listing.names)
    nested = {next((each for each in folders if each.parent.name == name), None) for folders in parents}
    return sorted(nested) if None not in nested and len({folder.name for folder in nested}) > 1 else []


def leave_out_unlabeled(listing: Listing) -> Listing:
    """Return a listing without the class folders that hold unlabeled examples, and with a warning about them.

    The name of such a folder begins as in ``UNLABELED``, and the predefined test folders lack it.
    """
    if listing.split_origin != "folders" or needs_split(listing):
        return listing
    tested = set(listing.labels[listing.splits > 0].tolist())
    left_out = [
        index
        for index in np.unique(listing.labels).tolist()
        if index not in tested and listing.classes[index].lower().startswith(UNLABELED)
    ]
    if not left_out:
        return listing
    is_unlabeled = np.isin(listing.labels, left_out)
    names = ", ".join(listing.classes[index] for index in left_out)
    warning = (
        f"The {int(is_unlabeled.sum()):,} {listing.noun}s in train/{names} are left out: by its name the folder is "
        "unlabeled, and the test folders lack it."
    )
    labeled = listing.take(np.flatnonzero(~is_unlabeled))
    unused = set(left_out)
    classes = [name for index, name in enumerate(listing.classes) if index not in unused]
    mapping = np.cumsum([index not in unused for index in range(len(listing.classes))]) - 1
    return replace(
        labeled,
        labels=mapping[labeled.labels].astype(np.int32),
        classes=classes,
        warnings=[*listing.warnings, warning],
    )


def warnings(
    listing: Listing, hashes: np.ndarray, splits: dict[str, np.ndarray], duplicates: Sequence[tuple[str, str]]
) -> list[str]:
    """Return warnings about repeated, leaking and contradictory examples and about imbalanced or missing classes.

    Args:
        listing: The listing.
        hashes: uint64 (n,), equal for examples that count as equal.
        splits: Indices of the examples of each split.
        duplicates: From :func:`find_duplicates`.
    """
    sentences = []
    noun, same = listing.noun, SAME.get(listing.noun, "exactly")
    also = f"{same} also" if noun in SAME else "also"
    if duplicates:
        count = _count(len(duplicates), noun, "repeats another", "repeat others")
        sentences.append(f"{count} {same}: {_join([name for name, _ in duplicates], 3)}.")
    for name, earlier in (("validation", ("train",)), ("test", ("train", "validation"))):
        if leaked := split.count_leaked(hashes, splits[name], np.concatenate([splits[other] for other in earlier])):
            sentences.append(
                f"{_count(leaked, noun, f'of {name} is', f'of {name} are')} {also} in {' or '.join(earlier)}, so "
                f"that the {name} scores will be too high."
            )
    if conflicts := split.conflicting_labels(hashes, listing.labels):
        sentences.append(f"{_count(conflicts, noun, 'has', 'have')} more than one label.")
    counts = np.bincount(listing.labels[splits["train"]], minlength=len(listing.classes))
    if counts.max() > MAX_IMBALANCE * counts.min():
        largest, smallest = int(counts.argmax()), int(counts.argmin())
        sentences.append(
            f"Classes are imbalanced: {counts[largest]} training {noun}s of '{listing.classes[largest]}', "
            f"{counts[smallest]} of '{listing.classes[smallest]}'; consider --class-weights=balanced."
        )
    for name in ("validation", "test"):
        present = set(listing.labels[splits[name]].tolist())
        if missing := [label for index, label in enumerate(listing.classes) if index not in present]:
            sentences.append(f"The {name} split has no {noun} of {_join(missing)}.")
    return sentences


def find_duplicates(hashes: np.ndarray, names: Sequence[str]) -> list[tuple[str, str]]:
    """Return (name, "same as NAME") for each example that is equal to an earlier one."""
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    rows = np.flatnonzero(first[inverse] != np.arange(len(hashes)))
    return [(names[i], f"same as {names[first[inverse[i]]]}") for i in rows]


def fingerprint(hashes: np.ndarray, listing: Listing) -> str:
    """Return 32 hexadecimal digits that identify the examples, labels, classes and predefined splits in this order."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps(listing.classes).encode())
    for array in (hashes, listing.labels, listing.splits):
        digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def warn_of_training_data(hashes: np.ndarray, noun: str, trained: np.ndarray | None) -> list[str]:
    """Return a warning if examples are among those that a model was trained on, in any format and order.

    Args:
        hashes: uint64 (n,), of the contents.
        noun: Name of an example, "image" or "text".
        trained: Hashes of the training examples of the model; None to warn of nothing.
    """
    count = 0 if trained is None else int(np.isin(hashes, trained).sum())
    if not count:
        return []
    subject = f"{count:,} of {counted(len(hashes), noun)} {'is' if count == 1 else 'are'}"
    return [f"{subject} among the training examples of the run, so the scores will be too optimistic."]


def refuse_invalid(reasons: Mapping[int, str], listing: Listing, read: ReadOptions, folder: Path, name: str) -> None:
    """Raise a UserError if invalid examples may not be skipped, or if all examples are invalid.

    Args:
        reasons: Position in ``listing`` and reason of each invalid example.
        listing: The listing.
        read: Options for reading, which tell whether to skip invalid examples.
        folder: Folder for a list of the invalid examples if they are many.
        name: Name of the source, for the name of that list.
    """
    if not reasons or (read.skip_invalid and len(reasons) < len(listing.names)):
        return
    findings = [(listing.names[position], reason) for position, reason in reasons.items()]
    more = ""
    if len(findings) > MAX_LISTED:
        path = folder / f"{name}-unreadable.txt"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{name}\t{reason}\n" for name, reason in findings), errors="surrogateescape")
            more = f" (all are listed in {path})"
        except OSError:
            pass  # the message is more important than the list
    if len(findings) == len(listing.names):
        raise UserError(f"None of the {len(findings)} {listing.noun}s can be used: {_describe(findings)}{more}.")
    raise UserError(
        f"{len(findings)} of {len(listing.names)} {listing.noun}s cannot be used: {_describe(findings)}{more}. "
        "Correct or remove them, or skip them with --skip-invalid."
    )


def drop_invalid(listing: Listing, reasons: Mapping[int, str]) -> tuple[Listing, list[tuple[str, str]]]:
    """Return the listing without invalid examples, with a warning about them, and (name, reason) of each."""
    if not reasons:
        return listing, []
    findings = [(listing.names[position], reason) for position, reason in reasons.items()]
    warning = f"{_count(len(reasons), listing.noun, 'is', 'are')} unusable and skipped: {_describe(findings)}."
    valid = listing.take(np.setdiff1d(np.arange(len(listing.names)), list(reasons)))
    return replace(valid, warnings=[*valid.warnings, warning]), findings


def _count(number: int, noun: str, singular: str, plural: str) -> str:
    return f"{number} {noun} {singular}" if number == 1 else f"{number} {noun}s {plural}"


def _join(names: Sequence[str], limit: int = MAX_LISTED) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    shortened = [name if len(name) <= MAX_NAME_LENGTH else f"{name[:MAX_NAME_LENGTH]}…" for name in names[:limit]]
    return ", ".join(shortened) + more


def _describe(findings: Sequence[tuple[str, str]]) -> str:
    return _join([f"{name} ({reason})" for name, reason in findings])
