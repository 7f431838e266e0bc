"""Sizes of model files of any origin: what a file declares is compared with what it stores before memory is taken."""

from __future__ import annotations

import contextlib
import math
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from dltoolkit import memory
from dltoolkit.errors import UserError

if TYPE_CHECKING:
    import keras

WEIGHTS_FILE = "model.weights.h5"
MAX_EXPANSION = 4  # size of weights in memory divided by that in the file, which may hold 8 bits for each of 32
MAX_CONFIG_BYTES = 10_000_000  # of a config.json in a folder; that of the largest networks has 10 kB
MIN_LIMIT = 50_000_000  # bytes of weights that a network may have, however few the file stores
MAX_WEIGHTS = 10_000  # arrays of weights of a network; the largest networks of Keras have 2,000
MAX_TENSOR_BYTES = 2**30  # of the values that a layer computes for one example


class SizeError(Exception):
    """A model file declares more than it stores. The message is a short reason."""


def check_archive(archive: zipfile.ZipFile, path: Path) -> int:
    """Return how many bytes of weights a .keras file stores.

    Raises:
        SizeError: If an entry of the file is compressed, which Keras never does, or its weights declare more than they
            store.
        KeyError: If the file has no weights.
    """
    if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
        raise SizeError("its entries are compressed, which Keras never does")
    with archive.open(WEIGHTS_FILE) as file:
        return check_h5(file)


def check_h5(file: Path | BinaryIO) -> int:
    """Return how many bytes the arrays in an HDF5 file take.

    Raises:
        SizeError: If an array has a size of which the file stores only a fraction, or lies in another file.
        OSError: If it is no HDF5 file.
    """
    import h5py

    total = 0

    def check(name: str, entry: Any) -> None:
        nonlocal total
        if isinstance(entry, h5py.Dataset):
            stored, declared = entry.id.get_storage_size(), math.prod(entry.shape or ()) * entry.dtype.itemsize
            if entry.external or entry.is_virtual:
                raise SizeError("an array lies in another file")
            if declared > max(MAX_EXPANSION * stored, 1_000):
                raise SizeError(f"an array of {memory.describe(declared)} of which {stored:,} bytes are stored")
            total += declared

    with h5py.File(file, "r") as opened:
        opened.visititems(check)
    return total


@contextlib.contextmanager
def limited_weights(stored: int) -> Iterator[None]:
    """Raise a SizeError inside the block before a layer creates more weights than a file of ``stored`` bytes has.

    Other threads may create layers meanwhile.
    """
    import keras

    limit, thread = max(MIN_LIMIT, MAX_EXPANSION * stored), threading.get_ident()
    original, size, count = keras.layers.Layer.add_weight, 0, 0

    def add_weight(self: keras.layers.Layer, *args: Any, **options: Any) -> keras.Variable:
        nonlocal size, count
        if threading.get_ident() == thread:
            shape = options.get("shape", args[0] if args else ()) or ()
            size, count = size + 4 * math.prod(side for side in shape if isinstance(side, int)), count + 1
            if size > limit:
                raise SizeError(f"its layers have {memory.describe(size)} of weights, but {stored:,} bytes are stored")
            if count > MAX_WEIGHTS:
                raise SizeError(f"its layers have more than {MAX_WEIGHTS:,} arrays of weights")
        return original(self, *args, **options)

    keras.layers.Layer.add_weight = add_weight
    try:
        yield
    finally:
        keras.layers.Layer.add_weight = original


def check_tensors(model: keras.Model) -> None:
    """Raise a SizeError if a layer computes an unusual amount of values for one example, as far as shapes are known."""
    import keras

    from dltoolkit.models import keras_internals

    for part in keras_internals.all_layers(model):
        if not isinstance(part, keras.Model) or not hasattr(part, "_nodes_by_depth"):
            continue
        for node in keras_internals.graph_nodes(part):
            for tensor in node.outputs:
                size = 4 * math.prod(side for side in tensor.shape[1:] if side)
                if size > MAX_TENSOR_BYTES:
                    raise SizeError(f"its layer {node.operation.name} computes {memory.describe(size)} for one example")


def check_weights_file(path: Path) -> None:
    """Raise a UserError if a file of weights, .h5 or .keras, declares more than it stores.

    A file that is damaged is left to Keras, which says so.
    """
    with contextlib.suppress(OSError, KeyError, ValueError, zipfile.BadZipFile):
        try:
            if path.suffix == ".keras":
                with zipfile.ZipFile(path) as archive:
                    check_archive(archive, path)
            else:
                check_h5(path)
        except SizeError as error:
            raise too_large(path, error) from None


@contextlib.contextmanager
def limited_to_folder(folder: Path) -> Iterator[None]:
    """Raise a UserError inside the block before a layer creates more weights than the files of a folder store."""
    try:
        stored = 0
        for path in sorted(folder.rglob("*")):
            size = path.stat().st_size if path.is_file() else 0
            if path.suffix == ".h5":
                check_weights_file(path)
                stored += size
            elif path.suffix == ".safetensors":
                stored += size
            elif path.name.endswith("config.json") and size > MAX_CONFIG_BYTES:
                raise SizeError(f"{path.name} has more than {MAX_CONFIG_BYTES // 1_000_000} MB")
        with limited_weights(stored):
            yield
    except SizeError as error:
        raise too_large(folder, error) from None


def too_large(path: Path, error: SizeError) -> UserError:
    """Return the error for a file that declares more than it stores."""
    return UserError(f"{path} was not loaded, because it would exhaust the memory: {error}.")
