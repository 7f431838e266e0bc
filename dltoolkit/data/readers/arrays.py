"""Images and labels that are arrays already: .npz files and the bundled digits."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dltoolkit import memory, npz
from dltoolkit.data.readers import columns
from dltoolkit.data.readers.source import sort_classes, split_name
from dltoolkit.errors import UserError

IMAGE_KEYS = ("x", "images", "image", "data")
LABEL_KEYS = ("y", "labels", "label")
CLASS_KEYS = ("class_names", "label_names")  # names that integer labels stand for
MAX_LISTED = 20  # names of arrays in a message

# The split ("" without predefined splits), and its images (n, …) and labels (n,), (n, 1) or one-hot (n, classes)
SplitArrays = dict[str, tuple[np.ndarray, np.ndarray]]


class NpzArrays(NamedTuple):
    """The images and labels of an .npz file, the names of the classes if it has them, and warnings."""

    splits: SplitArrays
    classes: list[str] | None
    warnings: list[str]


def digits() -> SplitArrays:
    """Return the handwritten digits of scikit-learn: uint8 (1797, 8, 8, 1), values 0 to 255 in 17 steps, and labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return {"": (np.round(data.images[..., None] * (255 / 16)).astype(np.uint8), data.target)}


def read_npz(path: Path) -> NpzArrays:
    """Read images and labels from an .npz file.

    Its keys are ``x_train``, ``y_train``, ``x_test``, ``y_test`` (``x_val``, ``y_val``), or ``images`` and ``labels``.
    ``train_images`` and ``train_labels``, or ``x`` and ``y``, are understood as well. ``class_names`` names the classes
    that integer labels stand for.

    Raises:
        UserError: If the file is not an .npz file, or contains no such pair.
    """
    try:
        with npz.open_npz(path) as file:
            pairs = _find_pairs(file.names, path)
            if not pairs:
                raise UserError(
                    f"{path} contains {', '.join(file.names[:MAX_LISTED]) or 'nothing'}: store x_train, y_train, "
                    "x_test, y_test (x_val, y_val), or images and labels."
                )
            size = file.size([name for pair in pairs.values() for name in pair])
            memory.refuse(size, f"The arrays in {path}", "store smaller or fewer images, or give a folder of files")
            warnings = []
            if "" in pairs and len(pairs) > 1:
                unused = " and ".join(pairs.pop(""))
                warnings = [f"{path} has arrays for each split, so its arrays {unused} are not used."]
            splits = {split: (file.read(images), file.read(labels)) for split, (images, labels) in pairs.items()}
            names = next((name for name in file.names if name.lower() in CLASS_KEYS), None)
            classes = None if names is None else _class_names(file.read(names), splits, f"{path}: {names}")
    except npz.InvalidNpz as error:
        raise UserError(f"{path} is not a readable .npz file ({error}): write plain arrays with numpy.savez.") from None
    return NpzArrays(splits, classes, warnings)


def class_indices(
    labels: Sequence[np.ndarray], classes: Sequence[str] | None, spec: str
) -> tuple[np.ndarray, list[str], list[str]]:
    """Return the labels of all splits as class indices, int32 (n,), the class names, and warnings.

    Args:
        labels: For each split, integers or strings (n,) or (n, 1), or one-hot rows (n, classes).
        classes: Names of the classes that integer labels stand for; None if the labels themselves are the names.
        spec: Value of ``--data``, for messages.

    Raises:
        UserError: If an example does not have exactly one class.
    """
    flat, one_hot = [], False
    for array in map(np.asarray, labels):
        _refuse_missing(array, spec)
        if array.ndim == 2 and array.shape[1] > 1 and array.dtype.kind in "iufb":
            if not ((array == 0) | (array == 1)).all() or not (array.sum(axis=1) == 1).all():
                raise UserError(f"{spec} has labels of shape {array.shape}, but not one class in each row.")
            array, one_hot = array.argmax(axis=1), True
        array = array.reshape(-1) if array.ndim == 2 and array.shape[1] == 1 else array
        if array.ndim != 1 or array.dtype.kind not in "iufbUS":
            raise UserError(
                f"{spec} has labels of shape {array.shape} and type {array.dtype}: give one label for each image."
            )
        if array.dtype.kind == "f":
            if not (array == np.round(array)).all():
                raise UserError(f"{spec} has fractional labels, which are values instead of classes.")
            array = array.astype(np.int64)
        flat.append(array.astype(np.int64) if array.dtype.kind == "b" and classes is not None else array)
    joined = np.concatenate(flat)
    if classes is not None and joined.dtype.kind in "iu":
        return joined.astype(np.int32), list(classes), []
    names = _names(joined)
    if "" in names:
        raise UserError(f"{spec} has a label without visible characters: correct it, or leave out its image.")
    sorted_classes = sort_classes(set(names))
    index = {name: i for i, name in enumerate(sorted_classes)}
    warnings = [] if one_hot else columns.check_numbers(Counter(names), f"The labels of {spec} are")
    return np.array([index[name] for name in names], np.int32), sorted_classes, warnings


