"""Decode the images of a listing into one array, which is cached on disk if it does not fit in memory."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dltoolkit import memory
from dltoolkit.data import checks, disk_cache, split
from dltoolkit.data.image import arrays, decode, geometry
from dltoolkit.data.image.preprocessing import Preprocessing
from dltoolkit.data.image.scale import MIN_LEVELS, NOT_FINITE, is_8_bit
from dltoolkit.data.options import ImageReadOptions
from dltoolkit.data.readers.folders import File
from dltoolkit.data.readers.listing import Listing
from dltoolkit.data.readers.tfds import EncodedImages

CACHE_VERSION = 4  # raised whenever decoding or the metadata change, so that older caches are ignored
SAMPLED_PIXELS = 1000  # images that are looked at for this warning
SAMPLED_HEADERS = 8  # first images, whose headers predict whether all images are of one size and color


@dataclass(frozen=True)
class DecodedImages:
    """The decoded images of a listing.

    Attributes:
        listing: Listing of the readable images.
        images: Pixels uint8 (n, h, w, c).
        hashes: Hashes of the pixels, uint64 (n,).
        keys: Hashes of the images before they are resized, uint64 (n,), which do not depend on the size of the pixels;
            those of the pixels if the preprocessing is that of a trained model.
        unreadable: Name and reason of each unreadable image.
        preprocessing: The way from the images to their pixels.
        sizes: Smallest and greatest size of the images in words, such as "28x28" or "40x30 to 4000x3000".
        pixels_used: Mean fraction of the pixels that remains after cropping.
    """

    listing: Listing
    images: np.ndarray
    hashes: np.ndarray
    keys: np.ndarray
    unreadable: list[tuple[str, str]]
    preprocessing: Preprocessing
    sizes: str = ""
    pixels_used: float = 1.0


class _Pixels(NamedTuple):
    """Pixels of all images of a listing, the reason for each unreadable one, and what is known of the images.

    The keys are hashes of the images before they are resized; None if they are those of the pixels.
    """

    images: np.ndarray
    unreadable: dict[int, str]
    preprocessing: Preprocessing
    geometry: dict[str, Any]
    keys: np.ndarray | None = None


def decode_listing(
    listing: Listing,
    name: str,
    read: ImageReadOptions,
    *,
    image_size: int | None = None,
    preprocessing: Preprocessing | None = None,
    cache_dir: Path | None = None,
    progress: decode.Progress | None = None,
) -> DecodedImages:
    """Decode all images of a listing, or read them from the cache.

    Args:
        listing: Images of any source.
        name: Name of the source, for file names.
        read: Options for reading.
        image_size: Side of the square images in pixels; by default, the images determine it.
        preprocessing: Preprocessing of a trained model; by default, images and options determine it.
        cache_dir: Folder of the cache.
        progress: Function that is called with the task, the number of processed images and the total.

    Raises:
        UserError: If an image cannot be read and may not be skipped, or if no image can be read.
    """
    folder = cache_dir or disk_cache.default_folder()
    key = json.dumps([preprocessing.to_dict() if preprocessing else [image_size, read.resize], read.max_pixels])
    cache = disk_cache.DiskCache(folder, f"{name}-{_cache_name(listing, key)}")
    cached = None if isinstance(listing.items, np.ndarray) else cache.find()
    if cached and not _is_outdated(listing, *cached, read.max_pixels):
        images, metadata = cached
        unreadable = {int(position): reason for position, reason in metadata["unreadable"].items()}
        hashes, keys = (np.frombuffer(bytes.fromhex(metadata[name]), np.uint64) for name in ("hashes", "keys"))
        preprocessing, facts = Preprocessing.from_dict(metadata["preprocessing"]), metadata["geometry"]
        checks.refuse_invalid(unreadable, listing, read, folder, name)
    else:
        try:
            images, unreadable, preprocessing, facts, keys = _decode(
                listing, cache, read, image_size, preprocessing, progress
            )
            checks.refuse_invalid(unreadable, listing, read, folder, name)
            if unreadable:
                readable = np.setdiff1d(np.arange(len(images)), list(unreadable))
                images, keys = _compact(images, readable), None if keys is None else keys[readable]
            hashes = split.content_hashes(images)
            keys = hashes if keys is None else keys
            if isinstance(images, np.memmap):
                metadata = {"unreadable": unreadable, "geometry": facts, "preprocessing": preprocessing.to_dict()}
                hexadecimal = {"hashes": hashes.tobytes().hex(), "keys": keys.tobytes().hex()}
                images = cache.commit(images, {**metadata, **hexadecimal})
        except BaseException:
            cache.discard()
            raise
    if preprocessing.scale.is_8_bit:
        facts["warnings"] = [*facts["warnings"], *_warn_of_low_contrast(images)]
    listing, findings = checks.drop_invalid(listing, unreadable)
    listing = replace(listing, warnings=[*listing.warnings, *facts["warnings"]])
    used = facts["pixels_used"]
    return DecodedImages(listing, images, hashes, keys, findings, preprocessing, sizes=facts["sizes"], pixels_used=used)


def _decode(
    listing: Listing,
    cache: disk_cache.DiskCache,
    read: ImageReadOptions,
    image_size: int | None,
    preprocessing: Preprocessing | None,
    progress: decode.Progress | None,
) -> _Pixels:
    """Decode all images; what they have in common determines their preprocessing unless it is given."""
    sources, total = listing.items, len(listing.names)

    def decode_as(preprocessing: Preprocessing, **options: Any) -> tuple[np.ndarray, dict[int, str]]:
        if isinstance(sources, np.ndarray):
            return _decode_array(sources, preprocessing, progress, **options)
        shape = (total, *preprocessing.image_shape)
        fits = int(np.prod(shape)) <= memory.limit()
        out = disk_cache.aligned_empty(shape) if fits else cache.create(shape, "decoded images")
        return out, decode.decode_all(sources, out, preprocessing, progress, max_pixels=read.max_pixels, **options)

    def decode_surveyed(survey: decode.Survey, **options: Any) -> _Pixels:
        mode = read.resize or survey.resize_mode()
        side = image_size or survey.side(mode)
        selected = Preprocessing((side, side, survey.channels()), mode, survey.scale())
        facts = geometry.describe(survey.sizes, listing.names, selected, is_default=image_size is None)
        facts["warnings"] = [
            *selected.scale.warnings(),
            *facts["warnings"],
            *_warn_of_frames(survey.animated, listing.names),
        ]
        keys = np.zeros(total, np.uint64)
        return _Pixels(*decode_as(selected, keys=keys, **options), selected, facts, keys)

    def survey_all() -> decode.Survey:
        if isinstance(sources, np.ndarray):
            return decode.survey_array(sources)
        return decode.survey(sources, total, progress, max_pixels=read.max_pixels)

    if preprocessing is not None:
        return _decode_as_trained(listing, preprocessing, decode_as, survey_all)
    # The images of most data sets are alike, so that they can be decoded without reading all headers first. If an
    # image differs from the first ones, the headers are read after all.
    sample = None if isinstance(sources, np.ndarray) else islice(sources, SAMPLED_HEADERS)
    first = None if sample is None else decode.common_header(sample, read.max_pixels)
    if first is not None and not first.deep:
        try:
            return decode_surveyed(decode.Survey.uniform(first, total), is_expected=lambda header: header == first)
        except decode.UnexpectedImageError:
            cache.discard()
    survey = survey_all()
    if len(survey.unreadable) == total:
        nothing = {"sizes": "", "pixels_used": 1.0, "warnings": []}
        return _Pixels(np.empty((total, 1, 1, 1), np.uint8), survey.unreadable, Preprocessing((1, 1, 1)), nothing)
    return decode_surveyed(survey)


def _decode_as_trained(
    listing: Listing,
    preprocessing: Preprocessing,
    decode_as: Callable[..., tuple[np.ndarray, dict[int, str]]],
    survey_all: Callable[[], decode.Survey],
) -> _Pixels:
    """Decode images as those that a model was trained on, with warnings about images that differ from them.

    If the model was trained on images of 8 bits per channel, other images get a scale of their own, which is said.
    """
    remarks: dict[int, str] = {}
    is_array, warnings = isinstance(listing.items, np.ndarray), []
    only_8_bit = preprocessing.scale.is_8_bit
    try:
        if is_array and only_8_bit and not is_8_bit(listing.items):
            raise decode.UnexpectedImageError
        expected = {} if is_array else {"remarks": remarks}
        if only_8_bit and not is_array:
            expected["is_expected"] = lambda header: not header.deep
        images, unreadable = decode_as(preprocessing, **expected)
    except decode.UnexpectedImageError:
        scale = survey_all().scale(like_8_bit=True)
        warnings.append(f"The model was trained on images of 8 bits per channel, these have {scale.describe()}.")
        preprocessing = replace(preprocessing, scale=scale)
        images, unreadable = decode_as(preprocessing, **({} if is_array else {"remarks": remarks}))
    if is_array:
        values = np.delete(listing.items, list(unreadable), axis=0) if unreadable else listing.items
        remark = preprocessing.remark(values.shape[2:0:-1], values) if len(values) else None
        remarks = {0: remark} if remark else {}
    if remarks:
        first = min(remarks)
        others = f" ({len(remarks):,} images have such remarks)" if len(remarks) > 1 else ""
        warnings.append(f"{listing.names[first]} {remarks[first]}{others}.")
    return _Pixels(images, unreadable, preprocessing, {"sizes": "", "pixels_used": 1.0, "warnings": warnings})


def _decode_array(
    array: np.ndarray,
    preprocessing: Preprocessing,
    progress: decode.Progress | None,
    keys: np.ndarray | None = None,
) -> tuple[np.ndarray, dict[int, str]]:
    rows = arrays.rows_not_finite(array)
    unreadable = dict.fromkeys(rows.tolist(), NOT_FINITE)
    pixels = arrays.to_pixels(np.delete(array, rows, axis=0) if unreadable else array, preprocessing.scale)
    if unreadable:
        readable, pixels = pixels, np.zeros((len(array), *pixels.shape[1:]), np.uint8)
        pixels[np.setdiff1d(np.arange(len(array)), rows)] = readable
    if keys is not None:
        keys[:] = split.content_hashes(pixels)
    if pixels.shape[1:] == preprocessing.image_shape:
        return disk_cache.aligned(pixels), unreadable
    out = disk_cache.aligned_empty((len(pixels), *preprocessing.image_shape))
    return out, {**decode.decode_all(pixels, out, preprocessing, progress), **unreadable}


def _warn_of_frames(animated: np.ndarray, names: Sequence[str]) -> list[str]:
    """Return a warning about images with several frames or pages."""
    if not animated.any():
        return []
    count, first = int(animated.sum()), names[int(animated.argmax())]
    subject = (
        f"1 image has several frames or pages: {first}"
        if count == 1
        else (f"{count:,} images have several frames or pages, such as {first}")
    )
    return [f"{subject}; only the first is used."]


def _warn_of_low_contrast(images: np.ndarray) -> list[str]:
    """Return a warning if images of 8 bits per channel use hardly any of the 256 levels, as masks of 0 and 1 do."""
    sample = images[:: -(-len(images) // SAMPLED_PIXELS)]
    low, high = int(sample.min()), int(sample.max())
    if high - low >= MIN_LEVELS:
        return []
    return [f"All pixels are between {low} and {high} of 255, which models hardly distinguish: spread the values."]


def _is_outdated(listing: Listing, images: np.ndarray, metadata: dict, max_pixels: int) -> bool:
    """Return whether an image that was unreadable when ``images`` were cached is readable now."""
    unreadable = sorted(int(position) for position in metadata["unreadable"])
    if not unreadable:
        return False
    rows = np.empty((len(unreadable), *images.shape[1:]), np.uint8)
    preprocessing = Preprocessing.from_dict(metadata["preprocessing"])
    sources = listing.take(np.array(unreadable)).items
    return len(decode.decode_all(sources, rows, preprocessing, max_pixels=max_pixels)) < len(unreadable)


def _compact(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Move these rows to the front of the array in place, and return a view of them."""
    for target, row in enumerate(rows):
        if target != row:
            images[target] = images[row]
    return images[: len(rows)]


def _cache_name(listing: Listing, key: str) -> str:
    """Return a name that changes with the images and with the options for decoding them."""
    digest = hashlib.blake2b(f"{CACHE_VERSION} {key} {listing.cache_key}".encode(), digest_size=10)
    for identity in _identities(listing):
        digest.update(identity)
    return digest.hexdigest()


def _identities(listing: Listing) -> Iterable[bytes]:
    if isinstance(listing.items, list):
        for item in listing.items:
            if isinstance(item, np.ndarray):
                yield hashlib.blake2b(np.ascontiguousarray(item)).digest() + f"{item.shape} {item.dtype}".encode()
            elif isinstance(item, File):
                yield os.fsencode(f"{os.path.abspath(item.path)}\0{item.size}\0{item.mtime}\0")
            else:
                yield hashlib.blake2b(item).digest()
    elif isinstance(listing.items, EncodedImages):
        yield from (name.encode() + b"\0" for name in listing.names)
