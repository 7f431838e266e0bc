"""From a picture's file to pixels: one decoder (Pillow) for every format, used in training and in prediction.

What comes out is uint8 (height, width, channels), upright, square, on a white ground, with 1 channel or 3.
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
LARGEST_AS_IS = 224  # equal square pictures up to this side keep their size
USUAL_SIDE = 160
UNIT = 1.5  # floats up to here mean 0..1: resizing overshoots a little
SMALL_FILE = 20_000  # bytes; below, Python's part of the work outweighs the decoding, and threads only get in the way

Picture = File | str | os.PathLike | bytes | Image.Image
Progress = Callable[[str, int, int], None]

# what EXIF's orientation tag asks for (CIPA DC-008, 4.6.4)
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112


class Mismatch(Exception):
    """A picture has another size or colour than the first: they are not all alike."""


@dataclass
class Survey:
    """What the headers of n pictures say.

    Attributes:
        sizes: int64 (n, 2), width and height when upright; 0 where unreadable.
        grey: bool (n,).
        bad: position -> why the picture cannot be read.
    """

    sizes: np.ndarray
    grey: np.ndarray
    bad: dict[int, str] = field(default_factory=dict)

    def side(self) -> int:
        """Return the side of the squares to train on, in pixels: the own size of small equal squares, otherwise the
        median short side, at most 160, in steps of 8."""
        readable = self.sizes[self.sizes[:, 0] > 0]
        width, height = readable[0]
        if width == height <= LARGEST_AS_IS and (readable == width).all():
            return int(width)
        return usual_side(readable.min(axis=1))

    def channels(self) -> int:
        """Return 1 if all pictures are grey, otherwise 3."""
        return 1 if self.grey[self.sizes[:, 0] > 0].all() else 3


def usual_side(short_sides: np.ndarray) -> int:
    """Return a side for pictures of several sizes: the median, at most 160, rounded to a multiple of 8."""
    return max(8, int(min(USUAL_SIDE, np.median(short_sides)) / 8 + 0.5) * 8)


def survey(pictures: Iterable[Picture], total: int, progress: Progress | None = None) -> Survey:
    """Read the headers of ``total`` pictures."""
    found = Survey(np.zeros((total, 2), np.int64), np.zeros(total, bool))

    def look(position: int, picture: Picture) -> None:
        with _opened(picture) as image:
            found.sizes[position] = _upright_size(image)
            found.grey[position] = _is_grey(image)

    found.bad = _each(look, pictures, total, _report(progress, "Looking at pictures", total))
    return found


def decode_all(
    pictures: Iterable[Picture],
    out: np.ndarray,
    progress: Progress | None = None,
    *,
    alike: tuple[bool, int | None] | None = None,
) -> dict[int, str]:
    """Decode pictures into the rows of ``out``, uint8 (n, side, side, channels).

    Args:
        alike: (grey, side) if all pictures are expected to be like that (side None: any size will do).

    Returns:
        Position -> why that picture cannot be read; its row holds nothing of use.

    Raises:
        Mismatch: if ``alike`` is given and a picture is different.
    """

    def fill(position: int, picture: Picture) -> None:
        with _opened(picture) as image:
            if alike and (_is_grey(image) != alike[0] or (alike[1] and image.size != (alike[1], alike[1]))):
                raise Mismatch
            out[position] = pixels(image, out.shape[1:])

    return _each(fill, pictures, len(out), _report(progress, "Reading pictures", len(out)))


def read(picture: Picture, shape: tuple[int, int, int]) -> np.ndarray:
    """Decode one picture to uint8 ``shape``, (height, width, channels).

    Raises:
        OSError: with a short reason as its text, if it cannot be read.
    """
    try:
        with _whole_files_only(), _opened(picture) as image:
            return pixels(image, shape)
    except Exception as error:
        raise OSError(reason(error)) from error


def pixels(image: Image.Image, shape: tuple[int, int, int]) -> np.ndarray:
    """Return an open picture as uint8 ``shape``: upright, its middle cut out and resized to fit."""
    height, width, channels = shape
    if image.format in ("JPEG", "MPO") and min(image.size) >= 4 * max(height, width):
        image.draft(None, (2 * max(height, width),) * 2)  # libjpeg decodes at 1/2, 1/4 or 1/8 in a fraction of the time
    turn = _UPRIGHT.get(_orientation(image))
    image.load()
    image = _flat(image, channels)
    if turn is not None:
        image = image.transpose(turn)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC, _middle(image.size, width / height), 2.0)
    return np.asarray(image).reshape(shape)


def from_array(array: np.ndarray) -> Image.Image:
    """Return uint8 (h, w), (h, w, 1), (h, w, 3) or (h, w, 4) as a Pillow image."""
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array)


def reason(error: Exception) -> str:
    """Return in a few words why a picture could not be read."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, IsADirectoryError):
        return "a folder without pictures"
    if isinstance(error, UnidentifiedImageError):
        return "not a picture"
    if isinstance(error, Image.DecompressionBombError):
        return "far too many pixels"
    if isinstance(error, EOFError) or "truncated" in str(error).lower() or "unexpected end" in str(error).lower():
        return "cut off"
    if isinstance(error, EmptyFile):
        return "an empty file"
    text = " ".join(str(error).split())
    return f"damaged ({text[:80]})" if text else "damaged"


