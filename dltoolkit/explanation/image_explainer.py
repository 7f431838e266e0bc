"""The explainer of a classifier of images."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from dltoolkit import evaluation, explanation
from dltoolkit.explanation import image_faithfulness, image_perturbation
from dltoolkit.explanation.explainer import Explainer
from dltoolkit.explanation.explanation import EDGES, Explanation


class ImageExplainer(Explainer):
    """What explains the answers of a classifier of images, from a run or an export."""

    kind = "image"

    @property
    def available(self) -> list[str]:
        return list(self._functions)

    @functools.cached_property
    def _functions(self) -> dict[str, Callable[[np.ndarray, Sequence[int]], np.ndarray]]:
        """The methods that the model can have: functions from an image and targets to maps (targets, h, w)."""
        functions: dict[str, Any] = {
            "occlusion": lambda image, targets: image_perturbation.occlusion(image, targets, self.logits),
            "rise": lambda image, targets: image_perturbation.rise(image, targets, self.logits),
        }
        if self.has_gradient:
            functions |= explanation.activations.layer_methods(self.model)
            functions |= explanation.gradients.pixel_methods(self.model)
        return functions

    def of_item(self, item: Any, method: str, target: int | None = None) -> Explanation:
        """Return the explanation of an image, with the box and the size in the pixels that it had before."""
        pixels, size = self.predictor.read_with_size(item)
        explained = self.of_value(pixels, method, target)
        box = explained.box
        edges = None if box is None else self.predictor.preprocessing.original_box(tuple(box.values()), size)
        return dataclasses.replace(
            explained,
            original_box=None if edges is None else dict(zip(EDGES, edges, strict=True)),
            original_size={"width": size[0], "height": size[1]},
        )

    def compute(self, method: str, value: np.ndarray, targets: Sequence[int]) -> tuple[np.ndarray, Mapping[str, Any]]:
        return self._functions[method](value, targets), {"image": value}

    def faithfulness(
        self, values: Sequence[np.ndarray], attributions: Sequence[np.ndarray], targets: Sequence[int]
    ) -> dict[str, np.ndarray]:
        return image_faithfulness.measure(values, attributions, targets, self.logits)

    def random_values(self, attribution: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return random spots of the size of the patches that occlusion takes away."""
        return ndimage.gaussian_filter(rng.normal(size=attribution.shape), min(attribution.shape) / 8)

    def read_labeled(self, data: Any) -> list[np.ndarray]:
        return list(evaluation.image_classification.read_labeled(self.run, data, self.run.config)[0])
