"""Every source of labelled pictures brought to one form: a listing of files, encoded bytes or arrays."""

import os
from pathlib import Path

import numpy as np

from dltoolkit.data import disk_cache as store
from dltoolkit.data.image import arrays, decode
from dltoolkit.data.options import ImageReadOptions
from dltoolkit.data.readers import catalog as catalogue
from dltoolkit.data.readers import listing, tables
from dltoolkit.data.readers import tfds as published
from dltoolkit.data.readers.listing import LABEL_COLUMNS, Kind, Listing
from dltoolkit.data.readers.source import File, Source
from dltoolkit.errors import UserError

IMAGE_COLUMNS = ("image", "file", "filename", "file_name", "path", "image_path", "filepath", "img")
PICTURES = Kind(
    "picture",
    decode.SUFFIXES,
    (".heic", ".heif", ".avif", ".svg", ".psd", ".raw", ".cr2", ".nef", ".dng", ".jp2", ".jxl"),
)


def list_pictures(
    source: Source,
    read: ImageReadOptions,
    *,
    labeled: bool = True,
    progress: decode.Progress | None = None,
) -> Listing:
    """List the pictures of any source with their labels; of a folder without class folders only if not ``labelled``.

    Raises:
        UserError: if it holds none, or is not a source of pictures.
    """
    if source.kind == "folder":
        return listing.from_folder(source, PICTURES, labeled=labeled)
    if source.kind == "table":
        return listing.from_tables(
            source,
            PICTURES,
            read,
            lambda table: _columns(table, read.image_column, read.label_column),
            _picture,
        )
    if source.kind == "npz":
        return _from_arrays(source, arrays.read_npz(source.path), None)
    if source.kind == "bundled" and source.reference == "digits":
        return _from_arrays(source, arrays.digits(), None)
    if source.kind == "keras":
        parts = published.keras_set(source.reference)
        pixels = {part: (arrays.to_pixels(x, source.said), y) for part, (x, y) in parts.items()}
        return _from_arrays(source, pixels, catalogue.KERAS_NAMES[source.reference])
    if source.kind == "tfds":
        return _from_tfds(source, published.tfds_set(source.reference, "picture", progress), progress)
    raise UserError(f"{source.said} holds text, not pictures: give --data a folder of class folders with pictures.")


def _columns(table: tables.Table, image: str | None, label: str | None) -> tuple[str, str]:
    """Return the names of the two columns; in a table without names, that of the pictures is known by its cells."""
    names = list(table.columns)
    if table.unnamed:
        first = {name: str(cells[0]) for name, cells in table.columns.items()}
        with_suffix = [name for name in names if Path(first[name]).suffix.lower() in decode.SUFFIXES]
        if image is None and len(with_suffix) == 1:
            image = with_suffix[0]
        rest = [name for name in names if name != image]
        if label is None and image in names and len(rest) == 1:
            label = rest[0]
    return table.find(image, IMAGE_COLUMNS, "image"), table.find(label, LABEL_COLUMNS, "label")


def _picture(cell: object, folder: Path, name: str) -> tuple[str, decode.Picture | None]:
    """Return name and picture of a table's cell: a path relative to the table's ``folder``, or the encoded bytes."""
    if isinstance(cell, dict):  # the way Hugging Face stores pictures in Parquet
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes):
        return name, cell
    text = "" if cell is None else str(cell).strip()
    if not text:
        return name, None
    path = folder / os.path.expanduser(text)
    try:
        status = path.stat()
    except (OSError, ValueError):
        return str(path), File(str(path), 0, 0)
    return str(path), File(str(path), status.st_size, status.st_mtime_ns)


def _from_arrays(source: Source, parts: arrays.Parts, names: list[str] | None) -> Listing:
    for part, (pictures, labels) in parts.items():
        if len(pictures) != len(labels):
            raise UserError(f"{source.said}: {len(pictures)} pictures but {len(labels)} labels {part}".rstrip() + ".")
    shapes = {pictures.shape[1:] for pictures, _ in parts.values()}
    if len(shapes) > 1:
        listed = " and ".join(map(str, sorted(shapes)))
        raise UserError(f"{source.said} has splits of different picture shapes: {listed}.")
    labels, classes = arrays.to_codes([labels for _, labels in parts.values()], names, source.said)
    pictures = [pictures for pictures, _ in parts.values()]
    return Listing(
        names=[
            f"{source.name}/{part}[{i}]".replace("/[", "[") for part, (x, _) in parts.items() for i in range(len(x))
        ],
        labels=labels,
        classes=classes,
        items=np.concatenate(pictures) if len(pictures) > 1 else pictures[0],
        parts=listing.part_numbers([part for part, (x, _) in parts.items() for _ in range(len(x))]),
        warnings=list(source.warnings),
    )


def _from_tfds(source: Source, prepared: published.Prepared, progress: decode.Progress | None) -> Listing:
    splits, warnings = listing.tfds_splits(source, prepared.splits)
    sizes = dict(prepared.splits)
    total = sum(sizes[split] for split in splits.values())
    shape = prepared.shape
    decoded = shape is not None and shape[-1] in (1, 3) and total * int(np.prod(shape)) <= 2**29
    pixels = store.room((total, *shape)) if decoded else None
    labels = np.empty(total, np.int64)
    place = 0
    for split in splits.values():
        for batch, batch_labels in prepared.batches(split, contents=decoded, decoded=decoded):
            end = place + len(batch_labels)
            labels[place:end] = batch_labels
            if decoded:
                pixels[place:end] = batch
            place = end
            if progress:
                progress(f"Reading {source.name}", place, total)
    return listing.from_tfds(
        source,
        PICTURES,
        prepared,
        splits,
        labels,
        pixels if decoded else published.Encoded(prepared, list(splits.values()), np.ones(total, bool)),
        warnings=warnings,
        stamp=f"{prepared.builder.data_path} {list(splits.values())}",
    )
