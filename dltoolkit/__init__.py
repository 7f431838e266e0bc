"""Ready-made deep-learning recipes on Keras 3 and TensorFlow: from data to a trained, measured, usable model.

    from dltoolkit.recipes import image_classifier
    run = image_classifier.train(image_classifier.Config(data="digits", epochs=5))
    print(run.metrics["test"]["accuracy"])

    import dltoolkit
    run = dltoolkit.load("latest")

Importing this package never imports TensorFlow.
"""

import importlib
import sys
from pathlib import Path

__version__ = "0.1.0"

_PUBLIC = {
    "load": "loading",
    "runs": "saved_runs",
    "resume": "saved_runs",
    "Run": "run",
    "Prediction": "evaluation.prediction",
    "Explanation": "explanation.explanation",
    "UserError": "errors",
}
__all__ = sorted(_PUBLIC)


class _RecipesOfClone:
    """Finder of ``dltoolkit.recipes`` in a clone, where the recipes are in a folder next to this package.

    Python imports this package from a clone if it is started in the root of the clone, even if dltoolkit is installed.
    """

    folder = Path(__file__).resolve().parents[1] / "recipes"

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None):
        """Return the specification of ``dltoolkit.recipes``, or None for any other module."""
        if name != f"{__name__}.recipes":
            return None
        from importlib.util import spec_from_file_location

        return spec_from_file_location(name, cls.folder / "__init__.py", submodule_search_locations=[str(cls.folder)])


if not Path(__file__).with_name("recipes").exists() and (_RecipesOfClone.folder / "__init__.py").exists():
    sys.meta_path.insert(0, _RecipesOfClone)  # first, so that the recipes are those of this clone and of no other


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"dltoolkit.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'dltoolkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return ["__version__", *_PUBLIC]
