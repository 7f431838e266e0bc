"""Decode the images of a listing into one array, which is cached on disk if it does not fit in memory."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from dltoolkit.data import checks, disk_cache, split
from dltoolkit.data.image import decode
from dltoolkit.data.options import ImageReadOptions
from dltoolkit.data.readers.listing import Listing
from dltoolkit.data.readers.source import File
from dltoolkit.data.readers.tfds import EncodedImages

CACHE_VERSION = 2  # raised whenever decoding or the metadata change, so that older caches are ignored
SAMPLED_HEADERS = 8  # first images, whose headers predict whether all images are of one size and color


@dataclass(frozen=True)
class DecodedImages:
    """The decoded images of a listing.

    Attributes:
        listing: Listing of the readable images.
        images: Pixels uint8 (n, h, w, c).
        hashes: Hashes of the pixels, uint64 (n,).
        unreadable: Name and reason of each unreadable image.
    """

    listing: Listing
    images: np.ndarray
    hashes: np.ndarray
    unreadable: list[tuple[str, str]]


def decode_listing(
    listing: Listing,
    name: str,
    read: ImageReadOptions,
    *,
    image_size: int | None = None,
    image_shape: tuple[int, int, int] | None = None,
    cache_dir: Path | None = None,
    progress: decode.Progress | None = None,
) -> DecodedImages:
    """Decode all images of a listing, or read them from the cache.

    Args:
        listing: Images of any source.
        name: Name of the source, for file names.
        read: Options for reading.
        image_size: Side of the square images in pixels; by default, the images determine it.
        image_shape: Height, width and channels, if they are fixed.
        cache_dir: Folder of the cache.
        progress: Function that is called with the task, the number of processed images and the total.

    Raises:
        UserError: If an image cannot be read and may not be skipped, or if no image can be read.
    """
    folder = cache_dir or disk_cache.default_folder()
    cache = disk_cache.DiskCache(folder, f"{name}-{_cache_name(listing, image_shape or image_size)}")
    cached = None if isinstance(listing.items, np.ndarray) else cache.find()
    if cached and not _is_outdated(listing, *cached):
        images, metadata = cached
        unreadable = {int(position): reason for position, reason in metadata["unreadable"].items()}
        hashes = np.frombuffer(bytes.fromhex(metadata["hashes"]), np.uint64)
        checks.refuse_invalid(unreadable, listing, read, folder, name)
    else:
        try:
            images, unreadable = _decode(listing, cache, image_size, image_shape, progress)
            checks.refuse_invalid(unreadable, listing, read, folder, name)
            if unreadable:
                images = _compact(images, np.setdiff1d(np.arange(len(images)), list(unreadable)))
            hashes = split.content_hashes(images)
            if isinstance(images, np.memmap):
                images = cache.commit(images, {"unreadable": unreadable, "hashes": hashes.tobytes().hex()})
        except BaseException:
            cache.discard()
            raise
    listing, findings = checks.drop_invalid(listing, unreadable)
    return DecodedImages(listing, images, hashes, findings)


def _decode(
    listing: Listing,
    cache: disk_cache.DiskCache,
    image_size: int | None,
    image_shape: tuple[int, int, int] | None,
    progress: decode.Progress | None,
) -> tuple[np.ndarray, dict[int, str]]:
    """Return the pixels of all images, and the reason for each unreadable image by position."""
    sources = listing.items
    total = len(listing.names)

    def allocate(shape: tuple[int, int, int]) -> np.ndarray:
        if total * int(np.prod(shape)) > disk_cache.memory_limit():
            return cache.create((total, *shape), "decoded images")
        return disk_cache.aligned_empty((total, *shape))

    if isinstance(sources, np.ndarray):
        height, width, channels = sources.shape[1:]
        unchanged = height == width <= decode.MAX_UNCHANGED_SIDE
        side = image_size or (height if unchanged else decode.default_side(np.array([min(height, width)])))
        shape = image_shape or (side, side, channels)
        if shape == (height, width, channels):
            return disk_cache.aligned(sources), {}
        out = disk_cache.aligned_empty((total, *shape))
        return out, decode.decode_all(map(decode.from_array, sources), out, progress)

    if image_shape:
        out = allocate(image_shape)
        return out, decode.decode_all(sources, out, progress)

    # The images of most data sets are alike, so that they can be decoded without reading all headers first. If an
    # image differs from the first ones, the headers are read after all.
    sample = decode.survey(islice(sources, SAMPLED_HEADERS), min(SAMPLED_HEADERS, total))
    if not sample.unreadable and (sample.grayscale == sample.grayscale[0]).all():
        side = image_size or sample.side()
        if image_size or (sample.sizes == side).all():
            out = allocate((side, side, sample.channels()))
            try:
                expected = (bool(sample.grayscale[0]), None if image_size else side)
                return out, decode.decode_all(sources, out, progress, expected=expected)
            except decode.UnexpectedImageError:
                cache.discard()
                del out
    survey = decode.survey(sources, total, progress)
    if len(survey.unreadable) == total:
        return np.empty((total, 1, 1, 1), np.uint8), survey.unreadable
    side = image_size or survey.side()
    out = allocate((side, side, survey.channels()))
    return out, decode.decode_all(sources, out, progress)


def _is_outdated(listing: Listing, images: np.ndarray, metadata: dict) -> bool:
    """Return whether an image that was unreadable when ``images`` were cached is readable now."""
    unreadable = sorted(int(position) for position in metadata["unreadable"])
    if not unreadable:
        return False
    rows = np.empty((len(unreadable), *images.shape[1:]), np.uint8)
    return len(decode.decode_all(listing.take(np.array(unreadable)).items, rows)) < len(unreadable)


def _compact(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Move these rows to the front of the array in place, and return a view of them."""
    for target, row in enumerate(rows):
        if target != row:
            images[target] = images[row]
    return images[: len(rows)]


def _cache_name(listing: Listing, size: object) -> str:
    """Return a name that changes with the images and with the options for decoding them."""
    digest = hashlib.blake2b(f"{CACHE_VERSION} {size} {listing.cache_key}".encode(), digest_size=10)
    for identity in _identities(listing):
        digest.update(identity)
    return digest.hexdigest()


def _identities(listing: Listing) -> Iterable[bytes]:
    if isinstance(listing.items, list):
        for item in listing.items:
            if isinstance(item, File):
                yield os.fsencode(f"{os.path.abspath(item.path)}\0{item.size}\0{item.mtime}\0")
            else:
                yield hashlib.blake2b(item).digest()
    elif isinstance(listing.items, EncodedImages):
        yield from (name.encode() + b"\0" for name in listing.names)
