"""What labelled pictures and texts have in common once they are listed: who is in which part, under what label."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dltoolkit.data import checks as scan
from dltoolkit.data import split
from dltoolkit.data.options import SplitOptions
from dltoolkit.data.readers.listing import Listing
from dltoolkit.data.readers.source import PARTS, Source
from dltoolkit.errors import UserError, did_you_mean

MOST_VALIDATED, MOST_TESTED = 5_000, 10_000  # examples, where a fraction was not asked for


@dataclass(eq=False, kw_only=True)
class LabeledSplits:
    """Labelled examples and who is in which part.

    Attributes:
        labels: int32 (n,), numbers of ``classes``.
        names: for each example the file's path, or "fashion_mnist/test[17]".
        train, validation, test: int64 indices into the above, ascending. Not every example need be in a part.
        classes: class names.
        fingerprint: hexadecimal; equal data in equal order have equal fingerprints.
        source: where they came from, as the user said it.
        name: short name of the source, fit for a file's name.
        warnings: what the user should know, in plain sentences.
        findings: (name, what is the matter) of every unusable or repeated example.
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
    warnings: list[str] = field(default_factory=list)
    findings: list[tuple[str, str]] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Return the number of examples in each part."""
        return {part: len(getattr(self, part)) for part in PARTS}

    def describe(self) -> dict[str, Any]:
        """Return what a run's run.json says of its data."""
        return {
            "source": self.source,
            "fingerprint": self.fingerprint,
            "splits": self.counts(),
            "classes": self.classes,
            "warnings": self.warnings,
        }

    def balanced_weights(self) -> np.ndarray:
        """Return the weight of each class in the loss, float (classes,), with which all classes weigh the same."""
        counts = np.bincount(self.labels[self.train], minlength=len(self.classes))
        return len(self.train) / (len(self.classes) * np.maximum(counts, 1))


def limited(listing: Listing, source: Source, limit: int | None, seed: int) -> Listing:
    """Return at most ``limit`` examples, each class and part in proportion."""
    if limit is None or limit >= len(listing.names):
        return listing
    minimum = 3 if scan.splits_itself(listing) else 2
    keys = split.name_hashes([name.removeprefix(str(source.path)) for name in listing.names])
    return listing.take(split.pick(keys, listing.labels, limit, seed=seed, minimum=minimum, parts=listing.parts))


def divided(
    listing: Listing,
    hashes: np.ndarray,
    source: Source,
    options: SplitOptions,
    *,
    shape: Sequence[int] = (),
    seed: int,
    bad: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    """Split a listing that has been read, remark on it, and return the fields of `LabelledSplits`.

    Splits that the data bring are kept. With a single held-out part that part is the test, and validation is cut from
    train; without any, each class is split by content and seed (see ``split``).

    Args:
        hashes: uint64 (n,), of the contents.
        shape: of an example, for the fingerprint.
        bad: (name, reason) of what was left out.
    """
    count = len(listing.names) if listing.parts is None else int((listing.parts == 0).sum())
    validation, test, shots = options.validation_fraction, options.test_fraction, options.shots
    validation = min(0.15, MOST_VALIDATED / count) if validation is None else validation
    test = min(0.15, MOST_TESTED / count) if test is None else test
    parts = _parts(listing, hashes, validation, test, seed)
    warnings = [*listing.warnings, *scan.remarks(listing, hashes, parts)]
    if shots is not None:
        most = int(np.bincount(listing.labels[parts["train"]]).max())
        if shots > most:
            raise UserError(f"--shots {shots}: no class of {source.said} has more than {most} training examples.")
        parts["train"] = split.per_class(hashes, listing.labels, parts["train"], shots, seed=seed)
    return {
        **parts,
        "labels": listing.labels,
        "names": listing.names,
        "classes": listing.classes,
        "fingerprint": scan.fingerprint(shape, hashes, listing),
        "source": source.said,
        "name": source.name,
        "warnings": warnings,
        "findings": [*bad, *scan.repeated(hashes, listing.names)],
    }


def of_part(listing: Listing, part: str) -> Listing:
    """Return the ``part`` of data that bring splits; data without splits whole."""
    if listing.parts is None:
        return listing
    present = {PARTS[number] for number in np.unique(listing.parts)}
    if part == "test" and "test" not in present and "validation" in present:
        part = "validation"  # the one held-out part is the test, whatever its name
    return listing.take(np.flatnonzero(listing.parts == PARTS.index(part))) if part in present else listing


def translation(listing: Listing, classes: Sequence[str], said: str) -> np.ndarray:
    """Return int32 (classes of the listing,): the number of each in a model's ``classes``, whatever their case.

    Raises:
        UserError: if the listing uses a label that the model does not know.
    """
    numbers = np.full(len(listing.classes), -1, np.int32)
    for number in np.unique(listing.labels):
        name = listing.classes[number]
        numbers[number] = class_number(name, classes)
        if numbers[number] < 0:
            listed = ", ".join(classes[:20]) + (", …" if len(classes) > 20 else "")
            raise UserError(
                f"The label '{name}' in {said} is unknown to the model.{did_you_mean(name, classes)} It knows: {listed}."
            )
    return numbers


def class_number(name: str, classes: Sequence[str]) -> int:
    """Return the place of a label in ``classes``, as it is written or else in any case; -1 if it is none of them."""
    if name in classes:
        return list(classes).index(name)
    return next((number for number, known in enumerate(classes) if known.lower() == name.lower()), -1)


def _parts(listing: Listing, hashes: np.ndarray, validation: float, test: float, seed: int) -> dict[str, np.ndarray]:
    labels, classes = listing.labels, listing.classes
    if scan.splits_itself(listing):
        return split.three_way(hashes, labels, validation=validation, test=test, seed=seed, classes=classes)
    given = {part: np.flatnonzero(listing.parts == number) for number, part in enumerate(PARTS)}
    if not len(given["validation"]) or not len(given["test"]):
        held_out = given["test"] if len(given["test"]) else given["validation"]
        train, cut = split.carve_validation(
            hashes, labels, given["train"], validation=validation, seed=seed, classes=classes
        )
        return {"train": train, "validation": cut, "test": held_out}
    return given
