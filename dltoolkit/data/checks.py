"""The look at the data before training: what cannot be read, what is repeated, lopsided or missing."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dltoolkit.data import split
from dltoolkit.data.readers.listing import Listing
from dltoolkit.data.readers.source import PARTS
from dltoolkit.errors import UserError

IMBALANCE = 10  # largest class over smallest, from which on a word is due
SHOWN = 5  # names in a message
LONGEST_NAME = 200  # characters


def splits_itself(listing: Listing) -> bool:
    """Return whether train, validation and test are for us to make: the data bring no held-out part."""
    return listing.parts is None or not listing.parts.any()


def trainable(listing: Listing, said: str, *, labeled: bool = True) -> Listing:
    """Return ``listing`` without class names that no example has.

    Raises:
        UserError: if there is only one class and labels count, or one that cannot be both trained on and tested.
    """
    noun = listing.noun
    used, codes, counts = np.unique(listing.labels, return_inverse=True, return_counts=True)
    classes = [listing.classes[number] for number in used]
    warnings = listing.warnings
    if len(used) < len(listing.classes):
        unused = [name for number, name in enumerate(listing.classes) if number not in set(used.tolist())]
        warnings = [*warnings, f"No {noun} has the label {_some(unused)}: left out."]
    if len(classes) < (2 if labeled else 1):
        only = f"only one class, '{classes[0]}'" if classes else f"no labelled {noun}s"
        raise UserError(f"{said} has {only}: a classifier needs {noun}s of at least two classes.")
    if splits_itself(listing):
        for name, count in zip(classes, counts, strict=True):
            if count < 3:
                raise UserError(
                    f"Class '{name}' has only {count} {noun}{'s' if count > 1 else ''}: train, validation and test "
                    "need one each, so add more or remove the class."
                )
    else:
        trained = set(codes[listing.parts == 0].tolist())
        missing = [name for number, name in enumerate(classes) if number not in trained]
        if missing:
            numbers = np.unique(listing.parts[codes == classes.index(missing[0])])
            raise UserError(
                f"Class '{missing[0]}' is only in {' and '.join(PARTS[number] for number in numbers)}: "
                f"add training {noun}s of it or remove it there."
            )
    alike: dict[str, str] = {}
    for name in classes:
        folded = " ".join(name.casefold().split())
        if folded in alike:
            warnings = [*warnings, f"The labels '{alike[folded]}' and '{name}' differ in case or spaces only."]
        alike[folded] = name
    return replace(listing, labels=codes.astype(np.int32), classes=classes, warnings=warnings)


def remarks(listing: Listing, hashes: np.ndarray, parts: dict[str, np.ndarray]) -> list[str]:
    """Return warnings about repeated, leaking and contradictory examples and about lopsided or missing classes."""
    found = []
    noun = listing.noun
    again = [name for name, _ in repeated(hashes, listing.names)]
    if again:
        found.append(f"{_count(len(again), noun, 'repeats another', 'repeat others')} exactly: {_some(again, 3)}.")
    for part, seen in (("validation", ("train",)), ("test", ("train", "validation"))):
        if leaked := split.leaked(hashes, parts[part], np.concatenate([parts[name] for name in seen])):
            found.append(
                f"{_count(leaked, noun, f'of {part} is', f'of {part} are')} also in {' or '.join(seen)}: "
                f"the {part} result will look better than it is."
            )
    if clashes := split.contradictions(hashes, listing.labels):
        found.append(f"{_count(clashes, noun, 'appears', 'appear')} under more than one label.")
    counts = np.bincount(listing.labels[parts["train"]], minlength=len(listing.classes))
    if counts.max() > IMBALANCE * counts.min():
        most, least = int(counts.argmax()), int(counts.argmin())
        found.append(
            f"Classes are lopsided: {counts[most]} training {noun}s of '{listing.classes[most]}', "
            f"{counts[least]} of '{listing.classes[least]}'; consider --class-weights balanced."
        )
    for part in ("validation", "test"):
        present = set(listing.labels[parts[part]].tolist())
        if missing := [name for number, name in enumerate(listing.classes) if number not in present]:
            found.append(f"The {part} part has no {noun} of {_some(missing)}.")
    return found


def repeated(hashes: np.ndarray, names: Sequence[str]) -> list[tuple[str, str]]:
    """Return (name, "same as NAME") for each example that is equal to an earlier one."""
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[inverse] != np.arange(len(hashes)))
    return [(names[i], f"same as {names[first[inverse[i]]]}") for i in again]


def fingerprint(shape: Sequence[int], hashes: np.ndarray, listing: Listing) -> str:
    """Return 32 hexadecimal digits that stand for the examples, labels, classes and given splits, in this order."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([list(shape), listing.classes]).encode())
    for array in (hashes, listing.labels, listing.parts):
        digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def refuse(bad: Mapping[int, str], listing: Listing, skip_invalid: bool, folder: Path, name: str) -> None:
    """Raise a UserError if there are bad examples that may not be skipped, or nothing else.

    Args:
        bad: position in ``listing`` -> what is the matter.
        folder, name: where a list of them goes if they are many, and the data's name.
    """
    if not bad or (skip_invalid and len(bad) < len(listing.names)):
        return
    names = [(listing.names[position], reason) for position, reason in bad.items()]
    more = ""
    if len(bad) > SHOWN:
        listed = folder / f"{name}-unreadable.txt"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            listed.write_text("".join(f"{name}\t{reason}\n" for name, reason in names), errors="surrogateescape")
            more = f" (all are listed in {listed})"
        except OSError:
            pass  # the message itself matters more
    if len(bad) == len(listing.names):
        raise UserError(f"None of the {len(bad)} {listing.noun}s can be used: {_reasons(names)}{more}.")
    raise UserError(
        f"{len(bad)} of {len(listing.names)} {listing.noun}s cannot be used: {_reasons(names)}{more}. "
        "Mend or remove them, or leave them out with --skip-invalid."
    )


def without(listing: Listing, bad: Mapping[int, str]) -> tuple[Listing, list[tuple[str, str]]]:
    """Return the listing without bad examples, with a warning about them, and (name, reason) of each."""
    if not bad:
        return listing, []
    names = [(listing.names[position], reason) for position, reason in bad.items()]
    warning = f"{_count(len(bad), listing.noun, 'was', 'were')} left out as unusable: {_reasons(names)}."
    rest = listing.take(np.setdiff1d(np.arange(len(listing.names)), list(bad)))
    return replace(rest, warnings=[*rest.warnings, warning]), names


def _count(number: int, noun: str, one: str, more: str) -> str:
    return f"{number} {noun} {one}" if number == 1 else f"{number} {noun}s {more}"


def _some(names: Sequence[str], shown: int = SHOWN) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…" for name in names[:shown]) + more


def _reasons(names: Sequence[tuple[str, str]]) -> str:
    return _some([f"{name} ({reason})" for name, reason in names])
