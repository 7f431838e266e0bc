"""Pictures and labels that already are arrays: .npz files and the bundled digits."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dltoolkit.data.image import decode
from dltoolkit.data.readers.source import classes_in_order, part_of
from dltoolkit.errors import UserError

PICTURES = ("x", "images", "image", "data")
LABELS = ("y", "labels", "label")

Parts = dict[str, tuple[np.ndarray, np.ndarray]]  # part ("" without splits) -> pictures (n, …), labels (n, …)


def digits() -> Parts:
    """Return scikit-learn's handwritten digits: uint8 (1797, 8, 8, 1), values 0..255 in 17 steps, and labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return {"": (np.round(data.images[..., None] * (255 / 16)).astype(np.uint8), data.target)}


def read_npz(path: Path) -> Parts:
    """Read x_train, y_train, x_test, y_test (x_val, y_val), or images and labels, from an .npz file.

    ``train_images`` and ``train_labels``, or ``x`` and ``y``, will do as well.

    Raises:
        UserError: if the file is no .npz, or holds no such pair.
    """
    try:
        if not zipfile.is_zipfile(path):
            raise UserError(f"{path} is not a readable .npz file: write it with numpy.savez.")
        with np.load(path, allow_pickle=False) as file:
            pairs = _pairs(file.files)
            if not pairs:
                raise UserError(
                    f"{path} holds {', '.join(file.files) or 'nothing'}; expected are x_train, y_train, x_test, y_test "
                    "(x_val, y_val), or images and labels."
                )
            parts = {part: (file[pictures], file[labels]) for part, (pictures, labels) in pairs.items()}
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise UserError(f"{path} holds Python objects, which are not loaded: save plain arrays.") from None
        raise UserError(f"{path} is not a readable .npz file: {error}.") from None
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise UserError(f"{path} is not a readable .npz file: {error}.") from None
    if "" in parts and len(parts) > 1:
        del parts[""]
    if "train" not in parts and "" not in parts:
        raise UserError(f"{path} has pictures for {' and '.join(parts)} but none for train.")
    return {part: (to_pixels(x, f"{path} ({part or 'pictures'})"), y) for part, (x, y) in parts.items()}


def to_pixels(array: np.ndarray, where: str) -> np.ndarray:
    """Return pictures as uint8 (n, h, w, c), c 1 or 3.

    Args:
        array: (n, h, w), or (n, h, w, c) with 1, 3 or 4 channels (transparency is put on white); uint8, bool,
            uint16, other integers 0..255, or floats 0..1 or 0..255.
        where: for messages.

    Raises:
        UserError: if shape or values are something else.
    """
    array = np.asarray(array)
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[-1] not in (1, 3, 4):
        hint = " (move the channels last)" if array.ndim == 4 and array.shape[1] in (1, 3, 4) else ""
        raise UserError(
            f"{where} has the shape {array.shape}; pictures are (n, height, width) or (n, height, width, channels) "
            f"with 1, 3 or 4 channels{hint}."
        )
    if 0 in array.shape:
        raise UserError(f"{where} is empty: its shape is {array.shape}.")
    pixels = _eight_bits(array, where)
    if pixels.shape[-1] == 4:
        alpha = pixels[..., 3:].astype(np.uint16)
        pixels = ((pixels[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def to_codes(labels: Sequence[np.ndarray], names: Sequence[str] | None, where: str) -> tuple[np.ndarray, list[str]]:
    """Return all ``labels`` joined as int32 codes, and the class names.

    Args:
        labels: integers or strings (n,) or (n, 1), or one-hot rows (n, classes), one array for each part.
        names: class names by number, if they are known.
        where: for messages.
    """
    flat = []
    for array in map(np.asarray, labels):
        if array.ndim == 2 and array.shape[1] > 1 and array.dtype.kind in "iufb":
            if not ((array == 0) | (array == 1)).all() or not (array.sum(axis=1) == 1).all():
                raise UserError(f"{where} has labels of shape {array.shape} that are not one class each.")
            array = array.argmax(axis=1)
        array = array.reshape(-1) if array.ndim == 2 and array.shape[1] == 1 else array
        if array.ndim != 1 or array.dtype.kind not in "iufbUS":
            raise UserError(f"{where} has labels of shape {array.shape}, type {array.dtype}: one a picture is needed.")
        if array.dtype.kind == "f":
            if not (array == np.round(array)).all():
                raise UserError(f"{where} has labels that are not whole numbers: those are values, not classes.")
            array = array.astype(np.int64)
        flat.append(array.astype(np.int64) if array.dtype.kind == "b" else array)
    joined = np.concatenate(flat)
    if names is not None and joined.dtype.kind in "iu":
        return joined.astype(np.int32), list(names)
    texts = [t.decode(errors="replace") if isinstance(t, bytes) else str(t) for t in joined.tolist()]
    classes = classes_in_order(set(texts))
    number = {name: i for i, name in enumerate(classes)}
    return np.array([number[text] for text in texts], np.int32), classes


def _pairs(keys: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return part -> (key of the pictures, key of the labels), for keys such as x_train, labels_val, test_images."""
    found: dict[str, dict[str, str]] = {}
    for key in keys:
        words = key.lower().split("_")
        meaning = [word for word in words if word in PICTURES + LABELS]
        part = [part_of(word) for word in words if part_of(word)]
        if len(meaning) == 1 and len(meaning) + len(part) == len(words):
            kind = "pictures" if meaning[0] in PICTURES else "labels"
            found.setdefault(part[0] if part else "", {}).setdefault(kind, key)
    return {part: (k["pictures"], k["labels"]) for part, k in found.items() if len(k) == 2}


def _eight_bits(array: np.ndarray, where: str) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "iuf":
        raise UserError(f"{where} is of type {array.dtype}; pictures are numbers.")
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():
        raise UserError(f"{where} holds values that are not numbers (NaN or infinite).")
    unit = array.dtype.kind == "f" and low >= 0 and high <= decode.UNIT
    scale = 255 if unit else 1 / 257 if array.dtype == np.uint16 and high > 255 else 1
    if low < 0 or (high * scale > 255.5 and not unit):
        raise UserError(f"{where} has values from {low:g} to {high:g}; pictures are 0..255, or floats 0..1.")
    out = np.empty(array.shape, np.uint8)
    for start in range(0, len(array), 1024):  # in pieces: as float32 the whole would take four times the space
        piece = array[start : start + 1024]
        out[start : start + 1024] = np.minimum(255, np.round(piece.astype(np.float32) * scale))
    return out
