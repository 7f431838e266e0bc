"""Do the files of an export belong together: the model, export.json, preprocessing.json and labels.json?

Each says something that another one says too, such as the number of classes. An export whose files disagree would give
wrong answers without an error.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dltoolkit.errors import UserError

if TYPE_CHECKING:
    from dltoolkit.export.sessions import Session, Tensors

MAIN_OUTPUTS = {"image-generator": "image"}  # of the kinds of exports; that of the others is "logits"
MAX_INPUT = 1 << 28  # numbers of one input: an image of 8,192 x 8,192 pixels in color has 2^27.6


def main_output(kind: str) -> str:
    """Return the name of the output that answers."""
    return MAIN_OUTPUTS.get(kind, "logits")


def check_folder(path: Path, info: dict[str, Any], steps: dict[str, Any], labels: list[str]) -> None:
    """Raise a UserError if export.json, preprocessing.json and labels.json do not belong together.

    Args:
        path: The folder.
        info: The contents of export.json.
        steps: The contents of preprocessing.json.
        labels: The contents of labels.json; empty if there is no such file.
    """
    inputs, outputs = (_by_name(path, info[name]) for name in ("inputs", "outputs"))
    kind = info["kind"]
    main = outputs.get(main_output(kind))
    if main is None:
        _refuse(path, f"the outputs are {_names(outputs)}, not {main_output(kind)}")
    if kind == "image-classifier":
        _expect(path, inputs, {"image": [None, *steps["image_shape"]]})
    elif kind == "text-classifier":
        _expect(path, inputs, {"token_ids": [None, None]})
    elif kind == "text-generator":
        _ = steps["context_length"]  # must be there
        _check_state(path, info["state"], steps["empty_state"], inputs, outputs)
        if len(main) != 3 or main[-1] is None:
            _refuse(path, f"the logits have the shape {_shape(main)}")
    else:
        noise = {"noise": [None, steps["latent_dim"]]}
        _expect(path, inputs, {**noise, "label": [None]} if steps["conditional"] else noise)
        if bool(labels) != steps["conditional"]:
            _refuse(path, f"there are {len(labels)} labels, but conditional is {str(steps['conditional']).lower()}")
        if len(main) != 4 or None in main[1:] or main[-1] not in (1, 3):
            _refuse(path, f"the images have the shape {_shape(main)}")
    if kind.endswith("classifier") and (main[-1:] != [len(labels)] or len(main) != 2):
        _refuse(path, f"there are {len(labels)} labels, but the logits have the shape {_shape(main)}")
    if len(set(labels)) < len(labels):
        _refuse(path, f"the label '{next(label for label in labels if labels.count(label) > 1)}' stands there twice")
    for name, shape in inputs.items():
        if math.prod(size or 1 for size in shape) > MAX_INPUT:
            _refuse(path, f"the input {name} has the shape {_shape(shape)}")


def check_file(session: Session, info: dict[str, Any], file: Path) -> None:
    """Raise a UserError if a model file has other inputs or outputs than export.json names.

    Args:
        session: The loaded file.
        info: The contents of export.json, of which ``inputs`` and ``outputs`` are read.
        file: The file.
    """
    for kind, actual in (("inputs", session.inputs), ("outputs", session.outputs)):
        expected: Tensors = {tensor["name"]: (tensor["dtype"], tensor["shape"]) for tensor in info[kind]}
        if set(actual) != set(expected):
            raise UserError(
                f"{file} has the {kind} {_names(actual)}, but export.json names {_names(expected)}: export the run "
                "again."
            )
        for name, (dtype, shape) in expected.items():
            if actual[name][0] != dtype or not _fit(actual[name][1], shape):
                raise UserError(
                    f"The {kind[:-1]} {name} of {file} is {actual[name][0]} {_shape(actual[name][1])}, but export.json "
                    f"says {dtype} {_shape(shape)}: export the run again."
                )


def _check_state(
    path: Path, state: dict[str, str], empty_state: dict[str, list[int]], inputs: dict, outputs: dict
) -> None:
    """Raise a UserError if the state of a language model is not what its inputs and outputs are."""
    names = set(state.values())
    if names != set(empty_state) or not set(state) <= set(outputs):
        _refuse(path, "the state of the language model is not that of its inputs and outputs")
    more = {"previous_ids": [None]} if state else {}
    shapes = {name: empty_state[name] for name in names}
    _expect(
        path, {name: shape for name, shape in inputs.items() if name not in names}, {"token_ids": [None] * 2} | more
    )
    for name, shape in shapes.items():
        sizes = inputs.get(name)
        if sizes is None or len(sizes) != len(shape) or not _fit(sizes[1:], [size or None for size in shape[1:]]):
            _refuse(path, f"the state {name} has the shape {_shape(shape)}, but the input has {_shape(sizes or [])}")


def _expect(path: Path, actual: dict[str, list], expected: dict[str, list]) -> None:
    for name in actual.keys() | expected.keys():
        if name not in actual or name not in expected or not _fit(actual[name], expected[name]):
            _refuse(path, f"the inputs are {_names(actual)}, and not {_names(expected)} of the right shapes")


def _fit(actual: list[int | None], expected: list[int | None]) -> bool:
    """Return whether two shapes are equal where both are known."""
    return len(actual) == len(expected) and all(
        size is None or other is None or size == other for size, other in zip(actual, expected, strict=True)
    )


def _by_name(path: Path, tensors: list[dict[str, Any]]) -> dict[str, list[int | None]]:
    shapes = {tensor["name"]: tensor["shape"] for tensor in tensors}
    if len(shapes) < len(tensors):
        _refuse(path, "two inputs or outputs have the same name")
    return shapes


def _names(tensors: Any) -> str:
    return ", ".join(sorted(tensors)) or "none"


def _shape(sizes: list[int | None]) -> str:
    return "x".join("any" if size is None else str(size) for size in sizes) or "one number"


def _refuse(path: Path, reason: str) -> None:
    raise UserError(f"The files of {path} do not belong together ({reason}): export the run again.")
