"""Labeled examples and their splits, for images and texts alike."""

import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dltoolkit.data import checks, split
from dltoolkit.data.options import SplitOptions
from dltoolkit.data.readers.listing import Listing
from dltoolkit.data.readers.source import SPLITS, UNLABELED, Source
from dltoolkit.errors import UserError, did_you_mean
from dltoolkit.formatting import counted

HELD_OUT = 0.15  # default fraction of each class for validation, and for the test
MAX_VALIDATION, MAX_TEST = 5_000, 10_000  # examples; more would hardly make the scores more precise
MAX_LISTED_CLASSES = 20  # in a message
MAX_COUNTED_CLASSES = 12  # classes whose sizes the summary lists; of more classes, it names the largest and smallest


@dataclass(eq=False, kw_only=True)
class LabeledSplits:
    """Labeled examples and their splits.

    Attributes:
        labels: int32 (n,), indices into ``classes``.
        names: Path of each example's file, or a name such as "fashion_mnist/test[17]".
        train, validation, test: int64 indices of the examples of each split, ascending. An example may be in none.
        classes: Names of the classes.
        fingerprint: Hexadecimal digits; equal data in the same order have equal fingerprints.
        source: Value of ``--data``.
        name: Short name of the source that is safe in file names.
        noun: Name of an example in messages, "image" or "text".
        kind: Kind of the source in words, such as "table".
        folder: Folder of the files or of the table; None for other data.
        columns: Columns of a table that were read, by their meaning: "text" or "image", "label", "split".
        split_origin: Origin of the splits in words, such as "predefined by folders".
        warnings: Sentences for the user.
        findings: (name, finding) of every unusable or repeated example.
        train_hashes: Hashes of the groups of the training examples, uint64, sorted; see :func:`split_dataset`.
    """

    labels: np.ndarray
    names: Sequence[str]
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    classes: list[str]
    fingerprint: str
    source: str
    name: str = "data"
    noun: str = "example"
    kind: str = "data"
    folder: Path | None = None
    columns: dict[str, str] = field(default_factory=dict)
    split_origin: str = ""
    warnings: list[str] = field(default_factory=list)
    findings: list[tuple[str, str]] = field(default_factory=list)
    train_hashes: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))

    def counts(self) -> dict[str, int]:
        """Return the number of examples in each split."""
        return {name: len(getattr(self, name)) for name in SPLITS}

    def relative_names(self) -> list[str]:
        """Return the names of the examples for results, with files relative to the folder of the data."""
        prefix = "" if self.folder is None else os.path.join(self.folder, "")
        return [name.removeprefix(prefix) for name in self.names]

    def describe(self) -> dict[str, Any]:
        """Return the description of the data for run.json."""
        return {
            "source": self.source,
            "columns": self.columns,
            "fingerprint": self.fingerprint,
            "splits": self.counts(),
            "split_origin": self.split_origin,
            "classes": self.classes,
            "warnings": self.warnings,
        }

    def describe_evaluated(self) -> str:
        """Return a sentence that says that the test split is evaluated, with its size and its origin."""
        origin = f" ({self.split_origin})" if self.split_origin else ""
        return f"Evaluating {counted(len(self.test), self.noun)}: the test split of {self.source}{origin}."

    def summary(self) -> list[tuple[str, str]]:
        """Return labels and values of what was read, for the block that is printed before training."""
        used = sum(self.counts().values())
        unused = f", {used:,} of them used" if used < len(self.labels) else ""
        rows = [
            ("Data", f"{self.source} ({self.kind})"),
            ("Examples", f"{counted(len(self.labels), self.noun)}{unused}"),
            ("Classes", self._describe_classes()),
        ]
        splits = ", ".join(f"{count:,} {name}" for name, count in self.counts().items())
        rows.append(("Splits", f"{splits}; {self.split_origin}" if self.split_origin else splits))
        if self.columns:
            rows.append(("Columns", _join_columns(self.columns)))
        return rows

    def _describe_classes(self) -> str:
        if self.classes == [UNLABELED]:
            return f"none, the {self.noun}s are not labeled"
        counts = np.bincount(self.labels, minlength=len(self.classes)).tolist()
        sizes = [f"{name} ({count:,})" for name, count in zip(self.classes, counts, strict=True)]
        if len(sizes) > MAX_COUNTED_CLASSES:
            largest, smallest = int(np.argmax(counts)), int(np.argmin(counts))
            sizes = [f"the largest {sizes[largest]}", f"the smallest {sizes[smallest]}"]
        return f"{len(self.classes)}: {', '.join(sizes)}"

    def balanced_weights(self) -> np.ndarray:
        """Return the weight of each class in the loss, float (classes,), that gives all classes the same total."""
        counts = np.bincount(self.labels[self.train], minlength=len(self.classes))
        return len(self.train) / (len(self.classes) * np.maximum(counts, 1))


