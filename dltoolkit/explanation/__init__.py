"""Explanations: which pixels or words an answer rests on, and a figure for how far to believe that."""

from dltoolkit.lazy import submodules

__getattr__, __dir__ = submodules(__name__, __path__)
