"""An explanation of one answer: what speaks for a class and what against it."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dltoolkit.errors import UserError
from dltoolkit.files import atomic_write, user_path

MAX_CELLS = 32  # cells of a side of the map of an image in JSON
EDGES = ("left", "top", "right", "bottom")  # of a box
DIGITS = 4  # decimals of the values in JSON


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """The explanation of the answer to one input, or the reason why there is none.

    Attributes:
        input: Path of the file, the text, or the type and the position of another input, such as ``array 0``.
        kind: What was explained, "image" or "text".
        label: The class that is explained: the most probable one, or the one that was asked for.
        probability: Its probability, 0 to 1.
        runner_up: The most probable one of the other classes.
        top: Most probable classes, ``[{"label": …, "probability": …}, …]``, in descending order.
        values: How much each pixel, float32 (height, width), or each token, float32 (tokens,), speaks for ``label``.
        runner_up_values: How much each one speaks for ``runner_up``; None if there is none.
        method: Name of the method.
        signed: Whether negative values say that something speaks against the class.
        replacement: What the method put in place of what it took away; empty if it took nothing away.
        faithfulness: The measured figures of the method on this run, see ``explanation.faithfulness``; None if they
            were not measured.
        truth: The true class, if it is known.
        image: Image uint8 (height, width, channels) as the model read it.
        original_box: The box in pixels of the image before it was resized, upright; None if no pixel speaks for the
            class, or only bars around the image do.
        original_size: The ``width`` and ``height`` of that image; None if they are not known.
        text: The text.
        spans: Start and end of each token in the text.
        details: Further fields of the method for JSON.
        error: Reason why the input could not be explained.
    """

    input: str
    kind: str
    label: str | None = None
    probability: float | None = None
    runner_up: str | None = None
    top: Sequence[Mapping[str, Any]] = ()
    values: np.ndarray | None = None
    runner_up_values: np.ndarray | None = None
    method: str = ""
    signed: bool = True
    replacement: str = ""
    faithfulness: Mapping[str, Any] | None = None
    truth: str | None = None
    image: np.ndarray | None = None
    original_box: Mapping[str, int] | None = None
    original_size: Mapping[str, int] | None = None
    text: str | None = None
    spans: Sequence[tuple[int, int]] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None

    @property
    def predicted(self) -> str | None:
        """The most probable class."""
        return self.top[0]["label"] if self.top else None

    @property
    def is_right(self) -> bool | None:
        """Whether the most probable class is the true one; None if that is not known."""
        return None if self.truth is None or self.error else self.predicted == self.truth

    @property
    def box(self) -> dict[str, int] | None:
        """The box in pixels, ``left``, ``top``, ``right`` and ``bottom``, around what speaks most for the class.

        It holds the connected pixels around the largest value that have at least half of it. None if no pixel speaks
        for the class, and for a text.
        """
        if self.kind != "image" or self.values is None or not (peak := self.values.max()) > 0:
            return None
        from scipy import ndimage

        regions, _ = ndimage.label(self.values >= peak / 2)
        rows, columns = np.nonzero(regions == regions[np.unravel_index(self.values.argmax(), self.values.shape)])
        edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        return {name: int(value) for name, value in zip(EDGES, edges, strict=True)}

    @property
    def size(self) -> dict[str, int] | None:
        """The size in pixels of the image as the model reads it, to which the box belongs; None for a text."""
        return None if self.image is None else {"width": self.image.shape[1], "height": self.image.shape[0]}

    @property
    def places(self) -> dict[str, Any]:
        """The box and the size of an image, in pixels of the file and in pixels as the model reads them."""
        original = {"original_box": self.original_box, "original_size": self.original_size}
        return {"box": self.box, "size": self.size, **{name: each and dict(each) for name, each in original.items()}}

    @property
    def words(self) -> list[dict[str, Any]]:
        """The tokens of a text with their values, in order."""
        return [
            {"text": self.text[start:end], "start": start, "end": end, "value": round(float(value), DIGITS)}
            for (start, end), value in zip(self.spans, () if self.values is None else self.values, strict=False)
        ]

    def to_json(self) -> dict[str, Any]:
        """Return what a program reads: input and error, or the class, the method, its figures and the values.

        The map of an image has at most 32 x 32 cells, each with the sum of its pixels.
        """
        if self.error is not None:
            return {"input": self.input, "error": self.error}
        fields = {
            "input": self.input,
            "label": self.label,
            "probability": self.probability,
            "runner_up": self.runner_up,
            "truth": self.truth,
            "top": list(self.top),
            "method": self.method,
            "signed": self.signed,
            "replacement": self.replacement or None,
            "faithfulness": self.faithfulness,
            **self.details,
        }
        if self.kind == "image":
            cells = np.round(_cells(self.values), DIGITS).tolist()
            return {**fields, **self.places, "values": cells}
        return {**fields, "words": self.words}

    def save_html(self, path: str | Path) -> Path:
        """Write a page with this explanation, and return its path.

        Raises:
            UserError: If the file cannot be written.
        """
        from dltoolkit.explanation import page

        return _write(path, page.render([self]).encode())

    def save_png(self, path: str | Path) -> Path:
        """Write the image with the map over it, and return the path.

        Raises:
            UserError: If the explanation is of a text, or has an error, or the file cannot be written.
        """
        from dltoolkit.explanation import overlay

        if self.image is None or self.values is None:
            reason = (
                f"it could not be explained ({self.error})" if self.error else "a text has no pixels: use save_html"
            )
            raise UserError(f"There is no PNG of the explanation of {self.input}: {reason}.")
        return _write(path, overlay.png(self.image, self.values))

    def _repr_html_(self) -> str:
        """Return the page in a frame, for notebooks."""
        from dltoolkit.explanation import page

        source = html.escape(page.render([self]), quote=True)
        return f'<iframe srcdoc="{source}" style="width:100%;height:32em;border:0"></iframe>'


def _cells(values: np.ndarray) -> np.ndarray:
    """Return the sums of a map (h, w) over at most 32 x 32 cells."""
    for axis in (0, 1):
        edges = np.unique(np.linspace(0, values.shape[axis], MAX_CELLS + 1).astype(int))[:-1]
        values = np.add.reduceat(values, edges, axis=axis)
    return values


def _write(path: str | Path, content: bytes) -> Path:
    path = user_path(path)
    with atomic_write(path, suffix=f".{os.getpid()}") as partial:  # another process may write the same file
        partial.write_bytes(content)
    return path
