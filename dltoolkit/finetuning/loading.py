"""Reading of the data of fine-tuning, which needs no TensorFlow."""

from __future__ import annotations

from typing import Any

from dltoolkit import progress
from dltoolkit.data.image import dataset as images
from dltoolkit.data.text import dataset as texts


def load_images(config: Any, image_size: int | None = None) -> images.ImageSplits:
    """Read, check and split images.

    Args:
        config: The options of fine-tuning.
        image_size: Side in pixels, unless the options set it.
    """
    with progress.counting() as on_progress:
        return images.load(
            config.data,
            config,
            config,
            image_size=config.image_size or image_size,
            seed=config.seed,
            limit=config.limit,
            progress=on_progress,
        )


def load_texts(config: Any) -> texts.TextSplits:
    """Read, check and split texts."""
    with progress.counting() as on_progress:
        return texts.load(config.data, config, config, seed=config.seed, limit=config.limit, progress=on_progress)
