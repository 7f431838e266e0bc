"""Listings of labeled images from every kind of source, as files, encoded bytes or arrays."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from dltoolkit.data import disk_cache
from dltoolkit.data.image import decode
from dltoolkit.data.image.arrays import with_channels
from dltoolkit.data.image.scale import MAX_UNIT_VALUE, is_8_bit
from dltoolkit.data.options import ImageReadOptions
from dltoolkit.data.readers import archives, arrays, catalog, columns, keras_datasets, listing, objects, tables, tfds
from dltoolkit.data.readers.arrays import SplitArrays
from dltoolkit.data.readers.file_names import FileFinder
from dltoolkit.data.readers.folders import File
from dltoolkit.data.readers.listing import ExampleType, Listing
from dltoolkit.data.readers.source import VIDEO_SUFFIXES, Source
from dltoolkit.errors import UserError

IMAGES = ExampleType(
    "image",
    decode.SUFFIXES,
    unsupported=(
        *(".heic", ".heif", ".avif", ".svg", ".psd", ".raw", ".cr2", ".nef", ".dng", ".jp2", ".jxl", ".pdf"),
        *VIDEO_SUFFIXES,
    ),
)
MAX_DECODED_BYTES = 2**29  # bytes; larger TFDS data sets are read as encoded images instead of pixels


@archives.names_archive
def list_images(
    source: Source, read: ImageReadOptions, *, labeled: bool = True, progress: decode.Progress | None = None
) -> Listing:
    """List the images of any source with their labels.

    Args:
        source: The source.
        read: Options for reading.
        labeled: Whether a folder must have class folders.
        progress: Function that is called with the task, the number of processed images and the total.

    Raises:
        UserError: If the source contains no labeled images, or cannot be read.
    """
    if source.kind == "folder":
        return listing.from_folder(source, IMAGES, labeled=labeled, label_pattern=read.label_pattern)
    if source.kind in ("table", "object"):
        contents = objects.read(source, "image", labeled=labeled) if source.kind == "object" else ()
        if isinstance(contents, dict):
            return _from_arrays(source, contents)
        return listing.from_tables(
            source, IMAGES, read, lambda table: _find_columns(table, read), _cell_parser(), contents
        )
    if source.kind == "npz":
        return _from_arrays(source, *arrays.read_npz(source.path))
    if source.kind == "bundled" and source.reference == "digits":
        return _from_arrays(source, arrays.digits())
    if source.kind == "keras":
        splits = keras_datasets.load(source.reference)
        return _from_arrays(source, splits, catalog.KERAS_CLASSES[source.reference])
    if source.kind == "tfds":
        return _from_tfds(source, tfds.prepare(source.reference, "image", progress), progress)
    raise UserError(f"{source.spec} contains text instead of images: give --data a folder of class folders of images.")


def _find_columns(table: tables.Table, read: ImageReadOptions) -> tuple[str, str]:
    """Return the columns of the images and the labels; without a header, suffixes identify the images."""
    image, label, names = read.image_column, read.label_column, list(table.columns)
    if table.unnamed:
        first = {name: str(cells[0]) for name, cells in table.columns.items()}
        with_suffix = [name for name in names if Path(first[name]).suffix.lower() in decode.SUFFIXES]
        if image is None and len(with_suffix) == 1:
            image = with_suffix[0]
        others = [name for name in names if name != image]
        if label is None and image in names and len(others) == 1:
            label = others[0]
    return table.find(image, tables.IMAGE_COLUMNS, "image"), columns.find_label(table, label, tables.LABEL_COLUMNS)


def _cell_parser() -> Callable[[object, Path, str], tuple[str, Any]]:
    """Return :func:`_parse_cell` with an index of the files that is made once for a table."""
    return functools.partial(_parse_cell, FileFinder(decode.SUFFIXES))


def _parse_cell(
    finder: FileFinder, cell: object, folder: Path, name: str
) -> tuple[str, File | bytes | np.ndarray | None]:
    """Return the name and the image of a cell: a path relative to the table's ``folder``, encoded bytes or pixels."""
    if isinstance(cell, Image.Image):
        return name, _pixels(cell)
    if hasattr(cell, "__array__") and np.ndim(cell):
        return name, np.asarray(cell)
    if isinstance(cell, dict):  # Hugging Face stores images in Parquet like this
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes):
        return name, cell
    text = "" if cell is None or cell != cell else str(cell).strip()  # NaN differs from itself
    if not text:
        return name, None
    path = finder.find(text, folder)
    try:
        status = path.stat()
    except (OSError, ValueError):
        return str(path), File(str(path), 0, 0)
    return str(path), File(str(path), status.st_size, status.st_mtime_ns)


