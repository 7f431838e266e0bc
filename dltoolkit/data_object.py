"""Data that a Python program holds, as a value of the option ``data``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from dltoolkit.errors import UserError

SCHEME = "python:"  # beginning of the value of ``data`` in run.json if a Python program held the data
ACCEPTED = (
    "a path or name, arrays (x, y), a list of (text or image, label), a DataFrame, a finite tf.data.Dataset of (x, y), "
    "or a dictionary such as {'train': (x, y), 'test': (x, y)}"
)


class DataObject(str):
    """An object with data. As a string, it is the scheme and its kind, such as "python:arrays".

    Attributes:
        kind: "arrays", "pairs", "DataFrame", "Dataset", "texts" or "splits".
        value: The object.
    """

    kind: str
    value: Any

    def __new__(cls, kind: str, value: Any) -> DataObject:
        self = super().__new__(cls, SCHEME + kind)
        self.kind, self.value = kind, value
        return self

    def __copy__(self) -> DataObject:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> DataObject:
        return self  # arrays are never copied


def wrap(data: Any) -> Any:
    """Return a :class:`DataObject` for an object with data; a path, a name and None are returned unchanged.

    Raises:
        UserError: If the object is of no type that holds data.
    """
    if data is None or isinstance(data, str | os.PathLike):
        return data
    return DataObject(_kind(data), data)


def is_lost(data: Any) -> bool:
    """Return whether a value of ``data``, as read from run.json, stands for an object of an earlier program."""
    return isinstance(data, str) and data.startswith(SCHEME) and not isinstance(data, DataObject)


def _kind(data: Any) -> str:
    if isinstance(data, Mapping):
        return "splits"
    if hasattr(data, "columns") and hasattr(data, "__getitem__"):
        return "DataFrame"
    if hasattr(data, "element_spec"):
        return "Dataset"
    if hasattr(data, "__array__") or (isinstance(data, tuple) and len(data) == 2):
        return "arrays"
    if isinstance(data, list) and data:
        if all(isinstance(item, str) for item in data):
            return "texts"
        if all(isinstance(item, tuple | list) and len(item) == 2 for item in data):
            return "pairs"
        if all(hasattr(item, "__array__") for item in data):
            return "arrays"
    raise UserError(f"data must be {ACCEPTED}, not {describe(data)}.")


def describe(value: Any) -> str:
    """Return a short description of any object, such as "a list of 3", "an empty list" or "an array"."""
    if hasattr(value, "shape"):
        return "an array"
    if isinstance(value, list | tuple | set):
        name = type(value).__name__
        return f"a {name} of {len(value)}" if value else f"an empty {name}"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
