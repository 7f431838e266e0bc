"""Ready-made deep-learning recipes on Keras 3 and TensorFlow: from data to a trained, measured, usable model.

    from dltoolkit.recipes import image_classifier
    run = image_classifier.train(image_classifier.Config(data="digits", epochs=5))
    print(run.metrics["test"]["accuracy"])

    import dltoolkit
    run = dltoolkit.load("latest")

Importing this package never imports TensorFlow.
"""

import importlib

__version__ = "0.1.0"

_PUBLIC = {
    "load": "saved_runs",
    "runs": "saved_runs",
    "resume": "saved_runs",
    "Run": "run",
    "Prediction": "evaluation.prediction",
    "UserError": "errors",
}


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"dltoolkit.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'dltoolkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return ["__version__", *_PUBLIC]
