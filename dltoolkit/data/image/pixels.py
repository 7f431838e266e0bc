"""Listed pictures decoded into one array, once; what does not fit in memory is kept on disk for the next time."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from dltoolkit.data import checks as scan
from dltoolkit.data import disk_cache as store
from dltoolkit.data import split
from dltoolkit.data.image import decode
from dltoolkit.data.readers import tfds as published
from dltoolkit.data.readers.listing import Listing
from dltoolkit.data.readers.source import File


@dataclass(frozen=True)
class Decoded:
    """What `decoded` returns.

    Attributes:
        listing: without the pictures that could not be read.
        images: uint8 (n, h, w, c).
        hashes: uint64 (n,), of the contents.
        bad: (name, reason) of those left out.
    """

    listing: Listing
    images: np.ndarray
    hashes: np.ndarray
    bad: list[tuple[str, str]]


def decoded(
    listing: Listing,
    name: str,
    *,
    image_size: int | None = None,
    image_shape: tuple[int, int, int] | None = None,
    skip_invalid: bool = False,
    cache_dir: Path | None = None,
    progress: decode.Progress | None = None,
) -> Decoded:
    """Decode all pictures of a listing, once; what does not fit in memory is kept on disk for the next time.

    Args:
        name: of the source, for file names.
        image_size: side of the squares, by default for the pictures to decide.
        image_shape: (h, w, c) if it is fixed already.
        skip_invalid: leave out what cannot be read.

    Raises:
        UserError: if pictures cannot be read and ``skip_invalid`` is False, or none can.
    """
    folder = cache_dir or store.default_folder()
    file = store.KeptArray(folder, f"{name}-{_key(listing, image_shape or image_size)}")
    found = None if isinstance(listing.items, np.ndarray) else file.find()
    if found and not _mended(listing, *found):
        images, facts = found
        bad = {int(position): reason for position, reason in facts["bad"].items()}
        hashes = np.frombuffer(bytes.fromhex(facts["hashes"]), np.uint64)
        scan.refuse(bad, listing, skip_invalid, folder, name)
    else:
        try:
            images, bad = _decode(listing, file, image_size, image_shape, progress)
            scan.refuse(bad, listing, skip_invalid, folder, name)
            if bad:
                images = _compact(images, np.setdiff1d(np.arange(len(images)), list(bad)))
            hashes = split.content_hashes(images)
            if isinstance(images, np.memmap):
                images = file.keep(images, {"bad": bad, "hashes": hashes.tobytes().hex()})
        except BaseException:
            file.discard()
            raise
    listing, findings = scan.without(listing, bad)
    return Decoded(listing, images, hashes, findings)


def _decode(
    listing: Listing,
    file: store.KeptArray,
    image_size: int | None,
    image_shape: tuple[int, int, int] | None,
    progress: decode.Progress | None,
) -> tuple[np.ndarray, dict[int, str]]:
    pictures = listing.items
    total = len(listing.names)

    def room(shape: tuple[int, int, int]) -> np.ndarray:
        size = total * int(np.prod(shape))
        return (
            file.create((total, *shape), "decoded pictures")
            if size > store.memory_limit()
            else store.room((total, *shape))
        )

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
    return len(decode.decode_all(listing.take(np.array(bad)).items, rows)) < len(bad)


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
    if isinstance(listing.items, list):
        for picture in listing.items:
            if isinstance(picture, File):
                path = os.path.abspath(picture.path)
                yield os.fsencode(f"{path}\0{picture.size}\0{picture.mtime}\0")
            else:
                yield hashlib.blake2b(picture).digest()
    elif isinstance(listing.items, published.Encoded):
        yield from (name.encode() + b"\0" for name in listing.names)
