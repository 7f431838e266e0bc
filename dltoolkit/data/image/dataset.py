"""Labelled pictures from any source, decoded once, split honestly, and served to training through tf.data."""

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dltoolkit.data import checks
from dltoolkit.data.image import arrays, decode, pixels
from dltoolkit.data.image.listing import list_images
from dltoolkit.data.labeled import LabeledSplits, label_mapping, select_split, split_dataset, subsample
from dltoolkit.data.options import ImageReadOptions, SplitOptions
from dltoolkit.data.readers import source
from dltoolkit.data.readers.source import Source
from dltoolkit.data.split import name_hashes, stratified_sample
from dltoolkit.errors import UserError


@dataclass(eq=False, kw_only=True)
class ImageSplits(LabeledSplits):
    """Pictures, labels and who is in which part.

    Attributes:
        images: uint8 (n, h, w, c), c 1 or 3; in memory, or mapped from a file if there are too many.
    """

    images: np.ndarray

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return tuple(self.images.shape[1:])

    def describe(self) -> dict[str, Any]:
        """Return what a run's run.json says of its data."""
        return {**super().describe(), "image_shape": list(self.image_shape)}


def load(
    data: Source | str,
    read: ImageReadOptions = ImageReadOptions(),
    split: SplitOptions = SplitOptions(),
    *,
    image_size: int | None = None,
    seed: int = 0,
    limit: int | None = None,
    labeled: bool = True,
    cache_dir: Path | None = None,
    progress: decode.Progress | None = None,
) -> ImageSplits:
    """Find, check, decode and split labelled pictures.

    Splits that the data bring are kept. With a single held-out part that part is the test, and validation is cut from
    train; without any, each class is split by content and seed (see ``split``).

    Args:
        data: Value of ``--data``, or a resolved source.
        read: Options for reading.
        split: Options for splitting. By default, validation and test are 15 % of each class, but no more than 5,000
            and 10,000 images, which are enough to measure with.
        image_size: side in pixels to which every picture is resized and cropped. By default equal square pictures of
            at most 224 stay as they are, and others get their median short side, at most 160.
        seed: decides the split and who stays under a limit.
        limit: use at most so many pictures in all, each class and part in proportion.
        labelled: refuse pictures of a single class, and folders without class folders.
        cache_dir: where pictures are kept that do not fit in memory.
        progress: called with what is being done, how many are done, and how many there are.

    Raises:
        UserError: for anything that cannot be trained on as it is.
    """
    src = source.resolve(data) if isinstance(data, str) else data
    listing = list_images(src, read, labeled=labeled, progress=progress)
    listing = subsample(checks.validate(listing, src.spec, labeled=labeled), src, limit, seed)
    decoded = pixels.decoded(
        listing, src.name, image_size=image_size, skip_invalid=read.skip_invalid, cache_dir=cache_dir, progress=progress
    )
    fields = split_dataset(
        checks.validate(decoded.listing, src.spec, labeled=labeled) if decoded.bad else decoded.listing,
        decoded.hashes,
        src,
        split,
        shape=decoded.images.shape,
        seed=seed,
        invalid=decoded.bad,
    )
    return ImageSplits(images=decoded.images, **fields)


def labeled(
    data: Source | str,
    classes: Sequence[str],
    image_shape: tuple[int, int, int],
    read: ImageReadOptions = ImageReadOptions(),
    *,
    part: str = "test",
    seed: int = 0,
    limit: int | None = None,
    cache_dir: Path | None = None,
    progress: decode.Progress | None = None,
    warn: Callable[[str], None] | None = None,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Read other labelled pictures for a trained model.

    Args:
        data: what ``--data`` says, or a resolved source.
        classes: the model's classes; labels are matched by name, whatever their case.
        image_shape: the model's (height, width, channels).
        read: Options for reading.
        part: which part to take of data that bring splits; data without splits are taken whole.
        warn: called with what the user should know, in plain sentences.
        The rest is as in `load`.

    Returns:
        uint8 (n, h, w, c), int32 (n,) numbers of ``classes``, and n names.

    Raises:
        UserError: if a label is none of ``classes``, or pictures cannot be read.
    """
    src = source.resolve(data) if isinstance(data, str) else data
    listing = list_images(src, read, progress=progress)
    listing = select_split(listing, part)
    numbers = label_mapping(listing, classes, src.spec)
    if limit is not None and limit < len(listing.names):
        keys = name_hashes(listing.names)
        listing = listing.take(stratified_sample(keys, listing.labels, limit, seed=seed, minimum=0))
    decoded = pixels.decoded(
        listing,
        src.name,
        image_shape=image_shape,
        skip_invalid=read.skip_invalid,
        cache_dir=cache_dir,
        progress=progress,
    )
    for warning in decoded.listing.warnings if warn else ():
        warn(warning)
    return decoded.images, numbers[decoded.listing.labels], decoded.listing.names


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


def expand(inputs: Iterable[Any]) -> Iterator[Any]:
    """Yield the files meant by files, folders (with all below them) and glob patterns, in order.

    What does not exist, or holds no picture, is kept as it is, so that reading it tells why; so are arrays, Pillow
    images and what is no name at all.
    """
    for item in inputs:
        if not isinstance(item, (str, os.PathLike)):
            yield item
            continue
        text = str(item)
        try:
            path = Path(os.path.expanduser(text))
            if text.strip() and path.is_dir():
                inside = [file.path for file in source.list_files(path)]
                yield from [name for name in inside if Path(name).suffix.lower() in decode.SUFFIXES] or [text]
            elif not path.exists() and glob.has_magic(text):
                matches = sorted(glob.glob(str(path), recursive=True))
                yield from [name for name in matches if os.path.isfile(name)] or [text]
            else:
                yield text
        except (OSError, ValueError, UserError):  # a name too long, a closed folder
            yield text
