"""The scale of image values: which value becomes black (0) and which white (255), once for a whole data set.

Images with 8 bits per channel keep their values. All others (16-bit and 32-bit files, floats, arrays of other types)
share one scale, so that the order of brightness between images is preserved.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dltoolkit.errors import UserError

# Ranges that images are usually stored in: floats, then 8, 10, 12, 14 and 16 bits
USUAL_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (0.0, 1023.0), (0.0, 4095.0), (0.0, 16383.0), (0.0, 65535.0))
NOT_FINITE = "values that are not finite (NaN or infinity)"  # why an image cannot be read
MAX_UNIT_VALUE = 1.5  # floats up to this value are in 0..1; the margin allows for overshoot from resizing
MAX_OVERSHOOT = 0.01  # fraction of the values above 1 that may come from resizing; with more, the range is another one
MIN_RANGE_USED = 0.25  # part of a usual range that the values must span; otherwise few of the 256 levels remain
OUTLIERS = 0.001  # fraction of the values at each end that may be outliers, such as hot pixels
MAX_OUTLIER_RATIO = 16  # ratio of the range with outliers to the range without them, above which they are clipped
MIN_LEVELS = 16  # of 256; a warning is due if images span fewer
MAX_AMBIGUOUS = 16383.0  # largest value of a 16-bit image that may have been recorded with fewer bits
MAX_EXACT = 2**24  # largest whole number that float32 stores exactly
SAMPLED_VALUES = 4_000_000  # values of a data set that determine the outliers
SAMPLED_PER_ITEM = (64, 65_536)  # least and greatest number of them from one image


def is_8_bit(values: np.ndarray) -> bool:
    """Return whether an array has 8 bits per channel (or one, for bool), so that it needs no scale."""
    return values.dtype == np.uint8 or values.dtype.kind == "b"


@dataclass(frozen=True)
class Scale:
    """The linear scale of the values of a data set.

    Attributes:
        low: Value that becomes 0. Smaller values become 0 as well.
        high: Value that becomes 255. Greater values become 255 as well.
        minimum: Smallest value in the data, or None if all images have 8 bits per channel.
        maximum: Greatest value in the data, or None.
        mixed: Whether the data also have images of 8 bits per channel, which keep their values.
        levels: Number of the 256 pixel values that the range of a typical (median) image spans, or None.
    """

    low: float = 0.0
    high: float = 255.0
    minimum: float | None = None
    maximum: float | None = None
    mixed: bool = False
    levels: int | None = field(default=None, compare=False)

    @property
    def is_8_bit(self) -> bool:
        """Whether all images of the data set have 8 bits per channel."""
        return self.minimum is None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of run.json."""
        limits = {"low": self.low, "high": self.high}
        data = {"minimum": self.minimum, "maximum": self.maximum, "mixed": self.mixed, "levels": self.levels}
        return limits if self.is_8_bit else {**limits, **data}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Scale:
        """Return the scale of a JSON object of run.json.

        Raises:
            ValueError: If it describes no scale.
        """
        low, high, minimum, maximum = (fields.get(name) for name in ("low", "high", "minimum", "maximum"))
        numbers = [low, high] if minimum is None else [low, high, minimum, maximum]
        if not all(isinstance(number, (int, float)) and np.isfinite(number) for number in numbers) or low >= high:
            raise ValueError("the scale of the values is damaged")
        return cls(low, high, minimum, maximum, bool(fields.get("mixed")), fields.get("levels"))

    def to_pixels(self, values: np.ndarray) -> np.ndarray:
        """Return uint8 pixels of the same shape.

        Args:
            values: An image, or several. With 8 bits per channel, they are returned unchanged. If the data set of this
                scale has only such images, other values are taken as floats 0..1, as 0..255, or as the fewest bits that
                hold them.

        Raises:
            UserError: If a value is NaN or infinite, or does not fit 8-bit data at all; the message is a short reason.
        """
        if values.dtype == np.uint8:
            return values
        if values.dtype.kind == "b":
            return values.astype(np.uint8) * np.uint8(255)
        low, high = self._limits(values)
        exact = np.float32 if max(abs(low), abs(high)) <= MAX_EXACT else np.float64
        scaled = (values.astype(exact) - exact(low)) * exact(255 / (high - low))
        return np.round(np.clip(scaled, 0, 255, out=scaled), out=scaled).astype(np.uint8)

    def _limits(self, values: np.ndarray) -> tuple[float, float]:
        minimum, maximum = value_range(values)
        if not self.is_8_bit:
            return self.low, self.high
        if values.dtype.kind == "f" and minimum >= 0 and maximum <= MAX_UNIT_VALUE:
            return 0.0, 1.0
        if minimum >= 0 and maximum <= 255.5:
            return 0.0, 255.0
        if minimum >= 0 and (usual := usual_range(minimum, maximum)):
            return usual
        raise UserError(f"has values from {minimum:g} to {maximum:g}, but the images of the model have 0 to 255")

    def remark(self, values: np.ndarray) -> str | None:
        """Return why these values do not fit the scale ("has …"), or None if they do."""
        trained = f"the model was trained on values from {self.low:g} to {self.high:g}"
        if is_8_bit(values):
            if self.is_8_bit or self.mixed or (self.low, self.high) in ((0, 1), (0, 255)):
                return None
            return f"has 8 bits per channel, but {trained}: its 0 to 255 are taken as this range"
        low, high = value_range(values)
        if self.is_8_bit:
            unit = values.dtype.kind == "f" and low >= 0 and 0 < high <= MAX_UNIT_VALUE
            if not unit and not 255.5 < high <= MAX_AMBIGUOUS:
                return None
            _, white = self._limits(values)
            return f"has values up to {high:g}, but the model was trained on 8-bit images: {white:g} is taken as white"
        if low < min(self.low, self.minimum) or high > max(self.high, self.maximum):
            return f"has values from {low:g} to {high:g}, but {trained}: those outside are clipped"
        if values.dtype.kind == "f" and 0 < high <= MAX_UNIT_VALUE and self.high >= 255:
            return f"has values from {low:g} to {high:g}, but {trained}: it becomes nearly black"
        return None

    def describe(self) -> str:
        """Return the scale in words, for the summary of the data."""
        if self.is_8_bit:
            return "8 bits per channel"
        text = f"{self.minimum:g} to {self.maximum:g}; {self.low:g} becomes black and {self.high:g} white"
        return f"{text}; 8-bit images are unchanged" if self.mixed else text

    def warnings(self) -> list[str]:
        """Return sentences about values that are clipped, and about images of different depths."""
        if self.is_8_bit:
            return []
        sentences = []
        if self.minimum < self.low or self.maximum > self.high:
            sentences.append(
                f"A few values of the images lie outside {self.low:g} to {self.high:g} and are clipped: all values are "
                f"{self.minimum:g} to {self.maximum:g}."
            )
        if self.levels is not None and self.levels < MIN_LEVELS:
            sentences.append(
                f"Half of the images span at most {self.levels} of the 256 levels of the scale from {self.low:g} to "
                f"{self.high:g}, which models hardly distinguish: look for a few images with other values."
            )
        if self.mixed:
            sentences.append(
                f"Some images have 8 bits per channel and others more: 0 to 255 of the former and {self.low:g} to "
                f"{self.high:g} of the latter become the same pixels."
            )
        return sentences