def _pixels(image: Image.Image) -> np.ndarray:
    """Return a Pillow image as an array (h, w) or (h, w, c), upright and without a palette."""
    image = ImageOps.exif_transpose(image)
    if image.mode in ("P", "PA", "LA", "La", "RGBa"):
        image = image.convert("RGBA")
    elif image.mode in ("CMYK", "YCbCr", "LAB", "HSV", "RGBX"):
        image = image.convert("RGB")
    return np.asarray(image)


def _from_arrays(
    source: Source, splits: SplitArrays, classes: list[str] | None = None, warnings: Sequence[str] = ()
) -> Listing:
    images = {split: with_channels(array, f"{source.spec} {split}".rstrip()) for split, (array, _) in splits.items()}
    for split, (_, labels) in splits.items():
        if len(images[split]) != len(labels):
            prefix = f"{split} " if split else ""
            raise UserError(
                f"{source.spec} has {len(images[split])} {prefix}images but {len(labels)} {prefix}labels: give one per "
                "image."
            )
    shapes = {array.shape[1:] for array in images.values()}
    if len(shapes) > 1:
        raise UserError(
            f"{source.spec} has splits of different image shapes: {' and '.join(map(str, sorted(shapes)))}."
        )
    indices, classes, of_labels = arrays.class_indices([labels for _, labels in splits.values()], classes, source.spec)
    rows = [(split, i) for split, array in images.items() for i in range(len(array))]
    return Listing(
        names=[f"{source.name}/{split}[{i}]" if split else f"{source.name}[{i}]" for split, i in rows],
        labels=indices,
        classes=classes,
        items=_joined(images, source.spec),
        splits=listing.split_indices([split for split, _ in rows]),
        warnings=[*source.warnings, *warnings, *of_labels],
    )


def _joined(images: dict[str, np.ndarray], spec: str) -> np.ndarray | list[np.ndarray]:
    """Return images of all splits as one array, or as one array per image if the splits are of different types.

    Raises:
        UserError: If some splits have values up to 1 and others greater ones, so that no scale fits both.
    """
    arrays = list(images.values())
    if len({array.dtype for array in arrays}) > 1:
        highest = {split: _greatest(array) for split, array in images.items() if not is_8_bit(array)}
        low, high = min(highest, key=highest.get, default=""), max(highest, key=highest.get, default="")
        if highest and highest[low] <= MAX_UNIT_VALUE < highest[high]:
            raise UserError(
                f"The {low} images of {spec} have values up to {highest[low]:g} ({images[low].dtype}), but the {high} "
                f"images up to {highest[high]:g} ({images[high].dtype}): store both on one scale."
            )
        return [image for array in arrays for image in array]
    return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]


def _greatest(array: np.ndarray) -> float:
    """Return the greatest finite value."""
    return float(array.max(where=np.isfinite(array), initial=-np.inf) if array.dtype.kind == "f" else array.max())


def _from_tfds(source: Source, dataset: tfds.PreparedDataset, progress: decode.Progress | None) -> Listing:
    splits, warnings = listing.select_tfds_splits(source, dataset.split_sizes)
    names, sizes = list(splits.values()), dict(dataset.split_sizes)
    total = sum(sizes[name] for name in names)
    shape = dataset.shape
    decoded = shape is not None and shape[-1] in (1, 3) and total * int(np.prod(shape)) <= MAX_DECODED_BYTES
    pixels = disk_cache.aligned_empty((total, *shape)) if decoded else None
    labels = np.empty(total, np.int64)
    start = 0
    for name in names:
        for images, batch_labels in dataset.batches(name, contents=decoded, decoded=decoded):
            end = start + len(batch_labels)
            labels[start:end] = batch_labels
            if decoded:
                pixels[start:end] = images
            start = end
            if progress:
                progress(f"Reading {source.name}", start, total)
    return listing.from_tfds(
        source,
        IMAGES,
        dataset,
        splits,
        labels,
        pixels if decoded else tfds.EncodedImages(dataset, names, np.ones(total, bool)),
        warnings=warnings,
        cache_key=f"{dataset.builder.data_path} {names}",
    )
