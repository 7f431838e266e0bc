"""The training loop, optimizers, checkpoints and the time budget."""

from dltoolkit.lazy import submodules

__getattr__, __dir__ = submodules(__name__, __path__)
