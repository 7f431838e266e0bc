"""Readers, one for each kind of source: folders, tables, Keras data sets and TensorFlow Datasets."""

from dltoolkit.lazy import submodules

__getattr__, __dir__ = submodules(__name__, __path__)
