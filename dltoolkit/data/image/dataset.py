"""Labeled images from any source: checked, decoded once and split into train, validation and test."""

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from dltoolkit.data import checks
from dltoolkit.data.image import decode
from dltoolkit.data.image.listing import list_images
from dltoolkit.data.image.pixels import decode_listing
from dltoolkit.data.image.preprocessing import Preprocessing
from dltoolkit.data.labeled import (
    LabeledSplits,
    describe_evaluated,
    label_mapping,
    select_split,
    split_dataset,
    subsample,
)
from dltoolkit.data.options import ImageReadOptions, SplitOptions
from dltoolkit.data.readers import folders, source
from dltoolkit.data.readers.source import Source
from dltoolkit.data.split import name_hashes, stratified_sample
from dltoolkit.errors import InvalidInput, UserError
from dltoolkit.files import PIPE_AS_INPUT, is_pipe


@dataclass(eq=False, kw_only=True)
class ImageSplits(LabeledSplits):
    """Labeled images and their splits.

    Attributes:
        images: Pixels uint8 (n, height, width, channels) with 1 or 3 channels; mapped from a file if they do not fit in
            memory.
        preprocessing: The way from the images to their pixels.
        sizes: Smallest and greatest size of the images in words, such as "28x28" or "40x30 to 4000x3000".
        pixels_used: Mean fraction of the pixels of an image that remains after cropping.
    """

    images: np.ndarray
    preprocessing: Preprocessing | None = None
    sizes: str = ""
    pixels_used: float = 1.0

    def __post_init__(self) -> None:
        if self.preprocessing is None:  # the images are pixels already
            self.preprocessing = Preprocessing(self.image_shape)

    @classmethod
    def for_training(cls, images: np.ndarray, labels: np.ndarray, classes: list[str]) -> Self:
        """Return images in memory, uint8 (n, height, width, channels), and class indices, all of them for training."""
        rows = np.arange(len(images))
        return cls(
            images=images,
            labels=labels.astype(np.int32),
            names=[],
            train=rows,
            validation=rows[:0],
            test=rows[:0],
            classes=classes,
            fingerprint="",
            source="",
        )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return tuple(self.images.shape[1:])

    def describe(self) -> dict[str, Any]:
        """Return the description of the data for run.json."""
        entries = self.preprocessing.to_dict()
        entries["resize"]["pixels_used"] = round(self.pixels_used, 4)
        return {**super().describe(), **entries}

    def summary(self) -> list[tuple[str, str]]:
        """Return labels and values of what was read, for the block that is printed before training."""
        height, width, channels = self.image_shape
        size, resize = f"{width}x{height}", self.preprocessing.resize
        if self.sizes and self.sizes != size:
            size = f"{self.sizes}, brought to {size} by {resize}; {100 * self.pixels_used:.0f} % of the pixels used"
        color = "grayscale" if channels == 1 else "color"
        return [*super().summary(), ("Images", f"{size}, {color}"), ("Values", self.preprocessing.scale.describe())]


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
    """Read, check, decode and split labeled images.

    Predefined splits are kept. A single predefined held-out split becomes the test split, and validation is split from
    train. Without predefined splits, each class is split by content and seed (see ``split``).

    Args:
        data: Value of ``--data``, or a resolved source.
        read: Options for reading.
        split: Options for splitting. By default, validation and test are 15 % of each class, but no more than 5,000
            and 10,000 images, which are enough for precise scores.
        image_size: Side in pixels to which all images are resized. By default, square images of one size up to 224
            keep it, and other images are resized to the median of their shorter sides, at most 160; if they are not
            cropped, to the median side of squares with as many pixels.
        seed: Seed of the split and of the subsample under a limit.
        limit: Maximum number of images. Classes and predefined splits keep their proportions.
        labeled: Whether to refuse images of a single class and folders without class folders.
        cache_dir: Folder for decoded images that do not fit in memory.
        progress: Function that is called with the task, the number of processed images and the total.

    Raises:
        UserError: If the data cannot be trained on as they are.
    """
    resolved = source.resolve(data) if isinstance(data, str) else data
    checks.refuse_unused(vars(read), resolved, "image")
    listing = list_images(resolved, read, labeled=labeled, progress=progress)
    listing = subsample(checks.validate(listing, resolved.spec, labeled=labeled), resolved, limit, seed)
    decoded = decode_listing(
        listing, resolved.name, read, image_size=image_size, cache_dir=cache_dir, progress=progress
    )
    listing = decoded.listing
    fields = split_dataset(
        checks.validate(listing, resolved.spec, labeled=labeled) if decoded.unreadable else listing,
        decoded.keys,
        resolved,
        split,
        seed=seed,
        invalid=decoded.unreadable,
        groups=decoded.hashes,
    )
    return ImageSplits(
        images=decoded.images,
        preprocessing=decoded.preprocessing,
        sizes=decoded.sizes,
        pixels_used=decoded.pixels_used,
        **fields,
    )


