"""Data that a Python program holds (arrays, pairs, DataFrames, tf.data) as arrays or tables by split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dltoolkit.data.readers import arrays, columns, encoding
from dltoolkit.data.readers.arrays import SplitArrays
from dltoolkit.data.readers.source import SPLITS, UNLABELED, Source, split_name
from dltoolkit.data.readers.tables import TEXT_COLUMNS, Table
from dltoolkit.errors import UserError

ENDLESS = -1  # cardinality of an endless tf.data.Dataset
CHANNELS = (1, 3, 4)
MISSING_TYPES = ("NAType", "NaTType")  # missing values of pandas, which cannot be compared


def split_values(value: Any, spec: str) -> dict[str, Any]:
    """Return the object of each split in the order of ``SPLITS``, or the object itself for the split "".

    Raises:
        UserError: If a key of a dictionary names no split, or none is for training.
    """
    if not isinstance(value, Mapping):
        return {"": value}
    values: dict[str, Any] = {}
    for key, of_split in value.items():
        split = split_name(key) if isinstance(key, str) else None
        if split is None or split in values:
            raise UserError(f"{spec} has the key {str(key)[:40]!r}: give train, validation and test, each once.")
        if isinstance(of_split, Mapping):
            raise UserError(f"{spec} has a dictionary for {split}: give (x, y), a list of pairs or a DataFrame.")
        values[split] = of_split
    if "train" not in values:
        raise UserError(f"{spec} has no data for train: give {{'train': (x, y), …}}.")
    return {split: values[split] for split in SPLITS if split in values}


def read(source: Source, noun: str, *, labeled: bool = True) -> SplitArrays | list[tuple[str, Table]]:
    """Return images as arrays by split, or texts, paths and images of several sizes as a table for each split.

    Args:
        source: A source of the kind "object".
        noun: "image" or "text", which becomes the name of the column of the examples.
        labeled: Whether labels are required. If not, examples without labels get the class "all".

    Raises:
        UserError: If the object has no labeled examples, or is endless.
    """
    forms = {
        split: _to_form(value, noun, f"{source.spec} {split}".rstrip(), labeled=labeled)
        for split, value in split_values(source.value, source.spec).items()
    }
    are_tables = {isinstance(form, Table) for form in forms.values()}
    if len(are_tables) > 1:
        raise UserError(f"{source.spec} has splits of different forms: give all of them as arrays, or none.")
    return list(forms.items()) if are_tables == {True} else forms


def documents(source: Source, text_column: str | None) -> dict[str, list[str]]:
    """Return the texts of each split, for a corpus; labels are ignored.

    Raises:
        UserError: If the object holds no texts.
    """
    by_split = {}
    for split, table in read(source, "text", labeled=False):
        column = "text" if list(table.columns) == ["text", "label"] else table.find(text_column, TEXT_COLUMNS, "text")
        cells = table.columns[column]
        try:
            cells = [encoding.decode(cell) if isinstance(cell, bytes) else cell for cell in cells]
        except UserError as error:
            raise UserError(f"A text of {source.spec} is {error}.") from None
        if wrong := next((cell for cell in cells if cell is not None and not isinstance(cell, str)), None):
            raise UserError(f"{source.spec} has {type(wrong).__name__} values among its texts: give strings only.")
        by_split[split] = [cell for cell in cells if cell]
    return by_split


def first_example(source: Source) -> list[Any]:
    """Return the cells of the first row of a DataFrame, or the first example of another object without its label."""
    value = next(iter(split_values(source.value, source.spec).values()))
    if hasattr(value, "columns"):
        return [cell for name in value.columns for cell in _cells(value[name])[:1]]
    if hasattr(value, "element_spec"):
        element = value.element_spec[0] if isinstance(value.element_spec, tuple) else value.element_spec
        dtype = getattr(element, "dtype", None)
        return ["" if dtype is None or dtype.name == "string" else np.zeros((1, 1))]
    first = value
    while isinstance(first, tuple | list) and first:  # (x, y), or a list of pairs or examples
        first = first[0]
    if hasattr(first, "__array__"):
        array = np.asarray(first)
        first = array if array.dtype.kind in "iufb" or not array.size else array.ravel()[0]
    return [first.decode("utf-8", "replace") if isinstance(first, bytes) else first]


def _to_form(value: Any, noun: str, spec: str, *, labeled: bool) -> tuple[np.ndarray, np.ndarray] | Table:
    """Return the examples and labels of one split as two arrays, or as a table."""
    if hasattr(value, "columns"):
        return _to_table(value, spec)
    if hasattr(value, "element_spec"):
        value = _read_dataset(value, spec, labeled=labeled)
    if isinstance(value, tuple) and len(value) == 2:
        examples, labels = value
    elif isinstance(value, list) and value and all(isinstance(item, tuple | list) and len(item) == 2 for item in value):
        examples, labels = [item[0] for item in value], [item[1] for item in value]
    elif labeled:
        raise UserError(f"{spec} has no labels: give (x, y), or a list of pairs ({noun}, label).")
    else:
        examples, labels = value, None
    examples = _stack(examples, spec)
    if not len(examples):
        raise UserError(f"{spec} has no {noun}s.")
    labels = np.full(len(examples), UNLABELED) if labels is None else _label_array(labels, spec)
    if len(examples) != len(labels):
        raise UserError(f"{spec} has {len(examples)} {noun}s but {len(labels)} labels: give one label for each {noun}.")
    if isinstance(examples, np.ndarray):
        if noun == "text":
            raise _no_texts(spec, examples)
        return examples, labels
    if labels.ndim == 2:
        indices, names, _ = arrays.class_indices([labels], None, spec)
        labels = np.array(names)[indices]
    return Table(Path(spec), {noun: examples, "label": labels.tolist()})


def _to_table(frame: Any, spec: str) -> Table:
    """Return a DataFrame as a table; it must hold its values, and each column once."""
    if hasattr(frame, "collect"):
        raise UserError(f"{spec} is lazy: give its values, frame.collect().")
    names = [str(name) for name in frame.columns]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{spec} has several columns '{repeated}': keep one of them.")
    return Table(Path(spec), {str(name): _cells(frame[name]) for name in frame.columns})


def _stack(examples: Any, spec: str) -> np.ndarray | list[Any]:
    """Return numbers of one shape as an array, and all other examples as a list."""
    if hasattr(examples, "__array__"):
        array = np.asarray(examples)
        array = array.astype(np.float32) if array.dtype.name == "bfloat16" else array
        if array.dtype.kind in "iufb" and array.ndim:
            return array
        if array.ndim != 1 and not (array.ndim == 2 and array.shape[1] == 1):
            raise UserError(
                f"{spec} has x of shape {array.shape} and type {array.dtype}: give one example in each row."
            )
        return [_missing_to_none(item) for item in array.ravel().tolist()]
    if not isinstance(examples, Sequence) or isinstance(examples, str | bytes):
        raise UserError(f"{spec} has x of type {type(examples).__name__}: give an array or a list.")
    items = [
        np.asarray(item) if hasattr(item, "__array__") and not isinstance(item, str) else item for item in examples
    ]
    shapes = {(item.shape, item.dtype) if isinstance(item, np.ndarray) and item.ndim else None for item in items}
    if len(shapes) == 1 and None not in shapes:
        return np.stack(items)
    return [item.item() if isinstance(item, np.ndarray) and not item.ndim else _missing_to_none(item) for item in items]


def _label_array(labels: Any, spec: str) -> np.ndarray:
    """Return labels as an array of numbers (n,) or (n, classes), or of normalized names (n,)."""
    try:
        array = np.asarray(labels)
    except ValueError:  # lists of different lengths
        raise UserError(
            f"{spec} has labels that are lists of different lengths (multi-label classification), which dltoolkit does "
            "not train: give one label for each example."
        ) from None
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (1, 2):
        raise UserError(f"{spec} has labels of shape {array.shape}: give one label for each example.")
    if array.dtype.kind in "iub" or (array.dtype.kind == "f" and np.isfinite(array).all()):
        return array
    names = [_missing_to_none(label) for label in (labels if isinstance(labels, list | tuple) else array.tolist())]
    names = [label.decode("utf-8", "replace") if isinstance(label, bytes) else label for label in names]
    names = [columns.normalize_label(label) for label in names]
    if "" in names:
        raise UserError(f"{spec} has no label for the example {names.index('')}: give one, or leave the example out.")
    return np.array(names)


def _read_dataset(dataset: Any, spec: str, *, labeled: bool) -> Any:
    """Return the examples and labels of a tf.data.Dataset, batched or not, as two lists, or the examples alone."""
    if int(dataset.cardinality()) == ENDLESS:
        raise UserError(f"{spec} is endless: give a finite data set, such as dataset.take(1000).")
    element = dataset.element_spec
    pair = isinstance(element, tuple) and len(element) == 2
    if isinstance(element, tuple | Mapping) and not pair:
        raise UserError(f"{spec} has elements that are not (x, y): map them to two values, without sample weights.")
    if labeled and not pair:
        raise UserError(f"{spec} has no labels: give a tf.data.Dataset of (x, y).")
    example = element[0] if pair else element
    if not hasattr(example, "shape") or example.shape.rank is None:
        raise UserError(f"{spec} has examples of unknown shape: set it with tf.ensure_shape.")
    if is_batched(example):
        dataset = dataset.unbatch()
    if not pair:
        return list(dataset.as_numpy_iterator())
    examples, labels = [], []
    for x, y in dataset.as_numpy_iterator():
        examples.append(x)
        labels.append(y)
    return examples, labels


def is_batched(example: Any) -> bool:
    """Return whether the first axis of an example of a tf.data.Dataset counts examples."""
    rank, channels = example.shape.rank, example.shape[-1] if example.shape.rank else None
    if example.dtype.name == "string":
        return rank == 1
    return rank == 4 or (rank == 3 and channels is not None and channels not in CHANNELS)


def _cells(column: Any) -> list[Any]:
    return [_missing_to_none(cell) for cell in (column.to_list() if hasattr(column, "to_list") else list(column))]


def _missing_to_none(value: Any) -> Any:
    return None if type(value).__name__ in MISSING_TYPES else value


def _no_texts(spec: str, array: np.ndarray) -> UserError:
    return UserError(f"{spec} holds numbers of shape {array.shape}, not texts: give strings.")
