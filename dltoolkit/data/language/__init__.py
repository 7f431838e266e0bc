"""Plain-text corpora for language models: tokenizers, splits and windows."""

from dltoolkit.lazy import submodules

__getattr__, __dir__ = submodules(__name__, __path__)
