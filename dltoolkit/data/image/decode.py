"""Decode image files of all formats to pixels, with Pillow, for training and prediction alike.

Decoded images are uint8 (height, width, channels): upright, cropped to the requested aspect ratio, on a white
background, with 1 or 3 channels.
"""

import contextlib
import io
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from dltoolkit.data.readers.source import File

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
MAX_UNCHANGED_SIDE = 224  # pixels; square images of one size up to this side are not resized by default
MAX_DEFAULT_SIDE = 160  # pixels; other images are resized to at most this side by default, which a CPU can train on
MAX_UNIT_VALUE = 1.5  # floats up to this value are in 0..1; the margin allows for overshoot from resizing
SMALL_FILE = 20_000  # bytes; below this mean size, Python takes longer than the decoder, and threads slow it down
CHUNK_SIZE = 32  # images that a thread decodes at a time

ImageSource = File | str | os.PathLike | bytes | Image.Image
Progress = Callable[[str, int, int], None]

# The transposition for each EXIF orientation (CIPA DC-008, 4.6.4). ImageOps.exif_transpose is not used,
# because it also rewrites the EXIF block, which raised an error for 2 % of 5,000 blocks with one to four damaged bytes.
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112  # EXIF tag


class UnexpectedImageError(Exception):
    """An image whose size or color differs from the expected one."""


class EmptyFileError(OSError):
    """A file of zero bytes."""


@dataclass
class Survey:
    """Sizes and color of images, read from their headers.

    Attributes:
        sizes: Width and height of the upright images, int64 (n, 2); 0 for unreadable images.
        grayscale: Whether each image is grayscale, bool (n,).
        unreadable: Reason for each unreadable image, by position.
    """

    sizes: np.ndarray
    grayscale: np.ndarray
    unreadable: dict[int, str] = field(default_factory=dict)

    def side(self) -> int:
        """Return the default side in pixels: that of small square images of one size, or :func:`default_side`."""
        readable = self.sizes[self.sizes[:, 0] > 0]
        width, height = readable[0]
        if width == height <= MAX_UNCHANGED_SIDE and (readable == width).all():
            return int(width)
        return default_side(readable.min(axis=1))

    def channels(self) -> int:
        """Return 1 if all images are grayscale, otherwise 3."""
        return 1 if self.grayscale[self.sizes[:, 0] > 0].all() else 3


def default_side(short_sides: np.ndarray) -> int:
    """Return the median of the images' shorter sides, at most 160, rounded to a multiple of 8."""
    return max(8, int(min(MAX_DEFAULT_SIDE, np.median(short_sides)) / 8 + 0.5) * 8)


def survey(images: Iterable[ImageSource], total: int, progress: Progress | None = None) -> Survey:
    """Read the headers of ``total`` images."""
    result = Survey(np.zeros((total, 2), np.int64), np.zeros(total, bool))

    def read_header(position: int, source: ImageSource) -> None:
        with _open(source) as image:
            result.sizes[position] = _upright_size(image)
            result.grayscale[position] = _is_grayscale(image)

    result.unreadable = _for_each(read_header, images, _reporter(progress, "Reading image headers", total))
    return result


def decode_all(
    images: Iterable[ImageSource],
    out: np.ndarray,
    progress: Progress | None = None,
    *,
    expected: tuple[bool, int | None] | None = None,
) -> dict[int, str]:
    """Decode images into the rows of an array.

    Args:
        images: As many images as ``out`` has rows.
        out: Array uint8 (n, side, side, channels) for the pixels.
        progress: Function that is called with the task, the number of decoded images and the total.
        expected: Whether each image is grayscale, and the side of each square image or None for any size.

    Returns:
        Reason for each unreadable image, by position. The content of its row is undefined.

    Raises:
        UnexpectedImageError: If an image differs from ``expected``.
    """

    def decode(position: int, source: ImageSource) -> None:
        with _open(source) as image:
            if expected is not None:
                grayscale, side = expected
                if _is_grayscale(image) != grayscale or (side and image.size != (side, side)):
                    raise UnexpectedImageError
            out[position] = to_pixels(image, out.shape[1:])

    return _for_each(decode, images, _reporter(progress, "Reading images", len(out)))


def read(source: ImageSource, shape: tuple[int, int, int]) -> np.ndarray:
    """Decode one image to uint8 (height, width, channels).

    Raises:
        OSError: If the image cannot be read; the message is a short reason.
    """
    try:
        with _refuse_truncated_files(), _open(source) as image:
            return to_pixels(image, shape)
    except Exception as error:
        raise OSError(failure_reason(error)) from error


