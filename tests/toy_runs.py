"""Finished runs made without training, and random weights, for tests that continue from a run."""

from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np

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


def randomize(model: keras.Model, scale: float = 0.1) -> keras.Model:
    """Add noise to all weights, so that none has its initial value."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.dtype == "float32":
            value = variable + scale * rng.normal(size=variable.shape)
            variable.assign(np.abs(value) if "variance" in variable.path else value)
    return model
