"""Labeled images: reading, decoding, augmentation and batches."""

from dltoolkit.lazy import submodules

__getattr__, __dir__ = submodules(__name__, __path__)
