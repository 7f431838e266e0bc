"""Decode image files of all formats to pixels, with Pillow, for training and prediction alike.

Decoded images are uint8 (height, width, channels) as :class:`Preprocessing` makes them.
"""

import contextlib
import errno
import functools
import io
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from dltoolkit import memory
from dltoolkit.data import split
from dltoolkit.data.image import arrays, modes
from dltoolkit.data.image.preprocessing import Preprocessing, ResizeMode, cropped_fractions
from dltoolkit.data.image.scale import NOT_FINITE, Scale, ValueStatistics
from dltoolkit.data.options import MAX_PIXELS
from dltoolkit.data.readers.folders import File
from dltoolkit.errors import UserError
from dltoolkit.files import NotRegularFile, open_regular

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
MAX_UNCHANGED_SIDE = 224  # pixels; square images of one size up to this side are not resized by default
MAX_CROPPED = 0.2  # mean fraction of the pixels that cropping may lose by default
MAX_DEFAULT_SIDE = 160  # pixels; other images are resized to at most this side by default, which a CPU can train on
LARGE_IMAGE = 1 << 27  # bytes for decoding an image from which the free memory is looked up and returned
SMALL_FILE = 20_000  # bytes; below this mean size, Python takes longer than the decoder, and threads slow it down
CHUNK_SIZE = 32  # images that a thread decodes at a time

ImageSource = File | str | os.PathLike | bytes | Image.Image | np.ndarray
Progress = Callable[[str, int, int], None]


class Header(NamedTuple):
    """What is known of an image before its pixels are read: its upright size and its kind."""

    size: tuple[int, int]
    grayscale: bool
    deep: bool
    animated: bool = False


# First bytes of files that are no images or that Pillow does not read, by position, and what to do with the files
_OTHER_FILES = (
    (4, b"ftypheic ftypheix ftyphevc ftypmif1 ftypmsf1", "a HEIC image, which cannot be read: convert it to JPEG"),
    (4, b"ftypavif ftypavis", "an AVIF image, which cannot be read: convert it to JPEG"),
    (4, b"ftyp moov mdat", "a video: extract its frames as images"),
    (8, b"AVI", "a video: extract its frames as images"),
    (0, b"\x1aE\xdf\xa3 \x00\x00\x01\xba FLV OggS", "a video: extract its frames as images"),
    (0, b"%PDF", "a PDF document: convert its pages to images"),
    (0, b"%!PS \xc5\xd0\xd3\xc6", "a PostScript (EPS) drawing: convert it to PNG"),
    (0, b"8BPS", "a Photoshop document: export it as PNG"),
    (0, b"<svg <?xml", "a vector drawing: convert it to PNG"),
)


class UnexpectedImageError(Exception):
    """An image whose size or color differs from the expected one."""


class EmptyFileError(OSError):
    """A file of zero bytes."""


@dataclass
class Survey:
    """Sizes, color and value range of images.

    Attributes:
        sizes: Width and height of the upright images, int64 (n, 2); 0 for unreadable images.
        grayscale: Whether each image is grayscale, bool (n,).
        deep: Whether each image has more than 8 bits per channel, bool (n,).
        animated: Whether each image has several frames or pages, of which the first is read, bool (n,).
        unreadable: Reason for each unreadable image, by position.
        values: Range of the values of the deep images.
    """

    sizes: np.ndarray
    grayscale: np.ndarray
    deep: np.ndarray
    animated: np.ndarray
    unreadable: dict[int, str] = field(default_factory=dict)
    values: ValueStatistics = field(default_factory=lambda: ValueStatistics(1))

    @classmethod
    def uniform(cls, header: Header, total: int) -> "Survey":
        """Return the survey of images that all have the same header."""
        return cls(
            np.tile(np.array(header.size, np.int64), (total, 1)),
            np.full(total, header.grayscale),
            np.full(total, header.deep),
            np.full(total, header.animated),
            values=ValueStatistics(total),
        )

    def readable_sizes(self) -> np.ndarray:
        """Return the sizes of the readable images, int64 (n, 2)."""
        return self.sizes[self.sizes[:, 0] > 0]

    def scale(self, *, like_8_bit: bool = False) -> Scale:
        """Return the scale of the values of all images; see ``ValueStatistics.scale``."""
        deep = self.deep[self.sizes[:, 0] > 0]
        return self.values.scale(mixed=bool(deep.any() and not deep.all()), like_8_bit=like_8_bit)

    def resize_mode(self) -> ResizeMode:
        """Return ``letterbox`` if crops to squares would lose more than a fifth of the pixels, otherwise ``crop``."""
        return "letterbox" if cropped_fractions(self.readable_sizes()).mean() < 1 - MAX_CROPPED else "crop"

    def side(self, mode: ResizeMode) -> int:
        """Return the default side in pixels: that of small square images of one size, or :func:`default_side`.

        Cropped images determine it by their shorter sides, others by the side of a square with as many pixels.
        """
        readable = self.readable_sizes()
        width, height = readable[0]
        if width == height <= MAX_UNCHANGED_SIDE and (readable == width).all():
            return int(width)
        return default_side(readable.min(axis=1) if mode == "crop" else np.sqrt(readable.prod(axis=1)))

    def channels(self) -> int:
        """Return 1 if all images are grayscale, otherwise 3."""
        return 1 if self.grayscale[self.sizes[:, 0] > 0].all() else 3


