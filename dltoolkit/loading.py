"""Open what training has left: a run or an export of it."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

from dltoolkit import display, export, saved_runs
from dltoolkit.errors import UserError
from dltoolkit.files import user_path
from dltoolkit.run import Run


def load(
    run: str | Path, out_dir: str | Path = "saved_models", *, recipe: ModuleType | None = None
) -> Run | export.exported.Export:
    """Open a run by its path, ``RECIPE/NAME``, a unique NAME, or ``latest``; or an export of a run by its path.

    Args:
        run: The run or the export.
        out_dir: Folder of the runs.
        recipe: The module of a recipe file of your own that the run was trained with. A run never says itself which
            code to execute, so that a run from somebody else is data.

    Raises:
        RunNotFound: If there is no such run; the message suggests the most similar name.
        UserError: If several runs have the name, a file is damaged, or it has another format than this version reads.
    """
    path = user_path(run)
    if recipe is None and export.folder.is_export(path):
        opened = export.exported.Export.open(path)
        opened.warn()
        return opened
    if recipe is None and not os.path.isfile(path / "run.json") and (near := export.folder.exports_near(path)):
        raise UserError(f"{run} is not the folder of an export: give {' or '.join(map(display.quote, near))}.")
    return saved_runs.load(run, out_dir, recipe=recipe)