class EmptyFile(OSError):
    """A file of zero bytes."""


@contextlib.contextmanager
def _opened(picture: Picture) -> Iterator[Image.Image]:
    if isinstance(picture, Image.Image):
        yield picture
        return
    if isinstance(picture, bytes):
        size, source = len(picture), io.BytesIO(picture)
    elif isinstance(picture, File):
        size, source = picture.size or os.path.getsize(picture.path), picture.path
    else:
        path = os.path.expanduser(picture)
        size, source = os.path.getsize(path), path
    if not size:
        raise EmptyFile
    with Image.open(source) as image:
        yield image


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation that is still to be applied (a TIFF's is not in ``info``: Pillow sees to it)."""
    if "exif" not in image.info:
        return 1
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a mangled EXIF block says nothing about the pixels
        return 1


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if _orientation(image) >= 5 else (width, height)


def _is_grey(image: Image.Image) -> bool:
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode in ("1", "L", "LA", "La", "I", "F") or image.mode.startswith("I;16")


def _flat(image: Image.Image, channels: int) -> Image.Image:
    """Return a loaded picture in mode L or RGB: deep greys scaled to 8 bits, transparent parts put on white."""
    mode = "L" if channels == 1 else "RGB"
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = Image.fromarray(_eight_bits(np.asarray(image), image.mode))
    elif image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        ground.alpha_composite(image)
        image = ground.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _eight_bits(values: np.ndarray, mode: str) -> np.ndarray:
    """Scale grey values to 0..255: 16 bits by 257, floats from 0..1, anything wider from its own range."""
    values = np.nan_to_num(values.astype(np.float32), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 65535:
        values = (values - low) * (255 / max(high - low, 1e-12))
    elif mode == "F" and high <= UNIT:
        values = np.minimum(values, 1) * 255
    elif mode.startswith("I;16") or high > 255:
        values = values / 257
    return np.round(values).astype(np.uint8)


def _middle(size: tuple[int, int], ratio: float) -> tuple[float, float, float, float]:
    """Return the largest centred box (left, top, right, bottom) of width / height ``ratio``."""
    width, height = size
    box_width, box_height = min(width, height * ratio), min(height, width / ratio)
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return left, top, left + box_width, top + box_height


def _each(
    work: Callable[[int, Picture], None], pictures: Iterable[Picture], total: int, report: Callable[[int], None]
) -> dict[int, str]:
    """Do ``work`` for each picture, in threads where that helps, and return position -> reason for those that fail."""
    bad: dict[int, str] = {}
    numbered = enumerate(pictures)
    chunks = iter(lambda: list(islice(numbered, 32)), [])

    def run(chunk: list[tuple[int, Picture]]) -> int:
        for position, picture in chunk:
            try:
                work(position, picture)
            except Mismatch:
                raise
            except Exception as error:  # Pillow's plugins raise all sorts on damaged files
                bad[position] = reason(error)
        return len(chunk)

    done = 0
    with _whole_files_only(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata and large photos: nothing to act on
        first = next(chunks, [])
        workers = _workers(first)
        chunks = chain([first], chunks)
        with ThreadPoolExecutor(workers) as pool:
            while batch := list(islice(chunks, 8 * workers)):
                for count in map(run, batch) if workers == 1 else pool.map(run, batch):
                    done += count
                    report(done)
    return dict(sorted(bad.items()))


def _workers(pictures: list[tuple[int, Picture]]) -> int:
    sizes = [len(p) if isinstance(p, bytes) else p.size for _, p in pictures if isinstance(p, (bytes, File))]
    if not sizes or sum(sizes) < SMALL_FILE * len(sizes):
        return 1
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@contextlib.contextmanager
def _whole_files_only() -> Iterator[None]:
    """Have Pillow refuse truncated files: TensorFlow Datasets switches that off for the whole process."""
    saved, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = saved


def _report(progress: Progress | None, what: str, total: int) -> Callable[[int], None]:
    return (lambda done: progress(what, done, total)) if progress else (lambda done: None)
