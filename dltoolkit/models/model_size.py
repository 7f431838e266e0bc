"""Sizes of model files of any origin: what a file declares is compared with what it stores before memory is taken."""

from __future__ import annotations

import contextlib
import io
import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from dltoolkit import memory
from dltoolkit.errors import UserError

if TYPE_CHECKING:
    import h5py
    import keras

WEIGHTS_FILE = "model.weights.h5"
MAX_EXPANSION = 4  # size of weights in memory divided by that in the file, which may hold 8 bits for each of 32
MAX_CONFIG_BYTES = 10_000_000  # of a config.json in a folder; that of the largest networks has 10 kB
MAX_VOCABULARY_BYTES = 2**28  # of a file of a tokenizer in a folder; the largest ones have 40 MB
VOCABULARIES = (".json", ".model", ".spm", ".txt")  # suffixes of the files of tokenizers
MIN_LIMIT = 50_000_000  # bytes of weights that a network may have, however few the file stores
MAX_WEIGHTS = 10_000  # arrays of weights of a network; the largest networks of Keras have 2,000
MAX_TENSOR_BYTES = 2**30  # of the values that a layer computes for one example
MAX_ENTRIES = 1_000  # of a .keras file; Keras writes three, and the files of some layers
MAX_H5_OBJECTS = 60_000  # groups and arrays in an HDF5 file; the largest networks of Keras have 6,000
MAX_H5_DEPTH = 100  # of groups within each other; networks of KerasHub have 20
OPEN_SIDES = (512, 64, 8)  # sizes that are tried for sides of inputs that a model leaves open
BATCH = 2


class RefusedError(Exception):
    """A model file cannot be used. The message is a short reason."""


