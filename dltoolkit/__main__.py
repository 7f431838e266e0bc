"""``python -m dltoolkit``: the same as the ``dltoolkit`` command."""

from dltoolkit.cli import main

main()
