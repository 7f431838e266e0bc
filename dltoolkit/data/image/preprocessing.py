"""Preprocessing of images: from values of any depth and images of any size to the pixels that a model takes.

Training, evaluation and prediction share one :class:`Preprocessing`, which run.json stores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
from PIL import Image

from dltoolkit.data.image import arrays, modes
from dltoolkit.data.image.scale import Scale
from dltoolkit.data.options import ResizeMode
from dltoolkit.errors import UserError
from dltoolkit.run_schema import SIDE

MIN_REDUCED_SIDE = 256  # pixels of the shorter side of JPEG images that libjpeg may decode at a reduced size
MAX_REMARKABLE_LOSS = 0.5  # fraction of one image that cropping may remove without a remark


@dataclass(frozen=True)
class Preprocessing:
    """The way from an image to the input of a model.

    Attributes:
        image_shape: Height, width and channels (1 or 3) of the pixels.
        resize: ``crop`` cuts the center out, ``letterbox`` adds black bars, ``stretch`` changes the aspect ratio.
        scale: The values that become black and white.
    """

    image_shape: tuple[int, int, int]
    resize: ResizeMode = "crop"
    scale: Scale = field(default_factory=Scale)

    def to_dict(self) -> dict[str, Any]:
        """Return the entries ``image_shape``, ``scale`` and ``resize`` of ``data`` in run.json."""
        return {
            "image_shape": list(self.image_shape),
            "scale": self.scale.to_dict(),
            "resize": {"mode": self.resize},
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any], file: str | Path = "run.json") -> Preprocessing:
        """Return the preprocessing that ``data`` of run.json describes.

        Args:
            data: The description.
            file: The file that holds it, for messages.

        Raises:
            UserError: If the description is damaged.
        """
        try:
            shape = tuple(data["image_shape"])
            resize = data.get("resize", {"mode": "crop"})["mode"]
            scale = Scale.from_dict(data.get("scale", Scale().to_dict()))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(f"{file} describes no preprocessing of images ({error}): train a new run.") from None
        sides = len(shape) == 3 and all(type(side) is int and 1 <= side <= SIDE.maximum for side in shape[:2])
        if not sides or shape[2] not in (1, 3) or resize not in get_args(ResizeMode):
            raise UserError(f"{file} describes a damaged preprocessing of images: train a new run.")
        return cls(shape, resize, scale)

    def pixels(self, image: Image.Image | np.ndarray) -> np.ndarray:
        """Return an image as uint8 (height, width, channels): upright, scaled, resized, on a white background.

        Args:
            image: An open image that is not loaded yet, or an array (h, w) or (h, w, c) with 1, 3 or 4 channels.

        Raises:
            UserError: If the values are not finite or do not fit; the message is a short reason.
        """
        return self._resized(self._scaled(self._load(image)))

    def pixels_and_original(self, image: Image.Image | np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the pixels of an image, and the same before they are resized, uint8 (h, w) or (h, w, 3).

        The latter are None for a large JPEG image, which may be decoded at a reduced size.
        """
        is_whole = not may_decode_reduced(image)
        original = self._scaled(self._load(image))
        return self._resized(original), np.asarray(original) if is_whole else None

    def pixels_and_remark(self, image: Image.Image | np.ndarray) -> tuple[np.ndarray, str | None, tuple[int, int]]:
        """Return the pixels of an image, the result of :meth:`remark`, and width and height of the upright image."""
        size, content = modes.size(image), self._load(image)
        values = content if isinstance(content, np.ndarray) else np.zeros(1, np.uint8)
        return self._resized(self._scaled(content)), self.remark(size, values), size

    def remark(self, size: tuple[int, int], values: np.ndarray) -> str | None:
        """Return what a model does not see of an image, or sees differently than in training ("has …"), or None.

        Args:
            size: Width and height of the image.
            values: Its values; of an image with 8 bits per channel, any uint8 array.
        """
        used = self.pixels_used(np.array([size]))
        if used < 1 - MAX_REMARKABLE_LOSS:
            width, height = size
            return f"is {width}x{height}: cropping, as in training, leaves only {100 * used:.0f} % of it"
        return self.scale.remark(values)

    def pixels_used(self, sizes: np.ndarray) -> float:
        """Return the mean fraction of the pixels of images that remains after cropping.

        Args:
            sizes: Width and height of each image, int (n, 2).
        """
        if self.resize != "crop" or not len(sizes):
            return 1.0
        height, width, _ = self.image_shape
        return float(cropped_fractions(sizes, width / height).mean())

    def original_box(self, box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[int, int, int, int] | None:
        """Return the box of an upright image that a box of its pixels was made of; None in a bar of a letterbox.

        Args:
            box: Left, top, right and bottom in the pixels that the model reads.
            size: Width and height of the image.
        """
        height, width, _ = self.image_shape
        source: tuple[float, ...] = (0, 0, *size)  # what all pixels are made of
        if size != (width, height) and self.resize == "crop":
            source = _center_box(size, width / height)
        elif size != (width, height) and self.resize == "letterbox":
            inner = self._inner(size)
            before = [(side - part) // 2 for side, part in zip((width, height), inner, strict=True)]
            scales = [side / part for side, part in zip(size, inner, strict=True)]
            starts = [-margin * scale for margin, scale in zip(before, scales, strict=True)]
            source = (*starts, starts[0] + width * scales[0], starts[1] + height * scales[1])
        edges = []
        for number, edge in enumerate(box):
            axis, rounded = number % 2, math.floor if number < 2 else math.ceil
            begin, end = source[axis], source[axis + 2]
            place = round(begin + (end - begin) * edge / (width, height)[axis], 6)  # the last bits are no pixel
            edges.append(min(max(rounded(place), 0), size[axis]))
        left, top, right, bottom = edges
        return (left, top, right, bottom) if left < right and top < bottom else None

    def _inner(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the width and height of an image between the bars of a letterbox."""
        height, width, _ = self.image_shape
        factor = min(width / size[0], height / size[1])
        return max(1, round(factor * size[0])), max(1, round(factor * size[1]))

    def _load(self, image: Image.Image | np.ndarray) -> Image.Image | np.ndarray:
        """Return an image upright: values (h, w, c) if it is an array or deep, otherwise a loaded image."""
        if isinstance(image, np.ndarray):
            return arrays.one_with_channels(image)
        transposition = modes.TRANSPOSITIONS.get(modes.orientation(image))
        if modes.is_deep(image):
            values = modes.deep_values(image)
            return arrays.one_with_channels(modes.transpose(values, transposition))
        height, width, _ = self.image_shape
        if may_decode_reduced(image) and min(image.size) >= 4 * max(height, width):
            image.draft(
                None, (2 * max(height, width),) * 2
            )  # libjpeg decodes 1/2, 1/4 or 1/8 in a fraction of the time
        image.load()
        flat = modes.flatten(image, self.image_shape[2])
        return flat if transposition is None else flat.transpose(transposition)

    def _scaled(self, content: Image.Image | np.ndarray) -> Image.Image:
        """Return what :meth:`_load` returns as an image of 8 bits per channel."""
        if not isinstance(content, np.ndarray):
            return content
        pixels = arrays.to_pixels(content[None], self.scale)[0]
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        return modes.flatten(image, self.image_shape[2])

    def _resized(self, image: Image.Image) -> np.ndarray:
        return np.asarray(self._resize(image)).reshape(self.image_shape)

    def _resize(self, image: Image.Image) -> Image.Image:
        height, width, _ = self.image_shape
        if image.size == (width, height):
            return image
        if self.resize == "crop":
            box = _center_box(image.size, width / height)
            return image.resize((width, height), Image.Resampling.BICUBIC, box, reducing_gap=2.0)
        if self.resize == "stretch":
            return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)
        inner = self._inner(image.size)
        canvas = Image.new(image.mode, (width, height))  # black
        resized = image if image.size == inner else image.resize(inner, Image.Resampling.BICUBIC, reducing_gap=2.0)
        canvas.paste(resized, ((width - inner[0]) // 2, (height - inner[1]) // 2))
        return canvas


def may_decode_reduced(image: Image.Image | np.ndarray) -> bool:
    """Return whether an image is a large JPEG, which is decoded at a reduced size if the pixels are to be few."""
    is_jpeg = not isinstance(image, np.ndarray) and image.format in ("JPEG", "MPO")
    return is_jpeg and min(image.size) >= MIN_REDUCED_SIDE


def cropped_fractions(sizes: np.ndarray, aspect_ratio: float = 1.0) -> np.ndarray:
    """Return the fraction of each image that the largest centered box has, float (n,).

    Args:
        sizes: Width and height of each image, int (n, 2).
        aspect_ratio: Width of the box divided by its height.
    """
    ratios = sizes[:, 0] / sizes[:, 1] / aspect_ratio
    return np.minimum(ratios, 1 / ratios)


def _center_box(size: tuple[int, int], aspect_ratio: float) -> tuple[float, float, float, float]:
    """Return the largest centered box (left, top, right, bottom) with an aspect ratio of width to height."""
    width, height = size
    box_width, box_height = min(width, height * aspect_ratio), min(height, width / aspect_ratio)
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return left, top, left + box_width, top + box_height
