"""The options of a GAN, and the defaults that depend on the data or on other options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dltoolkit import plan
from dltoolkit.config import Options, option

if TYPE_CHECKING:
    from dltoolkit.data.image.dataset import ImageSplits
    from dltoolkit.data.image.flips import FlipDecision

MIN_SIDE, MAX_SIDE = 8, 128  # pixels of the images that the networks can generate
FEW_IMAGES = 5_000  # training images below which a discriminator overfits without strong augmentation
LEARNING_RATE = 1e-3


@dataclass(frozen=True, kw_only=True)
class GanOptions(Options):
    """Options of the two networks and their training."""

    width: int | None = option(
        None,
        "Channels of both networks at the full image size (default: 32; fewer above 32 pixels per side)",
        minimum=4,
        maximum=512,
        group="model",
    )
    conditional: bool | None = option(
        None, "Conditioning of both networks on the class (default: if there are classes)", group="model"
    )
    spectral_norm: bool | None = option(
        None, "Spectral normalization of the discriminator (default: with the hinge loss)", group="model"
    )
    gradient_penalty: float | None = option(
        None,
        "Weight of the gradient penalty (default: 1, or 10 for wasserstein-gp)",
        minimum=0,
        maximum=1000,
        group="optimization",
    )
    gradient_penalty_interval: int = option(
        16,
        "Steps from one gradient penalty to the next; each is that many times as strong",
        minimum=1,
        group="optimization",
    )
    mode_seeking: float = option(
        0.1, "Weight of the mode-seeking loss, which increases variety", minimum=0, maximum=100, group="optimization"
    )
    learning_rate: float | None = option(
        None, "Peak learning rate of the generator (default: 0.001)", minimum=1e-8, maximum=1, group="optimization"
    )
    discriminator_lr: float | None = option(
        None,
        "Peak learning rate of the discriminator (default: that of the generator)",
        minimum=1e-8,
        maximum=1,
        group="optimization",
    )
    ema_decay: float = option(
        0.999, "Decay of the generator's moving average", minimum=0, maximum=0.99999, group="optimization"
    )
    diff_augment: Literal["auto", "none", "translation", "translation,cutout", "color,translation,cutout"] = option(
        "auto", "Augmentation for the discriminator; auto is stronger for few images", group="augmentation"
    )


def resolve_defaults(config: Any, splits: ImageSplits) -> Any:
    """Return a config with the defaults that depend on the data or on other options.

    Args:
        config: :class:`GanOptions` with a ``loss``.
        splits: The images.
    """
    diff_augment = config.diff_augment
    if diff_augment == "auto":
        color = "color," if splits.image_shape[-1] == 3 else ""
        diff_augment = f"{color}translation,cutout" if len(splits.train) < FEW_IMAGES else "translation"
    defaults = {
        "width": max(8, min(32, 1024 // max(splits.image_shape[:2]) // 8 * 8)),
        "conditional": len(splits.classes) > 1,
        "spectral_norm": config.loss == "hinge",
        "gradient_penalty": 10.0 if config.loss == "wasserstein-gp" else 1.0,
        "learning_rate": LEARNING_RATE,
        "discriminator_lr": config.learning_rate or LEARNING_RATE,
    }
    missing = {name: value for name, value in defaults.items() if getattr(config, name) is None}
    return config.resolve(diff_augment=diff_augment, **missing)


def summary(config: Any, flip: FlipDecision) -> list[tuple[str, str]]:
    """Return rows of the plan about the networks and the augmentation.

    Args:
        config: Options with every default resolved.
        flip: Whether training flips images, and why.
    """
    regularization = {"gradient_penalty": config.gradient_penalty, "mode_seeking": config.mode_seeking}
    augmentation = [f"{'flip' if flip.flip else 'no flip'} ({flip.reason})"]
    if config.diff_augment != "none":
        augmentation.append(f"{config.diff_augment} for the discriminator")
    return [
        ("Networks", f"{config.architecture}, width {config.width}, {'' if config.conditional else 'un'}conditional"),
        ("Loss", f"{config.loss}, {plan.settings(regularization)}"),
        ("Augmentation", ", ".join(augmentation)),
    ]
