"""The look at the data before training: what cannot be read, what is repeated, lopsided or missing."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from dltoolkit.data import decode, published, split, store
from dltoolkit.data.listing import Listing
from dltoolkit.data.source import PARTS, File
from dltoolkit.errors import UserError

IMBALANCE = 10  # largest class over smallest, from which on a word is due
SHOWN = 5  # names in a message
LONGEST_NAME = 200  # characters


@dataclass(frozen=True)
class Decoded:
    """What `decoded` returns.

    Attributes:
        listing: without the pictures that could not be read.
        images: uint8 (n, h, w, c).
        hashes: uint64 (n,), of the contents.
        bad: (name, reason) of those left out.
        warnings: a sentence about them.
    """

    listing: Listing
    images: np.ndarray
    hashes: np.ndarray
    bad: list[tuple[str, str]]
    warnings: list[str]


def splits_itself(listing: Listing) -> bool:
    """Return whether train, validation and test are for us to make: the data bring no held-out part."""
    return listing.parts is None or not listing.parts.any()


def trainable(listing: Listing, said: str) -> Listing:
    """Return ``listing`` without class names that no picture has.

    Raises:
        UserError: if there is only one class, or one that cannot be both trained on and tested.
    """
    used, codes, counts = np.unique(listing.labels, return_inverse=True, return_counts=True)
    classes = [listing.classes[number] for number in used]
    warnings = listing.warnings
    if len(used) < len(listing.classes):
        unused = [name for number, name in enumerate(listing.classes) if number not in set(used.tolist())]
        warnings = [*warnings, f"No picture has the label {_some(unused)}: left out."]
    if len(classes) < 2:
        only = f"only one class, '{classes[0]}'" if classes else "no labelled pictures"
        raise UserError(f"{said} has {only}: a classifier needs pictures of at least two classes.")
    if splits_itself(listing):
        for name, count in zip(classes, counts, strict=True):
            if count < 3:
                raise UserError(
                    f"Class '{name}' has only {count} picture{'s' if count > 1 else ''}: train, validation and test "
                    "need one each, so add more or remove the class."
                )
    else:
        trained = set(codes[listing.parts == 0].tolist())
        missing = [name for number, name in enumerate(classes) if number not in trained]
        if missing:
            numbers = np.unique(listing.parts[codes == classes.index(missing[0])])
            raise UserError(
                f"Class '{missing[0]}' is only in {' and '.join(PARTS[number] for number in numbers)}: "
                "add training pictures of it or remove it there."
            )
    return replace(listing, labels=codes.astype(np.int32), classes=classes, warnings=warnings)


def decoded(
    listing: Listing,
    name: str,
    *,
    image_size: int | None = None,
    image_shape: tuple[int, int, int] | None = None,
    skip_bad: bool = False,
    cache_dir: Path | None = None,
    progress: decode.Progress | None = None,
) -> Decoded:
    """Decode all pictures of a listing, once; what does not fit in memory is kept on disk for the next time.

    Args:
        name: of the source, for file names.
        image_size: side of the squares, by default for the pictures to decide.
        image_shape: (h, w, c) if it is fixed already.
        skip_bad: leave out what cannot be read.

    Raises:
        UserError: if pictures cannot be read and ``skip_bad`` is False, or none can.
    """
    folder = cache_dir or store.default_folder()
    file = store.PixelFile(folder, f"{name}-{_key(listing, image_shape or image_size)}")
    found = None if isinstance(listing.pictures, np.ndarray) else file.find()
    if found and not _mended(listing, *found):
        images, facts = found
        bad = {int(position): reason for position, reason in facts["bad"].items()}
        hashes = np.frombuffer(bytes.fromhex(facts["hashes"]), np.uint64)
        _refuse(bad, listing, skip_bad, folder, name)
    else:
        try:
            images, bad = _decode(listing, file, image_size, image_shape, progress)
            _refuse(bad, listing, skip_bad, folder, name)
            if bad:
                images = _compact(images, np.setdiff1d(np.arange(len(images)), list(bad)))
            hashes = split.content_hashes(images)
            if isinstance(images, np.memmap):
                images = file.keep(images, {"bad": bad, "hashes": hashes.tobytes().hex()})
        except BaseException:
            file.discard()
            raise
    warnings = []
    names = [(listing.names[position], reason) for position, reason in bad.items()]
    if bad:
        listing = listing.take(np.setdiff1d(np.arange(len(listing.names)), list(bad)))
        warnings.append(f"{_count(len(bad), 'was', 'were')} left out as unreadable: {_reasons(names)}.")
    return Decoded(listing, images, hashes, names, warnings)


def remarks(listing: Listing, hashes: np.ndarray, parts: dict[str, np.ndarray]) -> list[str]:
    """Return warnings about repeated, leaking and contradictory pictures and about lopsided or missing classes."""
    found = []
    again = [name for name, _ in repeated(hashes, listing.names)]
    if again:
        found.append(f"{_count(len(again), 'repeats another', 'repeat others')} exactly: {_some(again, 3)}.")
    for part, seen in (("validation", ("train",)), ("test", ("train", "validation"))):
        if leaked := split.leaked(hashes, parts[part], np.concatenate([parts[name] for name in seen])):
            found.append(
                f"{_count(leaked, f'of {part} is', f'of {part} are')} also in {' or '.join(seen)}: "
                f"the {part} result will look better than it is."
            )
    if clashes := split.contradictions(hashes, listing.labels):
        found.append(f"{_count(clashes, 'appears', 'appear')} under more than one label.")
    counts = np.bincount(listing.labels[parts["train"]], minlength=len(listing.classes))
    if counts.max() > IMBALANCE * counts.min():
        most, least = int(counts.argmax()), int(counts.argmin())
        found.append(
            f"Classes are lopsided: {counts[most]} training pictures of '{listing.classes[most]}', "
            f"{counts[least]} of '{listing.classes[least]}'; consider --class-weights balanced."
        )
    for part in ("validation", "test"):
        present = set(listing.labels[parts[part]].tolist())
        if missing := [name for number, name in enumerate(listing.classes) if number not in present]:
            found.append(f"The {part} part has no picture of {_some(missing)}.")
    return found


def repeated(hashes: np.ndarray, names: Sequence[str]) -> list[tuple[str, str]]:
    """Return (name, "same as NAME") for each picture that is equal to an earlier one."""
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[inverse] != np.arange(len(hashes)))
    return [(names[i], f"same as {names[first[inverse[i]]]}") for i in again]


def fingerprint(shape: tuple[int, ...], hashes: np.ndarray, listing: Listing) -> str:
    """Return 32 hexadecimal digits that stand for the pictures, labels, classes and given splits, in this order."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([list(shape), listing.classes]).encode())
    for array in (hashes, listing.labels, listing.parts):
        digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _decode(
    listing: Listing,
    file: store.PixelFile,
    image_size: int | None,
    image_shape: tuple[int, int, int] | None,
    progress: decode.Progress | None,
) -> tuple[np.ndarray, dict[int, str]]:
    pictures = listing.pictures
    total = len(listing.names)

    def room(shape: tuple[int, int, int]) -> np.ndarray:
        size = total * int(np.prod(shape))
        return file.create((total, *shape)) if size > store.memory_limit() else store.room((total, *shape))

    if isinstance(pictures, np.ndarray):
        height, width, channels = pictures.shape[1:]
        as_is = height == width <= decode.LARGEST_AS_IS
        side = image_size or (height if as_is else decode.usual_side(np.array([min(height, width)])))
        shape = image_shape or (side, side, channels)
        if shape == (height, width, channels):
            return store.aligned(pictures), {}
        out = store.room((total, *shape))
        return out, decode.decode_all((decode.from_array(picture) for picture in pictures), out, progress)

    if image_shape:
        out = room(image_shape)
        return out, decode.decode_all(pictures, out, progress)

    # Most sets are all alike: then one pass will do. If a picture turns out different, all headers are read first.
    first = decode.survey(islice(pictures, 8), min(8, total))
    if not first.bad and (first.grey == first.grey[0]).all():
        side = image_size or first.side()
        if image_size or (first.sizes == side).all():
            out = room((side, side, first.channels()))
            try:
                alike = (bool(first.grey[0]), None if image_size else side)
                return out, decode.decode_all(pictures, out, progress, alike=alike)
            except decode.Mismatch:
                file.discard()
                del out
    seen = decode.survey(pictures, total, progress)
    if len(seen.bad) == total:
        return np.empty((total, 1, 1, 1), np.uint8), seen.bad
    side = image_size or seen.side()
    out = room((side, side, seen.channels()))
    return out, decode.decode_all(pictures, out, progress)


