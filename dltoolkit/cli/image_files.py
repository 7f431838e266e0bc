"""Generated images as files: a folder of PNGs, a grid and an animation."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from dltoolkit import display
from dltoolkit.errors import UserError
from dltoolkit.files import user_path
from dltoolkit.formatting import counted

if TYPE_CHECKING:
    import numpy as np


def write(images: np.ndarray, folder: str, *, grid: bool, animated: bool) -> str:
    """Write images to a folder as PNGs and return a sentence about it.

    Args:
        images: uint8 (n, height, width, channels).
        folder: Folder to create or to add to.
        grid: Whether to write all images to ``grid.png`` too.
        animated: Whether to write ``interpolation.gif``, with a frame for each image.

    Raises:
        UserError: If the disk is full or the folder cannot be written; no partial results remain.
    """
    from dltoolkit.report import image_grids

    path, digits = user_path(folder), max(4, len(str(len(images))))
    pages = {}
    if grid:
        pages["grid.png"] = image_grids.image_grid(images, max_images=len(images))
    if animated:
        frames = [image_grids.image_grid(images[[i]]) for i in range(len(images))]
        pages["interpolation.gif"] = image_grids.animation(frames, max_frames=len(images))

    def write_png(number: int) -> None:
        with open(f"{partial}/{number + 1:0{digits}}.png", "wb", buffering=0) as file:
            file.write(image_grids.png(images[number]))

    with _partial_folder(path) as partial, ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(write_png, range(len(images))))
        for name, content in pages.items():
            (partial / name).write_bytes(content)
    return f"{counted(len(images), 'image')} in {display.visible(path)}" + (
        f", with {' and '.join(pages)}" if pages else ""
    )


@contextlib.contextmanager
def _partial_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder, and move its files into ``folder`` if the block succeeds."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        yield partial
        if not folder.exists():
            partial.rename(folder)
        for file in partial.iterdir() if partial.exists() else ():
            file.replace(folder / file.name)
    except OSError as error:
        raise UserError(f"Cannot write images to {folder}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