class SizeError(RefusedError):
    """A model file declares more than it stores. The message is a short reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"it would exhaust the memory: {reason}")


def is_compressed(archive: zipfile.ZipFile, size: int) -> bool:
    """Return whether entries of a .keras file of ``size`` bytes are compressed, which Keras never does."""
    return sum(entry.file_size for entry in archive.infolist()) > size


def check_archive(archive: zipfile.ZipFile, path: Path) -> int:
    """Return how many bytes of weights a .keras file stores.

    Raises:
        SizeError: If an entry of the file is compressed, which Keras never does, or its weights declare more than they
            store or are larger than the free memory.
        KeyError: If the file has no weights.
    """
    if len(archive.infolist()) > MAX_ENTRIES:
        raise SizeError(f"it has more than {MAX_ENTRIES:,} entries")
    if is_compressed(archive, path.stat().st_size):
        raise SizeError("its entries are compressed, which Keras never does")
    if (size := archive.getinfo(WEIGHTS_FILE).file_size) > (free := memory.available()):
        raise SizeError(f"its weights have {memory.describe(size)}, and {memory.describe(free)} are free")
    return check_h5(io.BytesIO(archive.read(WEIGHTS_FILE)))  # as Keras reads it; seeking in an archive takes long


def check_h5(file: Path | BinaryIO) -> int:
    """Return how many bytes the arrays in an HDF5 file take.

    Raises:
        SizeError: If an array has a size of which the file stores only a fraction, or the file has too many objects.
        RefusedError: If an array lies in another file or holds no numbers, or the file has links.
        OSError: If it is no HDF5 file.
    """
    import h5py

    total = count = 0
    with h5py.File(file, "r") as opened:
        groups = [(opened, 1)]
        while groups:
            group, depth = groups.pop()
            for name in group:
                count += 1
                if count > MAX_H5_OBJECTS or depth > MAX_H5_DEPTH:
                    raise SizeError(f"it has over {MAX_H5_OBJECTS:,} groups, or over {MAX_H5_DEPTH} within each other")
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise RefusedError("a part of its weights is a link to another place or file")
                entry = group[name]
                if isinstance(entry, h5py.Dataset):
                    total += _array_size(entry)
                else:
                    groups.append((entry, depth + 1))
    return total


def _array_size(array: h5py.Dataset) -> int:
    """Return how many bytes an array in an HDF5 file takes; see :func:`check_h5` for the errors."""
    if array.external or array.is_virtual:
        raise RefusedError("an array lies in another file")
    if array.dtype.kind not in "biufV" or array.dtype.names:  # V is bfloat16
        raise RefusedError("an array holds values that are no real numbers")
    stored, declared = array.id.get_storage_size(), math.prod(array.shape or ()) * array.dtype.itemsize
    if declared > max(MAX_EXPANSION * stored, 1_000):
        raise SizeError(f"an array of {memory.describe(declared)} of which {stored:,} bytes are stored")
    return declared


@contextlib.contextmanager
def limited_weights(stored: int) -> Iterator[None]:
    """Raise a SizeError inside the block before a layer creates more weights than a file of ``stored`` bytes has.

    The size of a file is no size of its contents if it has holes, so the weights must also fit into the free memory.
    Other threads may create layers meanwhile.
    """
    import keras

    from dltoolkit.models import keras_internals

    limit, free = max(MIN_LIMIT, MAX_EXPANSION * stored), max(MIN_LIMIT, memory.available())
    size = count = 0

    def add_weight(original: Callable[..., Any], *args: Any, **options: Any) -> keras.Variable:
        nonlocal size, count
        shape = options.get("shape", args[1] if args[1:] else ()) or ()
        size, count = size + 4 * math.prod(side for side in shape if isinstance(side, int)), count + 1
        if size > min(limit, free):
            bound = f"but {stored:,} bytes are stored" if size > limit else f"and {memory.describe(free)} are free"
            raise SizeError(f"its layers have {memory.describe(size)} of weights, {bound}")
        if count > MAX_WEIGHTS:
            raise SizeError(f"its layers have more than {MAX_WEIGHTS:,} arrays of weights")
        return original(*args, **options)

    with keras_internals.replaced_method(keras.layers.Layer, "add_weight", add_weight):
        yield


def check_tensors(model: keras.Model, shape: Sequence[int] | None = None) -> None:
    """Raise an error if a model computes an unusual amount of values, or not one output for each example.

    Args:
        model: The model.
        shape: Shape of its inputs, without the batch; None to try several sizes for sides that the model leaves open.

    Raises:
        SizeError: If a layer computes an unusual amount of values for one example.
        RefusedError: If the outputs for a batch are fewer or more than its examples.
    """
    import keras

    from dltoolkit.models import keras_internals

    def check(name: str, tensor: keras.KerasTensor) -> None:
        size = 4 * math.prod(side for side in tensor.shape if side) // BATCH
        if size > MAX_TENSOR_BYTES:
            raise SizeError(f"its layer {name} computes {memory.describe(size)} for one example")

    for part in keras_internals.all_layers(model):
        if isinstance(part, keras.Model) and hasattr(part, "_nodes_by_depth"):
            for node in keras_internals.graph_nodes(part):
                for tensor in node.outputs:
                    check(node.operation.name, tensor)
    for size in OPEN_SIDES if shape is None else [shape]:
        inputs = []
        for tensor in model.inputs:
            sides = [size] * len(tensor.shape[1:]) if isinstance(size, int) else size
            filled = [side if each is None else each for each, side in zip(tensor.shape[1:], sides, strict=True)]
            inputs.append(keras.KerasTensor([BATCH, *filled], tensor.dtype))
        try:
            outputs = keras_internals.output_specs(model, inputs, check)
        except RefusedError:
            raise
        except Exception:  # of layers that take inputs up to a size
            continue
        if any(output.shape[:1] != (BATCH,) for output in outputs):
            raise RefusedError("it does not compute one output for each example")
        return
    raise RefusedError("its layers do not fit each other")


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
        except RefusedError as error:
            raise refused(path, error) from None


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
            elif path.suffix in VOCABULARIES:
                limit = MAX_CONFIG_BYTES if path.name.endswith("config.json") else MAX_VOCABULARY_BYTES
                if size > limit:
                    raise SizeError(f"{path.name} has more than {memory.describe(limit)}")
        with limited_weights(stored):
            yield
    except RefusedError as error:
        raise refused(folder, error) from None


def refused(path: Path, error: RefusedError) -> UserError:
    """Return the error for a file or folder of a model that cannot be used."""
    return UserError(f"{path} was not loaded, because {error}.")
