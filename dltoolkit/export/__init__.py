"""Export of a run to a file that another runtime answers from, and the answers from such a file."""

from dltoolkit.lazy import submodules

__getattr__, __dir__ = submodules(__name__, __path__)