def subsample(listing: Listing, source: Source, limit: int | None, seed: int) -> Listing:
    """Return at most ``limit`` examples of a listing, each class and predefined split in proportion to its size."""
    if limit is None or limit >= len(listing.names):
        return listing
    minimum = 3 if checks.needs_split(listing) else 2
    hashes = split.name_hashes([name.removeprefix(str(source.path)) for name in listing.names])
    return listing.take(
        split.stratified_sample(hashes, listing.labels, limit, seed=seed, minimum=minimum, splits=listing.splits)
    )


def split_dataset(
    listing: Listing,
    hashes: np.ndarray,
    source: Source,
    options: SplitOptions,
    *,
    seed: int,
    invalid: Sequence[tuple[str, str]],
    groups: np.ndarray | None = None,
) -> dict[str, Any]:
    """Split a listing, check the splits, and return the fields of :class:`LabeledSplits`.

    Predefined splits are kept. If only one held-out split is predefined, it is the test split, and validation is split
    from train. Without predefined splits, each class is split by content and seed (see ``split``).

    Args:
        listing: Listing of the valid examples.
        hashes: uint64 (n,), of their contents, which decide on the splits: they must not depend on options such as
            the size of the images, so that runs with other options have the same splits.
        source: The source.
        options: Options for splitting.
        seed: Seed of the split.
        invalid: (name, reason) of the skipped examples.
        groups: uint64 (n,), hashes of what a model can tell apart at best; by default, of all that differs. Examples
            of one group count as equal.

    Raises:
        UserError: If a class is too small.
    """
    groups = hashes if groups is None else groups
    hashes = split.group_keys(hashes, groups)
    count = len(listing.names) if listing.splits is None else int((listing.splits == 0).sum())
    validation, test, shots = options.validation_fraction, options.test_fraction, options.shots
    validation = min(HELD_OUT, MAX_VALIDATION / count) if validation is None else validation
    test = min(HELD_OUT, MAX_TEST / count) if test is None else test
    splits = _split(listing, hashes, validation, test, seed)
    duplicates = checks.find_duplicates(hashes, listing.names)
    warnings = [*listing.warnings, *checks.warnings(listing, hashes, splits, duplicates)]
    if shots is not None:
        largest = int(np.bincount(listing.labels[splits["train"]]).max())
        if shots > largest:
            raise UserError(
                f"--shots {shots} is too large: no class of {source.spec} has more than {largest} training examples."
            )
        splits["train"] = split.sample_per_class(hashes, listing.labels, splits["train"], shots, seed=seed)
    return {
        **splits,
        "labels": listing.labels,
        "names": listing.names,
        "classes": listing.classes,
        "fingerprint": checks.fingerprint(hashes, listing),
        "source": source.spec,
        "name": source.name,
        "noun": listing.noun,
        "kind": listing.kind or source.description,
        "folder": source.folder,
        "columns": listing.columns,
        "split_origin": _describe_origin(listing),
        "warnings": warnings,
        "findings": [*invalid, *duplicates],
        "train_hashes": np.unique(groups[splits["train"]]),
    }


