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


METHODS = {
    method.name: method
    for method in (
        Method("occlusion", ("image",), "occlusion", replacement="the blurred image"),
        Method("rise", ("image",), "RISE", replacement="the blurred image"),
    )
}
# The methods that are used where none was measured, the first that the model can have
DEFAULTS = {"image": ("occlusion",), "text": ()}


def choose(name: str, kind: str, available: Iterable[str]) -> Method:
    """Return the method of a name, or the default of a kind for ``auto``.

    Args:
        name: The name as the user wrote it.
        kind: What is explained, "image" or "text".
        available: Names of the methods that the model can have.

    Raises:
        UserError: If there is no such method, or the model cannot have it.
    """
    available = list(available)
    if name == AUTO:
        name = next(each for each in (*DEFAULTS[kind], *available) if each in available)
    if name in available:
        return METHODS[name]
    listed = f"use --method={AUTO}, or one of {', '.join(available)}"
    if name in METHODS:
        raise UserError(f"This model cannot have --method={name}, because {_reason(METHODS[name], kind)}: {listed}.")
    raise UserError(f"There is no method '{name}': {listed}.{did_you_mean(name, [AUTO, *available])}")


def _reason(method: Method, kind: str) -> str:
    if kind not in method.kinds:
        return f"it explains {' and '.join(f'{each}s' for each in method.kinds)}, and this model reads {kind}s"
    if method.needs_layer:
        return f"it needs a layer of {method.needs_layer}, and gradients"
    return "it needs gradients through the pixels" if kind == "image" else "it needs gradients through embeddings"
