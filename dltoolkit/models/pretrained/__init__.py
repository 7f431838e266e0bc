"""Pretrained networks of keras.applications and KerasHub."""

from dltoolkit.lazy import submodules

__getattr__, __dir__ = submodules(__name__, __path__)