def labeled(
    data: Source | str,
    classes: Sequence[str],
    preprocessing: Preprocessing,
    read: ImageReadOptions = ImageReadOptions(),
    *,
    split: str = "test",
    seed: int = 0,
    limit: int | None = None,
    cache_dir: Path | None = None,
    progress: decode.Progress | None = None,
    warn: Callable[[str], None] | None = None,
    note: Callable[[str], None] | None = None,
    trained: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Read other labeled images for a trained model.

    Args:
        data: Value of ``--data``, or a resolved source.
        classes: Class names of the model. Labels are matched by name without regard to case.
        preprocessing: Preprocessing of the images that the model was trained on.
        read: Options for reading.
        split: Split to read if the data have predefined splits; otherwise all images are read.
        seed: Seed of the subsample under a limit.
        limit: Maximum number of images.
        cache_dir: Folder for decoded images that do not fit in memory.
        progress: Function that is called with the task, the number of processed images and the total.
        warn: Function that is called with each warning.
        note: Function that is called with a sentence about the images that were read.
        trained: Hashes of the examples that the model was trained on, to warn if they are among the images.

    Returns:
        Images uint8 (n, h, w, c), their class numbers int32 (n,), and their names.

    Raises:
        UserError: If the model does not have the class of an image, or an image cannot be read.
    """
    resolved = source.resolve(data, trains=False) if isinstance(data, str) else data
    everything = list_images(resolved, read, progress=progress)
    listing = select_split(everything, split)
    class_numbers = label_mapping(listing, classes, resolved.spec)
    if limit is not None and limit < len(listing.names):
        hashes = name_hashes(listing.names)
        listing = listing.take(stratified_sample(hashes, listing.labels, limit, seed=seed, minimum=0))
    decoded = decode_listing(
        listing, resolved.name, read, preprocessing=preprocessing, cache_dir=cache_dir, progress=progress
    )
    if note:
        note(describe_evaluated(everything, decoded.listing, resolved))
    same = checks.warn_of_training_data(decoded.hashes, "image", trained)
    for warning in [*decoded.listing.warnings, *same] if warn else ():
        warn(warning)
    return decoded.images, class_numbers[decoded.listing.labels], decoded.listing.names


def read(
    image: str | os.PathLike | bytes | np.ndarray | Image.Image,
    preprocessing: Preprocessing,
    *,
    warn: Callable[[str], None] | None = None,
    max_pixels: int = decode.MAX_PIXELS,
) -> np.ndarray:
    """Return one image as uint8 (height, width, channels), as in training.

    Args:
        image: A file, the bytes of a file, a Pillow image, or an array (h, w) or (h, w, c).
        preprocessing: Preprocessing of the images that the model was trained on.
        warn: Function that is called with what differs from training, such as "has values from 0 to 4095, but …".
        max_pixels: Maximum number of pixels of the image.

    Raises:
        UserError: If the image cannot be read; the message is a short reason, such as "truncated".
    """
    return read_with_size(image, preprocessing, warn=warn, max_pixels=max_pixels)[0]


def read_with_size(
    image: str | os.PathLike | bytes | np.ndarray | Image.Image,
    preprocessing: Preprocessing,
    *,
    warn: Callable[[str], None] | None = None,
    max_pixels: int = decode.MAX_PIXELS,
) -> tuple[np.ndarray, tuple[int, int]]:
    """Return what :func:`read` returns, and the width and height that the upright image had before."""
    try:
        pixels, remark, size = decode.read(image, preprocessing, max_pixels)
    except OSError as error:
        raise UserError(str(error)) from None
    if warn and remark:
        warn(remark)
    return pixels, size


def expand(inputs: Iterable[Any]) -> Iterator[Any]:
    """Yield the image files that files, folders and glob patterns stand for, in order.

    A folder stands for all image files below it. Inputs that do not exist, folders without images, and inputs that are
    not paths are yielded unchanged, so that reading them reports the reason.
    """
    for item in inputs:
        if not isinstance(item, (str, os.PathLike)):
            yield item
            continue
        text = str(item)
        try:
            path = Path(os.path.expanduser(text))
            if text.strip() and path.is_dir():
                files = [file.path for file in folders.list_files(path)]
                images = [name for name in files if Path(name).suffix.lower() in decode.SUFFIXES]
                yield from images or [InvalidInput(text, _no_images(files))]
            elif not path.exists() and glob.has_magic(text):
                matches = sorted(glob.glob(str(path), recursive=True))
                yield from [name for name in matches if not os.path.isdir(name)] or [text]
            elif is_pipe(path):
                yield InvalidInput(text, PIPE_AS_INPUT)
            else:
                yield InvalidInput(text, "a URL: download the file") if source.is_url(text) else text
        except UserError as error:  # the folder may not be read
            yield InvalidInput(text, str(error))
        except (OSError, ValueError):  # the name is too long
            yield text


def _no_images(files: Sequence[str]) -> str:
    """Return the reason why a folder has no image files."""
    tables = [name for name in files if source.table_suffix(Path(name)) in (".parquet", ".arrow")]
    within = f"; those in tables such as {tables[0]} are read by evaluate --data alone" if tables else ""
    return f"no image files in this folder{within}"
