"""Images from the generator of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dltoolkit.data.labeled import class_index
from dltoolkit.errors import UserError, did_you_mean
from dltoolkit.models.gan import sampling

if TYPE_CHECKING:
    from dltoolkit.run import Run


def generate(
    run: Run,
    *,
    count: int,
    label: str | Sequence[str] | None,
    seed: int,
    truncation: float | None,
    interpolate: int,
) -> np.ndarray:
    """Return generated images, uint8 (n, height, width, channels).

    Args:
        run: Run of a generator.
        count: Number of images.
        label: Class of all images, or classes that take turns; by default, all classes do.
        seed: Seed of the latents.
        truncation: Largest absolute value in the latents; lower values give less varied images.
        interpolate: Steps from each image to the next, and from the last to the first; 0 for none.

    Raises:
        UserError: If a class does not exist, or a number is out of range.
    """
    for option, value, minimum in (("--count", count, 1), ("--interpolate", interpolate, 0)):
        if value < minimum:
            raise UserError(f"{option} must be at least {minimum}, not {value}.")
    if truncation is not None and not truncation > 0:
        raise UserError(f"--truncation must be above 0, not {truncation}.")
    labels = _class_numbers(run, [label] if isinstance(label, str) else label, count)
    latents = sampling.sample_latents(count, seed, truncation)
    if interpolate:
        labels, latents = labels.repeat(interpolate), sampling.interpolate_latents(latents, interpolate)
    return sampling.generate_images(run.model, latents, labels)


def _class_numbers(run: Run, names: Sequence[str] | None, count: int) -> np.ndarray:
    """Return the class numbers of ``count`` images, for which the named classes (by default, all) take turns."""
    if names and not run.info["conditional"]:
        raise UserError(f"{run.path} was trained without classes, so it cannot generate a class: leave --class out.")
    numbers = [class_index(name, run.labels) for name in names or run.labels]
    if -1 in numbers:
        name = names[numbers.index(-1)]
        hint = did_you_mean(name, run.labels)
        raise UserError(f"There is no class '{name}'; use one of {', '.join(run.labels)}.{hint}")
    return np.array(numbers)[np.arange(count) % len(numbers)]