def _names(array: np.ndarray) -> list[str]:
    """Return labels or class names as tables have them."""
    texts = (name.decode(errors="replace") if isinstance(name, bytes) else name for name in array.ravel().tolist())
    return [columns.normalize_label(text) for text in texts]


def _class_names(array: np.ndarray, splits: SplitArrays, what: str) -> list[str]:
    """Return the class names in an array, which must be as many as the integer labels need.

    Raises:
        UserError: If they are fewer, missing or repeated.
    """
    names = _names(array)
    labels = [labels for _, labels in splits.values() if labels.dtype.kind in "iu" and labels.size]
    one_hot = [array.shape[1] for array in labels if array.ndim == 2 and array.shape[1] > 1]
    least = min((int(array.min()) for array in labels), default=0)
    most = max([*one_hot, *(int(array.max()) + 1 for array in labels)], default=0)
    if least < 0 or most > len(names) or "" in names or len(set(names)) < len(names):
        raise UserError(
            f"{what} has {len(names)} names for labels from {least} to {most - 1}: give each label a name of its own."
        )
    return names


def _refuse_missing(labels: np.ndarray, spec: str) -> None:
    """Raise a UserError if a label is NaN, infinite or an empty name."""
    findings = []
    if labels.dtype.kind == "f":
        findings = [(np.isnan(labels), "missing (NaN)"), (np.isinf(labels), "infinite")]
    elif labels.dtype.kind in "US":
        findings = [(np.char.str_len(np.char.strip(labels)) == 0, "missing (an empty name)")]
    for found, reason in findings:
        if found.any():
            row = f"Label {np.argwhere(found)[0][0]} of {len(labels):,} in {spec}, counted from 0,"
            raise UserError(f"{row} is {reason}: correct it, or leave out its image.")


def _find_pairs(keys: Sequence[str], path: Path) -> dict[str, tuple[str, str]]:
    """Return the keys of the images and labels of each split, from keys such as x_train, labels_val, test_images.

    Raises:
        UserError: If several arrays may be the images or the labels of a split.
    """
    by_split: dict[str, dict[str, list[str]]] = {}
    for key in keys:
        words = key.lower().split("_")
        meanings = [word for word in words if word in IMAGE_KEYS + LABEL_KEYS]
        splits = [split_name(word) for word in words if split_name(word)]
        if len(meanings) == 1 and len(meanings) + len(splits) == len(words):
            kind = "images" if meanings[0] in IMAGE_KEYS else "labels"
            by_split.setdefault(splits[0] if splits else "", {}).setdefault(kind, []).append(key)
    pairs = {split: (pair["images"], pair["labels"]) for split, pair in by_split.items() if len(pair) == 2}
    for names in (names for pair in pairs.values() for names in pair if len(names) > 1):
        raise UserError(f"{path} has the arrays {' and '.join(names)}, which may mean the same: keep one of them.")
    return {split: (images[0], labels[0]) for split, (images, labels) in pairs.items()}