def default_side(sides: np.ndarray) -> int:
    """Return the median of the images' sides, at most 160, rounded to a multiple of 8."""
    return max(8, int(min(MAX_DEFAULT_SIDE, np.median(sides)) / 8 + 0.5) * 8)


def common_header(images: Iterable[ImageSource], max_pixels: int = MAX_PIXELS) -> Header | None:
    """Return the header that all of these images have, or None if they differ or one is unreadable."""
    headers = set()
    with _strict_pillow():
        for source in images:
            try:
                with open_image(source, max_pixels) as image:
                    headers.add(_header(image))
            except Exception:  # Pillow's plugins raise errors of many types for damaged files
                return None
    return headers.pop() if len(headers) == 1 else None


def survey_array(array: np.ndarray) -> Survey:
    """Return the survey of images (n, h, w, c) in one array; those with a value that is not finite are unreadable."""
    result = Survey.uniform(_header(array[0]), len(array))
    rows = arrays.rows_not_finite(array)
    result.sizes[rows] = 0
    result.unreadable = dict.fromkeys(rows.tolist(), NOT_FINITE)
    result.values = arrays.statistics(np.delete(array, rows, axis=0) if len(rows) else array)
    return result


def survey(
    images: Iterable[ImageSource], total: int, progress: Progress | None = None, *, max_pixels: int = MAX_PIXELS
) -> Survey:
    """Read the headers of ``total`` images, and the values of the deep ones, which determine the scale of all."""
    flags = (np.zeros(total, bool) for _ in range(3))
    result = Survey(np.zeros((total, 2), np.int64), *flags, values=ValueStatistics(total))

    def read_header(position: int, source: ImageSource) -> None:
        with open_image(source, max_pixels) as image:
            header = _header(image)
            if header.deep:
                values = image if isinstance(image, np.ndarray) else modes.deep_values(image)
                result.values.add(position, values[..., :3] if values.ndim == 3 else values)
            result.grayscale[position], result.deep[position], result.animated[position] = header[1:]
            result.sizes[position] = header.size

    result.unreadable = _for_each(read_header, images, _reporter(progress, "Reading image headers", total))
    return result


def decode_all(
    images: Iterable[ImageSource],
    out: np.ndarray,
    preprocessing: Preprocessing,
    progress: Progress | None = None,
    *,
    is_expected: Callable[[Header], bool] | None = None,
    remarks: dict[int, str] | None = None,
    keys: np.ndarray | None = None,
    max_pixels: int = MAX_PIXELS,
) -> dict[int, str]:
    """Decode images into the rows of an array.

    Args:
        images: As many images as ``out`` has rows.
        out: Array uint8 (n, height, width, channels) for the pixels.
        preprocessing: The way from an image to its pixels.
        progress: Function that is called with the task, the number of decoded images and the total.
        is_expected: Whether an image with this header was expected; None expects all.
        remarks: Receives by position what is remarkable about images; see ``Preprocessing.pixels_and_remark``.
        keys: Array uint64 (n,) that receives a hash of each image before it is resized: of its pixels in its own size
            or, for large JPEG images, of the file. With it, there are no remarks.
        max_pixels: Maximum number of pixels of an image; larger ones are unreadable.

    Returns:
        Reason for each unreadable image, by position. The content of its row is undefined.

    Raises:
        UnexpectedImageError: If an image is not expected.
    """

    def decode(position: int, source: ImageSource) -> None:
        with open_image(source, max_pixels) as image:
            if is_expected is not None and not is_expected(_header(image)):
                raise UnexpectedImageError
            if keys is not None:
                out[position], original = preprocessing.pixels_and_original(image)
                keys[position] = split.content_hash(_content(source) if original is None else original)
            elif remarks is not None:
                out[position], remark, _ = preprocessing.pixels_and_remark(image)
                if remark is not None:
                    remarks[position] = remark
            else:
                out[position] = preprocessing.pixels(image)

    return _for_each(decode, images, _reporter(progress, "Reading images", len(out)))


def read(
    source: ImageSource, preprocessing: Preprocessing, max_pixels: int = MAX_PIXELS
) -> tuple[np.ndarray, str | None, tuple[int, int]]:
    """Decode one image; see `Preprocessing.pixels_and_remark`.

    Raises:
        OSError: If the image cannot be read; the message is a short reason.
    """
    try:
        with _strict_pillow(), open_image(source, max_pixels) as image:
            return preprocessing.pixels_and_remark(image)
    except Exception as error:
        raise OSError(failure_reason(error)) from error


