"""Opening of image files, and values, color and orientation of Pillow images of all modes."""

import io
import sys
from typing import BinaryIO

import numpy as np
from PIL import Image

from dltoolkit.data.image.scale import is_8_bit

# Pillow's names of the formats that are read, which docs/data.md lists. Other plugins of Pillow are not used, whatever
# the name of a file: some of them start programs, such as Ghostscript for EPS.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")

# The transposition for each EXIF orientation (CIPA DC-008, 4.6.4). ImageOps.exif_transpose is not used,
# because it also rewrites the EXIF block, which raised an error for 2 % of 5,000 blocks with one to four damaged bytes.
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112  # EXIF tag
_TILE_WIDTH, _TILE_LENGTH = 0x0142, 0x0143  # TIFF tags

# Pillow reads color of 16 bits per channel as 8 bits: the raw mode says which byte of each value it takes. Read once
# more with the raw mode of the other byte, the file gives the whole values.
_OTHER_BYTE = {
    "RGB;16B": "RGB;16L",
    "RGB;16L": "RGB;16B",
    "RGB;16N": "RGB;16B" if sys.byteorder == "little" else "RGB;16L",
    "RGBA;16B": "RGBA;16L",
    "RGBA;16L": "RGBA;16B",
    "RGBA;16N": "RGBA;16B" if sys.byteorder == "little" else "RGBA;16L",
}
_GRAY_ALPHA = "LA;16B"  # four bytes per pixel, which the raw mode RGBA leaves as they are


def open_file(file: BinaryIO) -> Image.Image:
    """Open an image file of one of :data:`FORMATS`. Every image file is opened with this function.

    Raises:
        UnidentifiedImageError: If it is of another format.
    """
    return Image.open(file, formats=FORMATS)


def decoded_size(image: Image.Image) -> tuple[int, int]:
    """Return how many pixels Pillow decodes for an image, not loaded yet, and how many bytes the way to pixels takes.

    The tiles of a TIFF file are decoded as a whole, however little of them the image has.
    """
    width, height = image.size
    tags = getattr(image, "tag_v2", {})
    tile_width, tile_height = (tags.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_LENGTH))
    if isinstance(tile_width, int) and isinstance(tile_height, int):
        width, height = max(width, tile_width), max(height, tile_height)
    transparent = image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info
    bytes_per_pixel = 48 if is_deep(image) else 24 if transparent else 12
    return width * height, width * height * bytes_per_pixel


def is_deep(image: Image.Image | np.ndarray) -> bool:
    """Return whether an image, not loaded yet, has more than 8 bits per channel."""
    if isinstance(image, np.ndarray):
        return not is_8_bit(image)
    return image.mode in ("I", "F") or image.mode.startswith("I;16") or _deep_color_mode(image) is not None


def is_grayscale(image: Image.Image | np.ndarray) -> bool:
    """Return whether an image has no color."""
    if isinstance(image, np.ndarray):
        return image.ndim == 2 or image.shape[-1] == 1
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    gray = ("1", "L", "LA", "La", "I", "F")
    return image.mode in gray or image.mode.startswith("I;16") or _deep_color_mode(image) == _GRAY_ALPHA


def is_animated(image: Image.Image | np.ndarray) -> bool:
    """Return whether a file has several frames or pages; the previews and depth maps of cameras (MPO) do not count."""
    return getattr(image, "is_animated", False) and image.format != "MPO"


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation that remains to be applied; Pillow itself applies that of a TIFF file."""
    if "exif" not in image.info:
        return 1
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # the pixels can be intact although the EXIF block is damaged
        return 1


def size(image: Image.Image | np.ndarray) -> tuple[int, int]:
    """Return width and height after the EXIF orientation is applied."""
    if isinstance(image, np.ndarray):
        return image.shape[1], image.shape[0]
    width, height = image.size
    return (height, width) if orientation(image) >= 5 else (width, height)


def transpose(values: np.ndarray, transposition: Image.Transpose | None) -> np.ndarray:
    """Return values (h, w) or (h, w, c) transposed as Pillow transposes images."""
    if transposition is None:
        return values
    numbers = np.arange(values.shape[0] * values.shape[1], dtype=np.int32).reshape(values.shape[:2])
    order = np.asarray(Image.fromarray(numbers).transpose(transposition))
    return values.reshape(-1, *values.shape[2:])[order]


def deep_values(image: Image.Image) -> np.ndarray:
    """Return the values of a deep image: (h, w), or (h, w, 3) or (h, w, 4) of uint16. The image is loaded."""
    raw_mode = _deep_color_mode(image)
    if raw_mode is None:
        image.load()
        return np.asarray(image)
    image.fp.seek(0)
    content = image.fp.read()
    if raw_mode == _GRAY_ALPHA:
        parts = _load_as(content, "RGBA").astype(np.uint16)
        values = parts[..., ::2] * np.uint16(256) + parts[..., 1::2]  # gray and alpha
        values = values[..., [0, 0, 0, 1]]
    else:
        high, low = _load_as(content, raw_mode), _load_as(content, _OTHER_BYTE[raw_mode])
        values = high.astype(np.uint16) * np.uint16(256) + low
    image.load()
    return values


def flatten(image: Image.Image, channels: int) -> Image.Image:
    """Return a loaded image of 8 bits per channel in mode L or RGB, with transparent parts on white."""
    mode = "L" if channels == 1 else "RGB"
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        background = Image.new("RGBA", image.size, "white")
        background.alpha_composite(image)
        image = background.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _deep_color_mode(image: Image.Image) -> str | None:
    """Return the raw mode of an image, not loaded yet, with 16 bits per channel and several channels, or None."""
    raw_modes = {_raw_mode(tile) for tile in getattr(image, "tile", ())}
    raw_mode = raw_modes.pop() if len(raw_modes) == 1 else None
    return raw_mode if raw_mode in _OTHER_BYTE or raw_mode == _GRAY_ALPHA else None


def _raw_mode(tile) -> str | None:
    arguments = tile[3]
    return arguments[0] if isinstance(arguments, tuple) and arguments else arguments


def _load_as(content: bytes, raw_mode: str) -> np.ndarray:
    """Return the bytes (h, w, channels) that Pillow takes from a file with a raw mode."""
    with open_file(io.BytesIO(content)) as image:
        tiles = []
        for tile in image.tile:
            arguments = (raw_mode, *tile[3][1:]) if isinstance(tile[3], tuple) else raw_mode
            tiles.append(tile._replace(args=arguments))
        image.tile = tiles
        image.load()
        return np.asarray(image)
