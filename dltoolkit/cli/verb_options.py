"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Iterable

import click

import dltoolkit
from dltoolkit.errors import UserError

FLAGS = {"label": "class", "form": "format"}  # flags whose names are not those of the Python parameters

out_dir_option = click.option(
    "--out-dir", default="saved_models", show_default=True, metavar="DIR", help="Folder of the runs."
)
table_or_json_option = click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Output format."
)


def refuse_unsupported(run: dltoolkit.Run, names: Iterable[str], supported: Iterable[str]) -> None:
    """Raise a UserError for an option that the recipe of the run does not support."""
    for name in sorted(set(names) - set(supported)):
        flag = FLAGS.get(name, name.replace("_", "-"))
        raise UserError(f"--{flag} has no effect on a run of {run.info['recipe']}: leave it out.")
