"""Grids of images for a report and for generated images, each returned as the bytes of a PNG or GIF file."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from dltoolkit.data.image import modes

SIDE = 96  # pixels of the longer side of an image in a grid: small images are enlarged so that they can be judged
MAX_WIDTH = 900  # pixels of a grid, which a page shows without reducing it


def image_grid(images: np.ndarray, *, max_images: int = 64) -> bytes:
    """Arrange images, uint8 (n, height, width, channels), in a grid on a transparent background."""
    tiles = [_fit_tile(image) for image in images[:max_images]]
    columns = min(max(1, MAX_WIDTH // (tiles[0].width + 4)), math.ceil(math.sqrt(3 * len(tiles))))
    rows = math.ceil(len(tiles) / columns)
    return _encode(_tile(tiles, math.ceil(len(tiles) / rows), gap=4))  # the last row is filled as far as possible


def paired_grid(left: np.ndarray, right: np.ndarray) -> bytes:
    """Arrange pairs of images, uint8 (n, height, width, channels) each, in a grid on a transparent background.

    The images of a pair are 2 pixels apart, and the pairs 20 pixels.
    """
    pairs = [_tile([_fit_tile(image) for image in images], 2, gap=2) for images in zip(left, right, strict=True)]
    return _encode(_tile(pairs, max(1, MAX_WIDTH // (pairs[0].width + 20)), gap=20))


def _fit_tile(image: np.ndarray) -> Image.Image:
    """Return an image enlarged by a whole factor, or reduced, to about ``SIDE`` pixels on its longer side."""
    tile = to_pillow(image)
    factor = max(1, round(SIDE / max(tile.size)))
    scale = factor if factor > 1 else min(1.0, 1.5 * SIDE / max(tile.size))
    return _resize(tile, scale)


def _resize(image: Image.Image, scale: float) -> Image.Image:
    size = tuple(max(1, round(edge * scale)) for edge in image.size)
    return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX)


def _tile(tiles: Sequence[Image.Image], columns: int, gap: int) -> Image.Image:
    """Return images of one size in rows of ``columns``, with ``gap`` transparent pixels between them."""
    columns = min(columns, len(tiles))
    width, height = (edge + gap for edge in tiles[0].size)
    rows = math.ceil(len(tiles) / columns)
    grid = Image.new("RGBA", (columns * width - gap, rows * height - gap), (0, 0, 0, 0))
    for number, tile in enumerate(tiles):
        grid.paste(tile, (number % columns * width, number // columns * height))
    return grid


def animation(pngs: Sequence[bytes], *, max_frames: int = 60, seconds: float = 8.0) -> bytes:
    """Return a GIF of images given as PNGs; of more than ``max_frames``, evenly spaced ones are selected."""
    count = min(max_frames, len(pngs))
    frames = []
    for i in np.unique(np.linspace(0, len(pngs) - 1, count).round().astype(int)):
        with modes.open_file(io.BytesIO(pngs[i])) as image:
            image = image.convert("RGBA")
            frames.append(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))
    gif = io.BytesIO()
    durations = [max(40, round(1000 * seconds / len(frames)))] * (len(frames) - 1) + [2000]
    frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return gif.getvalue()


def thumbnail(image: np.ndarray, *, max_side: int = 160) -> bytes:
    """Return an image, uint8 (height, width, channels), as a PNG of at most ``max_side`` pixels a side."""
    thumbnail = to_pillow(image)
    if max(thumbnail.size) > max_side:
        thumbnail.thumbnail((max_side, max_side), Image.Resampling.BOX)
    return _encode(thumbnail)


def png(image: np.ndarray) -> bytes:
    """Return an image, uint8 (height, width, channels), as a PNG."""
    return _encode(to_pillow(image))


def to_pillow(image: np.ndarray) -> Image.Image:
    """Return a Pillow image of uint8 (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), or else of the first channel."""
    image = np.asarray(image, np.uint8)
    if image.ndim == 3 and image.shape[2] not in (3, 4):
        image = image[..., 0]
    return Image.fromarray(np.ascontiguousarray(image))


def _encode(image: Image.Image) -> bytes:
    png = io.BytesIO()
    image.save(png, "PNG")
    return png.getvalue()


def fit(image: np.ndarray, side: int) -> Image.Image:
    """Resize an image to the largest size that fits a square of ``side`` pixels."""
    image = to_pillow(image)
    return _resize(image, side / max(image.size))
