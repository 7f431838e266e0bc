"""The command line."""

from dltoolkit.cli.app import main

__all__ = ["main"]
