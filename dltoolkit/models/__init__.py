"""Network families as plain Keras functional models: raw inputs in, logits out."""

from dltoolkit.lazy import submodules

__getattr__, __dir__ = submodules(__name__, __path__)
