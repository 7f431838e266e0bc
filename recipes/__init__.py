"""The recipes, one readable file each; the folder's listing is the list."""

from dltoolkit import lazy

__getattr__, __dir__ = lazy.submodules(__name__, __path__)