class ValueStatistics:
    """Range and outliers of the values of a data set, collected image by image in any order and thread.

    Args:
        total: Number of images (or blocks of images) of the data set.
    """

    def __init__(self, total: int):
        fewest, most = SAMPLED_PER_ITEM
        self._sampled = min(most, max(fewest, SAMPLED_VALUES // max(1, total)))
        self._spans: list[np.ndarray] = []
        self._ranges: dict[int, tuple[float, float]] = {}
        self._samples: dict[int, np.ndarray] = {}

    def add(self, position: int, values: np.ndarray) -> None:
        """Add the values of an image (h, w) or (h, w, c), or of several (n, h, w, c), unless they have 8 bits.

        Raises:
            UserError: If a value is NaN or infinite.
        """
        if is_8_bit(values):
            return
        self._ranges[position] = value_range(values)
        axes = tuple(range(1, 4)) if values.ndim == 4 else None
        self._spans.append(np.atleast_1d(values.max(axis=axes).astype(np.float64) - values.min(axis=axes)))
        flat = values.reshape(-1)
        sampled = np.random.default_rng(position).integers(0, flat.size, min(self._sampled, flat.size))
        self._samples[position] = flat[sampled].astype(np.float64)

    def scale(self, *, mixed: bool = False, like_8_bit: bool = False) -> Scale:
        """Return the scale of the data set; that of 8-bit images if no others were added.

        Args:
            mixed: Whether the data set also has images of 8 bits per channel.
            like_8_bit: Whether the images must look like others of 8 bits per channel, so that a usual range is not
                stretched.
        """
        if not self._ranges:
            return Scale()
        minimum = min(low for low, _ in self._ranges.values())
        maximum = max(high for _, high in self._ranges.values())
        low, high = self._limits(minimum, maximum, stretch=not (mixed or like_8_bit))
        levels = int(min(256, 256 * np.median(np.concatenate(self._spans)) / (high - low)))
        return Scale(low, high, minimum, maximum, mixed, levels)

    def _limits(self, low: float, high: float, *, stretch: bool) -> tuple[float, float]:
        sample = np.concatenate([self._samples[position] for position in sorted(self._samples)])
        core_low, core_high = np.quantile(sample, [OUTLIERS, 1 - OUTLIERS]).tolist()
        if 0 < core_high - core_low < (high - low) / MAX_OUTLIER_RATIO:
            low, high = core_low, core_high
        if low >= 0 and 1 < high <= MAX_UNIT_VALUE and (sample > 1).mean() > MAX_OVERSHOOT:
            return low if stretch else 0.0, high
        usual = usual_range(low, high)
        if usual and not (stretch and high - low < MIN_RANGE_USED * (usual[1] - usual[0])):
            return usual
        return (low, high) if low < high else (min(low, 0.0), max(high, 1.0))


def usual_range(low: float, high: float) -> tuple[float, float] | None:
    """Return the smallest of the usual ranges that has these values, or None."""
    for usual_low, usual_high in USUAL_RANGES:
        if usual_low <= low and high <= (MAX_UNIT_VALUE if usual_high == 1 and low >= 0 else usual_high):
            return usual_low, usual_high
    return None


def value_range(values: np.ndarray) -> tuple[float, float]:
    """Return the smallest and the greatest value.

    Raises:
        UserError: If a value is NaN or infinite, or the values are not numbers; the message is a short reason.
    """
    if values.dtype.kind not in "iufb":
        raise UserError(f"values of type {values.dtype}, which are not numbers")
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise UserError(NOT_FINITE)
    return low, high