def _mended(listing: Listing, images: np.ndarray, facts: dict) -> bool:
    """Return whether a picture that could not be read when ``images`` were kept can be read now."""
    bad = sorted(int(position) for position in facts["bad"])
    if not bad:
        return False
    rows = np.empty((len(bad), *images.shape[1:]), np.uint8)
    return len(decode.decode_all(listing.take(np.array(bad)).pictures, rows)) < len(bad)


def _refuse(bad: dict[int, str], listing: Listing, skip_bad: bool, folder: Path, name: str) -> None:
    """Raise a UserError if there are bad pictures that may not be skipped, or nothing else."""
    if not bad or (skip_bad and len(bad) < len(listing.names)):
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
        raise UserError(f"None of the {len(bad)} pictures can be read: {_reasons(names)}{more}.")
    raise UserError(
        f"{len(bad)} of {len(listing.names)} pictures cannot be read: {_reasons(names)}{more}. "
        "Mend or remove them, or leave them out with --skip-bad."
    )


def _compact(images: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Move the ``good`` rows to the front, in place, and return the view of them."""
    for to, row in enumerate(good):
        if to != row:
            images[to] = images[row]
    return images[: len(good)]


def _key(listing: Listing, size: object) -> str:
    """Return a key that changes whenever the pictures or how they are decoded do."""
    digest = hashlib.blake2b(f"1 {size} {listing.stamp}".encode(), digest_size=10)
    for text in _identities(listing):
        digest.update(text)
    return digest.hexdigest()


def _identities(listing: Listing) -> Iterable[bytes]:
    if isinstance(listing.pictures, list):
        for picture in listing.pictures:
            if isinstance(picture, File):
                path = os.path.abspath(picture.path)
                yield os.fsencode(f"{path}\0{picture.size}\0{picture.mtime}\0")
            else:
                yield hashlib.blake2b(picture).digest()
    elif isinstance(listing.pictures, published.Encoded):
        yield from (name.encode() + b"\0" for name in listing.names)


def _count(number: int, one: str, more: str) -> str:
    return f"{number} picture {one}" if number == 1 else f"{number} pictures {more}"


def _some(names: Sequence[str], shown: int = SHOWN) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…" for name in names[:shown]) + more


def _reasons(names: Sequence[tuple[str, str]]) -> str:
    return _some([f"{name} ({reason})" for name, reason in names])