def to_pixels(image: Image.Image, shape: tuple[int, int, int]) -> np.ndarray:
    """Return an open image as uint8 (height, width, channels), upright, center-cropped and resized."""
    height, width, channels = shape
    if image.format in ("JPEG", "MPO") and min(image.size) >= 4 * max(height, width):
        image.draft(None, (2 * max(height, width),) * 2)  # libjpeg decodes at 1/2, 1/4 or 1/8 in a fraction of the time
    transposition = _TRANSPOSITIONS.get(_orientation(image))
    image.load()
    image = _convert(image, channels)
    if transposition is not None:
        image = image.transpose(transposition)
    if image.size != (width, height):
        box = _center_box(image.size, width / height)
        image = image.resize((width, height), Image.Resampling.BICUBIC, box, reducing_gap=2.0)
    return np.asarray(image).reshape(shape)


def from_array(array: np.ndarray) -> Image.Image:
    """Return an array uint8 (h, w), (h, w, 1), (h, w, 3) or (h, w, 4) as a Pillow image."""
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array)


def failure_reason(error: Exception) -> str:
    """Return a short reason why an image could not be read."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "permission denied"
    if isinstance(error, IsADirectoryError):
        return "a folder without images"
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, Image.DecompressionBombError):
        return "too many pixels"
    if isinstance(error, EOFError) or "truncated" in str(error).lower() or "unexpected end" in str(error).lower():
        return "truncated"
    if isinstance(error, EmptyFileError):
        return "empty file"
    text = " ".join(str(error).split())
    return f"damaged ({text[:80]})" if text else "damaged"


@contextlib.contextmanager
def _open(source: ImageSource) -> Iterator[Image.Image]:
    if isinstance(source, Image.Image):
        yield source
        return
    if isinstance(source, bytes):
        size, file = len(source), io.BytesIO(source)
    elif isinstance(source, File):
        size, file = source.size or os.path.getsize(source.path), source.path
    else:
        file = os.path.expanduser(source)
        size = os.path.getsize(file)
    if not size:
        raise EmptyFileError
    with Image.open(file) as image:
        yield image


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation that remains to be applied; Pillow itself applies that of a TIFF file."""
    if "exif" not in image.info:
        return 1
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # the pixels can be intact although the EXIF block is damaged
        return 1


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if _orientation(image) >= 5 else (width, height)


def _is_grayscale(image: Image.Image) -> bool:
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode in ("1", "L", "LA", "La", "I", "F") or image.mode.startswith("I;16")


def _convert(image: Image.Image, channels: int) -> Image.Image:
    """Return a loaded image in mode L or RGB, with 8 bits per channel and transparent parts on white."""
    mode = "L" if channels == 1 else "RGB"
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = Image.fromarray(_to_8_bits(np.asarray(image), image.mode))
    elif image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        background = Image.new("RGBA", image.size, "white")
        background.alpha_composite(image)
        image = background.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _to_8_bits(values: np.ndarray, mode: str) -> np.ndarray:
    """Scale grayscale values to 0..255.

    Values of 16 bits are divided by 257, and floats in 0..1 are multiplied by 255. Values beyond 16 bits are scaled
    from their minimum and maximum.
    """
    values = np.nan_to_num(values.astype(np.float32), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 65535:
        values = (values - low) * (255 / max(high - low, 1e-12))
    elif mode == "F" and high <= MAX_UNIT_VALUE:
        values = np.minimum(values, 1) * 255
    elif mode.startswith("I;16") or high > 255:
        values = values / 257
    return np.round(values).astype(np.uint8)


def _center_box(size: tuple[int, int], aspect_ratio: float) -> tuple[float, float, float, float]:
    """Return the largest centered box (left, top, right, bottom) with an aspect ratio of width to height."""
    width, height = size
    box_width, box_height = min(width, height * aspect_ratio), min(height, width / aspect_ratio)
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return left, top, left + box_width, top + box_height


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
    with _refuse_truncated_files(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about metadata and large images, which need no action
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
def _refuse_truncated_files() -> Iterator[None]:
    """Let Pillow refuse truncated files, which TensorFlow Datasets allows for the whole process."""
    saved, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = saved


def _reporter(progress: Progress | None, task: str, total: int) -> Callable[[int], None]:
    return (lambda done: progress(task, done, total)) if progress else (lambda done: None)
