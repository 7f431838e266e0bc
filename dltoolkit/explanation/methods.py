"""The methods of explanation: what each one needs, and which of them a model can have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dltoolkit.errors import UserError, did_you_mean

AUTO = "auto"


@dataclass(frozen=True)
class Method:
    """A method of explanation.

    Attributes:
        name: Name of the method in options and files.
        kinds: What it explains: "image" or "text".
        title: What it is called in a sentence.
        needs_gradient: Whether it needs the Keras model, so that an export cannot have it.
        needs_layer: Layer that the model must have: "convolution", "attention" or "n-grams"; None for any model.
        signed: Whether negative values say that something speaks against the class.
        replacement: What the method puts in place of what it takes away; empty if it takes nothing away.
    """

    name: str
    kinds: tuple[str, ...]
    title: str
    needs_gradient: bool = False
    needs_layer: str | None = None
    signed: bool = True
    replacement: str = ""

    @property
    def is_mirrored(self) -> bool:
        """Whether what speaks for one of two classes speaks against the other; the logits of n-grams are separate."""
        return self.signed and self.needs_layer != "n-grams"


METHODS = {
    (kind, method.name): method
    for method in (
        Method("occlusion", ("image",), "occlusion", replacement="the blurred image"),
        Method("rise", ("image",), "RISE", replacement="the blurred image"),
        Method("grad-cam", ("image",), "Grad-CAM at the last convolution", True, "convolution"),
        Method("layer-cam", ("image",), "LayerCAM in the middle of the network", True, "convolution", signed=False),
        Method("attention-gradient", ("image",), "gradient-weighted attention", True, "attention", signed=False),
        Method("attention-rollout", ("image",), "attention rollout", True, "attention", signed=False),
        Method("integrated-gradients", ("image",), "integrated gradients from four baselines", True),
        Method("smooth-grad", ("image",), "SmoothGrad", True, signed=False),
        Method("gradient-x-input", ("image",), "gradient times input", True),
        Method("n-grams", ("text",), "the exact weights of n-grams in the logit", needs_layer="n-grams"),
        Method("leave-one-out", ("text",), "leave-one-out of words", replacement="nothing"),
        Method(
            "integrated-gradients",
            ("text",),
            "integrated gradients",
            needs_gradient=True,
            needs_layer="embeddings",
            replacement="unknown words",
        ),
    )
    for kind in method.kinds
}
# The methods that are used where none was measured, the first that the model can have
DEFAULTS = {"image": ("occlusion",), "text": ("n-grams", "leave-one-out")}


def choose(name: str, kind: str, available: Iterable[str], *, has_gradient: bool = True) -> Method:
    """Return the method of a name, or the default of a kind for ``auto``.

    Args:
        name: The name as the user wrote it.
        kind: What is explained, "image" or "text".
        available: Names of the methods that the model can have.
        has_gradient: Whether the model is one of Keras, and not the file of an export.

    Raises:
        UserError: If there is no such method, or the model cannot have it.
    """
    available = list(available)
    if name == AUTO:
        name = next(each for each in (*DEFAULTS[kind], *available) if each in available)
    if name in available:
        return METHODS[kind, name]
    listed = f"use --method={AUTO}, or one of {', '.join(available)}"
    if named := [method for (_, each), method in METHODS.items() if each == name]:
        method = METHODS.get((kind, name), named[0])
        raise UserError(
            f"This model cannot have --method={name}, because {_reason(method, kind, has_gradient)}: {listed}."
        )
    raise UserError(f"There is no method '{name}': {listed}.{did_you_mean(name, [AUTO, *available])}")


def _reason(method: Method, kind: str, has_gradient: bool) -> str:
    if kind not in method.kinds:
        return f"it explains {' and '.join(f'{each}s' for each in method.kinds)}, and this model reads {kind}s"
    if method.needs_gradient and not has_gradient:
        return "an export has no gradients, which the run has"
    if method.needs_layer:
        return f"it needs a layer of {method.needs_layer}{', and gradients' if method.needs_gradient else ''}"
    return "it needs gradients through the pixels" if kind == "image" else "it needs gradients through embeddings"
