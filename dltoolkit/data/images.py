"""Labelled pictures from any source, decoded once, split honestly, and served to training through tf.data."""

import glob
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dltoolkit.data import arrays, decode, scan, source, split
from dltoolkit.data.listing import Listing, list_pictures
from dltoolkit.data.source import PARTS, Source
from dltoolkit.errors import UserError, suggestion

MOST_VALIDATED, MOST_TESTED = 5_000, 10_000  # pictures, where a fraction was not asked for


@dataclass(eq=False)
class ImageSplits:
    """Pictures, labels and who is in which part.

    Attributes:
        images: uint8 (n, h, w, c), c 1 or 3; in memory, or mapped from a file if there are too many.
        labels: int32 (n,), numbers of ``classes``.
        names: for each picture the file's path, or "fashion_mnist/test[17]".
        train, validation, test: int64 indices into the above, ascending. Not every picture need be in a part.
        classes: class names.
        fingerprint: hexadecimal; equal data in equal order have equal fingerprints.
        source: where they came from, as the user said it.
        name: short name of the source, fit for a file's name.
        warnings: what the user should know, in plain sentences.
        findings: (name, what is the matter) of every unreadable or repeated picture.
    """

    images: np.ndarray
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

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return tuple(self.images.shape[1:])

    def counts(self) -> dict[str, int]:
        """Return the number of pictures in each part."""
        return {part: len(getattr(self, part)) for part in PARTS}

    def describe(self) -> dict[str, Any]:
        """Return what a run's run.json says of its data."""
        return {
            "source": self.source,
            "fingerprint": self.fingerprint,
            "splits": self.counts(),
            "classes": self.classes,
            "image_shape": list(self.image_shape),
            "warnings": self.warnings,
        }

    def balanced_weights(self) -> np.ndarray:
        """Return the weight of each class in the loss, float (classes,), with which all classes weigh the same."""
        counts = np.bincount(self.labels[self.train], minlength=len(self.classes))
        return len(self.train) / (len(self.classes) * np.maximum(counts, 1))


def load(
    data: Source | str,
    *,
    image_size: int | None = None,
    seed: int = 0,
    validation_fraction: float | None = None,
    test_fraction: float | None = None,
    limit: int | None = None,
    labels_per_class: int | None = None,
    skip_bad: bool = False,
    image_column: str | None = None,
    label_column: str | None = None,
    header: bool | None = None,
    cache_dir: Path | None = None,
    progress: decode.Progress | None = None,
) -> ImageSplits:
    """Find, check, decode and split labelled pictures.

    Splits that the data bring are kept. With a single held-out part that part is the test, and validation is cut from
    train; without any, each class is split by content and seed (see ``split``).

    Args:
        data: what ``--data`` says, or a resolved source.
        image_size: side in pixels to which every picture is resized and cropped. By default equal square pictures of
            at most 224 stay as they are, and others get their median short side, at most 160.
        seed: decides the split and who stays under a limit.
        validation_fraction, test_fraction: of each class, where the data bring no such part. By default 15 %, but no
            more than 5,000 pictures in validation and 10,000 in test, which are enough to measure with.
        limit: use at most so many pictures in all, each class and part in proportion.
        labels_per_class: train on at most so many of each class; validation and test stay as they are.
        skip_bad: leave out pictures that cannot be read, instead of refusing.
        image_column, label_column: of a table, by name or position; by default found by their usual names.
        header: whether a .csv or .tsv begins with column names; by default recognised.
        cache_dir: where pictures are kept that do not fit in memory.
        progress: called with what is being done, how many are done, and how many there are.

    Raises:
        UserError: for anything that cannot be trained on as it is.
    """
    src = source.resolve(data) if isinstance(data, str) else data
    listing = list_pictures(src, image_column=image_column, label_column=label_column, header=header, progress=progress)
    listing = scan.trainable(listing, src.said)
    if limit is not None and limit < len(listing.names):
        minimum = 3 if scan.splits_itself(listing) else 2
        keys = split.name_hashes([name.removeprefix(str(src.path)) for name in listing.names])
        listing = listing.take(split.pick(keys, listing.labels, limit, seed=seed, minimum=minimum, parts=listing.parts))
    decoded = scan.decoded(
        listing, src.name, image_size=image_size, skip_bad=skip_bad, cache_dir=cache_dir, progress=progress
    )
    listing, hashes = decoded.listing, decoded.hashes
    if decoded.bad:
        listing = scan.trainable(listing, src.said)
    count = len(listing.names) if listing.parts is None else int((listing.parts == 0).sum())
    validation = min(0.15, MOST_VALIDATED / count) if validation_fraction is None else validation_fraction
    test = min(0.15, MOST_TESTED / count) if test_fraction is None else test_fraction
    parts = _parts(listing, hashes, validation, test, seed)
    warnings = [*listing.warnings, *decoded.warnings, *scan.remarks(listing, hashes, parts)]
    if labels_per_class is not None:
        parts["train"] = split.per_class(hashes, listing.labels, parts["train"], labels_per_class, seed=seed)
    return ImageSplits(
        images=decoded.images,
        labels=listing.labels,
        names=listing.names,
        **parts,
        classes=listing.classes,
        fingerprint=scan.fingerprint(decoded.images.shape, hashes, listing),
        source=src.said,
        name=src.name,
        warnings=warnings,
        findings=[*decoded.bad, *scan.repeated(hashes, listing.names)],
    )


