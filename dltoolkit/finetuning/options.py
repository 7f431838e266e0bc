"""The options of fine-tuning, apart from those that every recipe has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dltoolkit.config import OptimizerOptions, Options, option

TRAINED = {"method": ("full", "lora")}  # a linear probe has no training loop, so it ignores the options of one
IMAGES, TEXTS = {"task": ("image",)}, {"task": ("text",)}
AUGMENTED = {**IMAGES, "augment": (True, "strong")}


@dataclass(frozen=True, kw_only=True)
class ImageTaskOptions(Options):
    """The options of image classification."""

    image_size: int | None = option(
        None,
        "Image side in pixels (default: from the backbone)",
        minimum=8,
        maximum=1024,
        group="data",
        applies_to=IMAGES,
    )
    augment: bool | Literal["strong"] = option(
        True,
        "Augmentation of the training images: shifts and label-preserving flips; strong: random resized crops, color "
        "jitter and flips",
        group="augmentation",
        applies_to=IMAGES,
    )
    augment_copies: int = option(
        3,
        "Copies of each training image; all but the first are augmented",
        minimum=1,
        group="augmentation",
        applies_to=AUGMENTED,
    )
    flip: bool | None = option(
        None,
        "Horizontal flips of the training images (default: if flipping preserves the labels)",
        group="augmentation",
        applies_to=AUGMENTED,
    )
    tta: bool | None = option(
        None,
        "Predictions averaged over the image and its mirror image (default: if training flips images)",
        group="evaluation",
        applies_to=IMAGES,
    )


@dataclass(frozen=True, kw_only=True)
class TextTaskOptions(Options):
    """The options of text classification."""

    max_length: int = option(
        256,
        "Maximum number of tokens per text; the middle of a longer text is left out",
        minimum=4,
        group="data",
        applies_to=TEXTS,
    )
    dropout: float = option(
        0.0,
        "Dropout rate inside a KerasHub transformer",
        minimum=0,
        maximum=0.9,
        group="model",
        applies_to={**TRAINED, **TEXTS, "the backbone": ("a KerasHub preset",)},
    )
    token_dropout: float = option(
        0.15,
        "Fraction of the tokens that training masks",
        minimum=0,
        maximum=0.9,
        group="augmentation",
        applies_to={**TRAINED, **TEXTS},
    )


@dataclass(frozen=True, kw_only=True)
class TransferOptions(OptimizerOptions, ImageTaskOptions, TextTaskOptions):
    """The options of transfer learning; those of the two tasks included."""

    rank: int = option(8, "LoRA rank", minimum=1, maximum=1024, group="model", applies_to={"method": ("lora",)})
    unfreeze: str | None = option(
        None,
        "Fraction of the backbone's layers to train, 0 to 1 from the top, or all (default: from the backbone)",
        group="model",
        applies_to=TRAINED,
    )
    batch_size: int | None = option(
        None,
        "Examples per step, over all devices (default: 32, fewer of long texts)",
        minimum=1,
        maximum=4096,
        group="optimization",
        applies_to=TRAINED,
    )
    learning_rate: float | None = option(
        None,
        "Peak learning rate of the head (default: from the backbone)",
        minimum=1e-8,
        maximum=100,
        group="optimization",
        applies_to=TRAINED,
    )
    layer_decay: float | None = option(
        None,
        "Factor of the learning rate from each layer to the one below (default: from the backbone)",
        minimum=0.01,
        maximum=1,
        group="optimization",
        applies_to=TRAINED,
    )
    patience: int | None = option(
        None,
        "Epochs without improvement on the validation split before training stops (default: 10)",
        minimum=1,
        group="optimization",
    )
    label_smoothing: float = option(
        0.1, "Label smoothing factor", minimum=0, maximum=0.9, group="optimization", applies_to=TRAINED
    )