def select_split(listing: Listing, name: str) -> Listing:
    """Return the examples of a predefined split, or all examples if it is not predefined."""
    if listing.splits is None:
        return listing
    present = {SPLITS[index] for index in np.unique(listing.splits)}
    if name == "test" and "test" not in present and "validation" in present:
        name = "validation"  # a single held-out split is the test split, regardless of its name
    return listing.take(np.flatnonzero(listing.splits == SPLITS.index(name))) if name in present else listing


def describe_evaluated(everything: Listing, selected: Listing, source: Source) -> str:
    """Return a sentence that says which examples of other data are evaluated: their number, split and columns.

    Args:
        everything: All examples of the source.
        selected: Those of them that are evaluated.
        source: The source.
    """
    count = counted(len(selected.names), selected.noun)
    if everything.splits is None or len(np.unique(selected.splits)) > 1:
        which = "all of it, as it has no predefined test split"
    else:
        split = SPLITS[selected.splits[0]]
        files = ", ".join(str(path) for path in source.splits.get(split, ()))
        which = f"its {split} split, predefined by {everything.split_origin}{f' ({files})' if files else ''}"
    columns = f"; {_join_columns(selected.columns)}" if selected.columns else ""
    return f"Evaluating {count} of {source.spec}: {which}{columns}."


def _join_columns(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{meaning} from {_quote_column(name)}" for meaning, name in columns.items())


def _quote_column(name: str) -> str:
    return f"column {name}" if name.isdigit() else f"'{name}'"


def label_mapping(listing: Listing, classes: Sequence[str], spec: str) -> np.ndarray:
    """Return the index in a model's ``classes`` of each class of a listing, int32 (classes of the listing,).

    Names are matched without regard to case and to the form of their Unicode characters.

    Args:
        listing: The listing.
        classes: Names of the classes of the model.
        spec: Value of ``--data``, for messages.

    Raises:
        UserError: If an example has a label that the model does not have.
    """
    mapping = np.full(len(listing.classes), -1, np.int32)
    for index in np.unique(listing.labels):
        name = listing.classes[index]
        mapping[index] = class_index(name, classes)
        if mapping[index] < 0:
            listed = ", ".join(classes[:MAX_LISTED_CLASSES]) + (", …" if len(classes) > MAX_LISTED_CLASSES else "")
            raise UserError(
                f"The model does not have the label '{name}' of {spec}.{did_you_mean(name, classes)} Its labels are: "
                f"{listed}."
            )
    return mapping


def class_index(name: str, classes: Sequence[str]) -> int:
    """Return the index of a label in ``classes``, first with the same and then with any case; -1 if it is absent.

    Names that Unicode considers equal are the same, whether their characters are composed or not.
    """
    name, composed = (unicodedata.normalize("NFC", name), [unicodedata.normalize("NFC", other) for other in classes])
    if name in composed:
        return composed.index(name)
    return next((index for index, other in enumerate(composed) if other.lower() == name.lower()), -1)


def _describe_origin(listing: Listing) -> str:
    """Return where the splits come from, in words."""
    if checks.needs_split(listing):
        return "split by class and content"
    if len(np.unique(listing.splits)) == len(SPLITS):
        return f"predefined by {listing.split_origin}"
    return f"test predefined by {listing.split_origin}, validation split from train by class and content"


def _split(listing: Listing, hashes: np.ndarray, validation: float, test: float, seed: int) -> dict[str, np.ndarray]:
    labels, classes = listing.labels, listing.classes
    if checks.needs_split(listing):
        return split.train_validation_test_split(
            hashes, labels, validation=validation, test=test, seed=seed, classes=classes
        )
    predefined = {name: np.flatnonzero(listing.splits == index) for index, name in enumerate(SPLITS)}
    if len(predefined["validation"]) and len(predefined["test"]):
        return predefined
    held_out = predefined["test"] if len(predefined["test"]) else predefined["validation"]
    train, validation_rows = split.split_validation(
        hashes, labels, predefined["train"], validation=validation, seed=seed, classes=classes
    )
    return {"train": train, "validation": validation_rows, "test": held_out}
