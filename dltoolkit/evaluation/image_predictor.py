"""The classifier of images of a run, with the reading of its images as in training."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dltoolkit import progress
from dltoolkit.data.image import dataset as images
from dltoolkit.data.image.preprocessing import Preprocessing
from dltoolkit.errors import UserError
from dltoolkit.evaluation import predictor
from dltoolkit.evaluation.predictor import Predictor

if TYPE_CHECKING:
    from dltoolkit.run import Run

MAX_PIXELS = 1 << 20  # pixels of a batch; activations take about a thousand times as many bytes
MAX_REMARKS = 3  # images about whose values or cropping a prediction prints a remark


def max_batch_size(shape: tuple[int, ...]) -> int:
    """Return how many images (height, width, channels) are classified together."""
    return max(16, min(256, MAX_PIXELS // (shape[0] * shape[1])))


def preprocessing(run: Run) -> Preprocessing:
    """Return the preprocessing of the images that a run was trained on."""
    data = run.info["data"]
    return Preprocessing.from_dict(data, getattr(data, "file", run.path / "run.json"))


class ImagePredictor(Predictor):
    """The classifier of images of a run.

    An image is a path (``str`` or ``Path``), the bytes of a file, a file open in binary mode, a Pillow image, or an
    array or tensor (h, w) or (h, w, c) with values like those of the training images. If these had 8 bits, floats up to
    1 are taken as 0..1, with a warning. An array (n, h, w) or (n, h, w, c) holds n images; with three axes, it is one
    image if the last axis has 1, 3 or 4 elements.
    """

    noun = "image"

    def __init__(self, run: Run):
        self.preprocessing = preprocessing(run)
        self.shape = self.preprocessing.image_shape
        self._remarks, self._max_pixels = 0, run.config.max_pixels
        super().__init__(run, max_batch_size(self.shape))

    def read(self, item: Any) -> np.ndarray:
        """Return an image as uint8 (h, w, c), scaled and resized as in training; differences are printed."""
        return self.read_with_size(item)[0]

    def read_with_size(self, item: Any) -> tuple[np.ndarray, tuple[int, int]]:
        """Return what :meth:`read` returns, and the width and height that the upright image had before."""
        if hasattr(item, "__array__") and not isinstance(item, str | bytes):
            item = predictor.to_numpy(item)
        if isinstance(item, bytearray | memoryview):
            item = bytes(item)
        elif _is_open_file(item):
            item = _read_bytes(item)
        self.check_type(item, (str, os.PathLike, bytes, np.ndarray, Image.Image))
        warn = functools.partial(self._warn, item)
        return images.read_with_size(item, self.preprocessing, warn=warn, max_pixels=self._max_pixels)

    def _warn(self, item: Any, remark: str) -> None:
        """Print a remark about an image, but not about more than a few."""
        self._remarks += 1
        if self._remarks <= MAX_REMARKS:
            name = item if isinstance(item, str | os.PathLike) else "An image"
            more = "; such remarks about further images are left out" if self._remarks == MAX_REMARKS else ""
            progress.warn(f"{name} {remark}{more}.")

    def stack(self, values: list[np.ndarray]) -> np.ndarray:
        return np.stack(values) if values else np.empty((0, *self.shape), np.uint8)

    def split(self, inputs: Any) -> tuple[Iterable[Any], bool]:
        return ([inputs], True) if _is_open_file(inputs) else super().split(inputs)

    def split_array(self, array: np.ndarray) -> tuple[Iterable[Any], bool]:
        if array.dtype.kind in "USO":  # paths, or images of several sizes
            return (array.ravel().tolist(), False) if array.ndim else ([array.item()], True)
        if array.ndim == 3 and array.shape[-1] == 2 != self.shape[1]:
            raise UserError(
                f"An array of shape {array.shape} has two channels, which may be gray and opacity: give images "
                "with 1, 3 or 4 channels."
            )
        single = array.ndim not in (3, 4) or (array.ndim == 3 and array.shape[-1] in (1, 3, 4))
        if array.ndim == 3 and not single and self.shape[-1] == 3 and array.shape[0] in (3, 4):
            raise UserError(
                f"An array of shape {array.shape} may be {array.shape[0]} grayscale images or one image with its "
                "channels first: move the channels to the end, or add an axis of 1 to grayscale images."
            )
        return ([array], True) if single else (array, False)

    def expand(self, words: Iterable[Any], text_column: str | None = None, meaning: str = "auto") -> Iterator[Any]:
        if text_column or meaning == "text":
            raise UserError(f"This run classifies images: leave --text{'-column' if text_column else ''} out.")
        return images.expand(words)


def _is_open_file(item: Any) -> bool:
    """Return whether an input is a file that is open for reading, or an object like one."""
    return callable(getattr(item, "read", None))


def _read_bytes(file: Any) -> bytes:
    """Return the bytes of an open file."""
    try:
        content = file.read()
    except (OSError, ValueError) as error:  # the file is closed, or its bytes are no text
        raise UserError(f"an open file that cannot be read ({error})") from None
    if not isinstance(content, bytes):
        raise UserError("a file in text mode: open it with mode 'rb'")
    return content
