"""Data sources, splits and tf.data pipelines."""

from dltoolkit.lazy import submodules

__getattr__, __dir__ = submodules(__name__, __path__)
