"""The explainer of a classifier of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dltoolkit.explanation import image_perturbation
from dltoolkit.explanation.explainer import Explainer


class ImageExplainer(Explainer):
    """What explains the answers of a classifier of images, from a run or an export."""

    kind = "image"

    @property
    def available(self) -> list[str]:
        return list(self._functions)

    @property
    def _functions(self) -> dict[str, Callable[[np.ndarray, Sequence[int]], np.ndarray]]:
        """The methods that the model can have: functions from an image and targets to maps (targets, h, w)."""
        return {
            "occlusion": lambda image, targets: image_perturbation.occlusion(image, targets, self.logits),
            "rise": lambda image, targets: image_perturbation.rise(image, targets, self.logits),
        }

    def attribute(self, method: str, value: np.ndarray, targets: Sequence[int]) -> tuple[np.ndarray, Mapping[str, Any]]:
        return self._functions[method](value, targets), {"image": value}
