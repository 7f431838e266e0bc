"""``python -m dltoolkit``: the same as the ``dltoolkit`` command."""

from dltoolkit.cli.app import main

main()