def labelled(
    data: Source | str,
    classes: Sequence[str],
    image_shape: tuple[int, int, int],
    *,
    part: str = "test",
    seed: int = 0,
    limit: int | None = None,
    skip_bad: bool = False,
    image_column: str | None = None,
    label_column: str | None = None,
    header: bool | None = None,
    cache_dir: Path | None = None,
    progress: decode.Progress | None = None,
    warn: Callable[[str], None] | None = None,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Read other labelled pictures for a trained model.

    Args:
        data: what ``--data`` says, or a resolved source.
        classes: the model's classes; labels are matched by name, whatever their case.
        image_shape: the model's (height, width, channels).
        part: which part to take of data that bring splits; data without splits are taken whole.
        warn: called with what the user should know, in plain sentences.
        The rest is as in `load`.

    Returns:
        uint8 (n, h, w, c), int32 (n,) numbers of ``classes``, and n names.

    Raises:
        UserError: if a label is none of ``classes``, or pictures cannot be read.
    """
    src = source.resolve(data) if isinstance(data, str) else data
    listing = list_pictures(src, image_column=image_column, label_column=label_column, header=header, progress=progress)
    if listing.parts is not None:
        present = {PARTS[number] for number in np.unique(listing.parts)}
        if part == "test" and "test" not in present and "validation" in present:
            part = "validation"  # the one held-out part is the test, whatever its name
        if part in present:
            listing = listing.take(np.flatnonzero(listing.parts == PARTS.index(part)))
    known = {name.lower(): number for number, name in reversed(list(enumerate(classes)))}
    known |= {name: number for number, name in enumerate(classes)}
    used = np.unique(listing.labels)
    translation = np.full(len(listing.classes), -1, np.int32)
    for number in used:
        name = listing.classes[number]
        translation[number] = known.get(name, known.get(name.lower(), -1))
        if translation[number] < 0:
            listed = ", ".join(classes[:20]) + (", …" if len(classes) > 20 else "")
            raise UserError(
                f"The label '{name}' in {src.said} is unknown to the model.{suggestion(name, classes)} "
                f"It knows: {listed}."
            )
    if limit is not None and limit < len(listing.names):
        keys = split.name_hashes(listing.names)
        listing = listing.take(split.pick(keys, listing.labels, limit, seed=seed, minimum=0))
    decoded = scan.decoded(
        listing, src.name, image_shape=image_shape, skip_bad=skip_bad, cache_dir=cache_dir, progress=progress
    )
    for warning in (*listing.warnings, *decoded.warnings) if warn else ():
        warn(warning)
    return decoded.images, translation[decoded.listing.labels], decoded.listing.names


def read(picture: str | os.PathLike | np.ndarray | Image.Image, image_shape: tuple[int, int, int]) -> np.ndarray:
    """Return one picture as uint8 ``image_shape``, (height, width, channels), cut and resized as in training.

    Args:
        picture: a file, a Pillow image, or an array (h, w) or (h, w, c) of 0..255, or floats 0..1.

    Raises:
        UserError: with the reason in a few words ("not a picture", "cut off") if it cannot be read.
    """
    if isinstance(picture, np.ndarray):
        if picture.ndim not in (2, 3):
            raise UserError(f"an array of shape {picture.shape} is not one picture")
        picture = decode.from_array(arrays.to_pixels(picture[None], "the array")[0])
    try:
        return decode.read(picture, image_shape)
    except OSError as error:
        raise UserError(str(error)) from None


def expand(inputs: Iterable[Any]) -> list[Any]:
    """Return the files meant by files, folders (with all below them) and glob patterns, in order.

    What does not exist, or holds no picture, is kept as it is, so that reading it tells why; so are arrays and
    Pillow images.
    """
    found: list[Any] = []
    for item in inputs:
        if not isinstance(item, (str, os.PathLike)):
            found.append(item)
            continue
        text = str(item)
        try:
            path = Path(os.path.expanduser(text))
            if text.strip() and path.is_dir():
                inside = [file.path for file in source.files(path)]
                found += [name for name in inside if Path(name).suffix.lower() in decode.SUFFIXES] or [text]
            elif not path.exists() and glob.has_magic(text):
                matches = sorted(glob.glob(str(path), recursive=True))
                found += [name for name in matches if os.path.isfile(name)] or [text]
            else:
                found.append(text)
        except (OSError, ValueError, UserError):  # a name too long, a closed folder
            found.append(text)
    return found


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
