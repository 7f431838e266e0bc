"""Finished runs made without training, for tests that continue from a run."""

from pathlib import Path
from types import ModuleType
from typing import Any

import keras

from dltoolkit.run import Run


def finished_run(recipe: ModuleType, out_dir: Path, name: str, model: keras.Model, **info: Any) -> Run:
    """Return a finished run of a recipe that holds an untrained model.

    Args:
        recipe: The recipe's module.
        out_dir: Folder of the runs.
        name: Name of the run.
        model: The model.
        info: Further entries of run.json.
    """
    run = Run.create(recipe.__file__, recipe.Config(out_dir=str(out_dir), name=name), name)
    run.save_model(model)
    run.update(state="finished", **info)
    return run