def failure_reason(error: Exception) -> str:
    """Return a short reason why an image could not be read."""
    if isinstance(error, (UserError, UnidentifiedImageError)):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, NotRegularFile):
        return error.strerror
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return "a symbolic link that leads back to itself"
    if isinstance(error, PermissionError):
        return "permission denied"
    if isinstance(error, IsADirectoryError):
        return "a folder, not an image"
    if isinstance(error, Image.DecompressionBombError):
        return "too many pixels"
    if isinstance(error, EOFError) or "truncated" in str(error).lower() or "unexpected end" in str(error).lower():
        return "truncated"
    if isinstance(error, EmptyFileError):
        return "empty file"
    text = " ".join(str(error).split())
    return f"damaged ({text[:80]})" if text else "damaged"


@contextlib.contextmanager
def open_image(source: ImageSource, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image | np.ndarray]:
    """Open an image of any source; an array becomes (h, w, c), and an open image is yielded as it is.

    The threads that have images open share the memory for decoding them.

    Raises:
        UserError: If an image has more than ``max_pixels`` pixels, or does not fit in memory.
    """
    if isinstance(source, np.ndarray):
        yield arrays.one_with_channels(source)
        return
    if isinstance(source, Image.Image):
        with _reserved_memory(source, max_pixels):
            yield source
        return
    with _open_bytes(source) as file:
        if not file.read(1):
            raise EmptyFileError
        try:
            image = modes.open_file(file)
        except UnidentifiedImageError:
            file.seek(0)
            raise UnidentifiedImageError(_identify(file.read(64))) from None
        with _reserved_memory(image, max_pixels), image:
            yield image


def _open_bytes(source: File | str | os.PathLike | bytes) -> BinaryIO:
    """Open the file of an image, or the bytes of one, for reading."""
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if isinstance(source, File):
        return open_regular(source.path)
    if re.match(r"[a-z][a-z0-9+.-]+://", os.fspath(source), re.IGNORECASE):
        raise UserError("a URL, which is not downloaded: save the image and give its path")
    return open_regular(os.path.expanduser(source))


@contextlib.contextmanager
def _reserved_memory(image: Image.Image, max_pixels: int) -> Iterator[None]:
    """Hold the memory that decoding an image takes inside the block, after a check of its number of pixels."""
    pixels, size = modes.decoded_size(image)
    if pixels > max_pixels:
        width, height = image.size
        raise UserError(f"{width}x{height} pixels, more than {max_pixels:,} (--max-pixels)")
    if size > LARGE_IMAGE and size > memory.available() // 2:
        raise UserError(f"{pixels:,} pixels, which do not fit in the free memory")
    with _budget().take(size):
        yield
        if size > LARGE_IMAGE:
            memory.release()


def _content(source: ImageSource) -> bytes:
    """Return the bytes of an image file."""
    with _open_bytes(source) as file:
        return file.read()


@functools.cache
def _budget() -> memory.Budget:
    return memory.Budget(memory.limit())


def _identify(head: bytes) -> str:
    """Return what a file is that is no image of a type that is read, from its first 64 bytes: "a video: …"."""
    for position, signatures, name in _OTHER_FILES:
        if any(head[position:].startswith(signature) for signature in signatures.split(b" ")):
            return name
    return "not an image that can be read"


def _header(image: Image.Image | np.ndarray) -> Header:
    return Header(modes.size(image), modes.is_grayscale(image), modes.is_deep(image), modes.is_animated(image))


def _for_each(
    process: Callable[[int, ImageSource], None], images: Iterable[ImageSource], report: Callable[[int], None]
) -> dict[int, str]:
    """Process all images, in threads if the files are large, and return the reason for each failure by position."""
    failures: dict[int, str] = {}
    numbered = enumerate(images)
    chunks = iter(lambda: list(islice(numbered, CHUNK_SIZE)), [])

    def process_chunk(chunk: list[tuple[int, ImageSource]]) -> int:
        for position, source in chunk:
            try:
                process(position, source)
            except UnexpectedImageError:
                raise
            except Exception as error:  # Pillow's plugins raise errors of many types for damaged files
                failures[position] = failure_reason(error)
        return len(chunk)

    done = 0
    with _strict_pillow():
        first = next(chunks, [])
        workers = _worker_count(first)
        chunks = chain([first], chunks)
        with ThreadPoolExecutor(workers) as pool:
            while batch := list(islice(chunks, 8 * workers)):
                counts = map(process_chunk, batch) if workers == 1 else pool.map(process_chunk, batch)
                for count in counts:
                    done += count
                    report(done)
    return dict(sorted(failures.items()))


def _worker_count(images: list[tuple[int, ImageSource]]) -> int:
    """Return the number of threads: one for small files or decoded images, otherwise one per core, at most 8."""
    sizes = [len(s) if isinstance(s, bytes) else s.size for _, s in images if isinstance(s, (bytes, File))]
    if not sizes or sum(sizes) < SMALL_FILE * len(sizes):
        return 1
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@contextlib.contextmanager
def _strict_pillow() -> Iterator[None]:
    """Let Pillow refuse truncated files, which TensorFlow Datasets allows for the process, and not print warnings."""
    saved, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = saved


def _reporter(progress: Progress | None, task: str, total: int) -> Callable[[int], None]:
    return (lambda done: progress(task, done, total)) if progress else (lambda done: None)
