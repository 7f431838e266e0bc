"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click

import dltoolkit
from dltoolkit import config, display, export, recipe, saved_runs
from dltoolkit.answers import Answers
from dltoolkit.data.options import ImageReadOptions, TextReadOptions
from dltoolkit.errors import UserError
from dltoolkit.files import user_path

FLAGS = {"label": "class", "form": "format"}  # flags whose names are not those of the Python parameters

out_dir_option = click.option(
    "--out-dir", default="saved_models", show_default=True, metavar="DIR", help="Folder of the runs."
)
table_or_json_option = click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Output format."
)

recipe_option = click.option(
    "--recipe", "recipe_file", metavar="FILE", help="Recipe file of your own that RUN was trained with."
)


def open_run(run: str, out_dir: str, recipe_file: str | None = None) -> dltoolkit.Run:
    """Open the run that the command line names, with the recipe file of ``--recipe``, which is executed.

    Raises:
        UserError: If there is no such run, or it is an export.
    """
    if export.folder.is_export(user_path(run)):
        raise UserError(f"{run} is an export, which only predict, generate and explain take: give the run.")
    return saved_runs.load(run, out_dir, recipe=None if recipe_file is None else recipe.load(recipe_file))


def open_for_answers(run: str, out_dir: str, recipe_file: str | None) -> Answers:
    """Open the run or the export that the command line names; an export of a run answers in its place, and is named."""
    opened = dltoolkit.load(run, out_dir, recipe=None if recipe_file is None else recipe.load(recipe_file))
    if recipe_file is not None or not isinstance(opened, dltoolkit.Run):
        return opened
    answering = export.exported.of_run(opened)
    if answering is None:
        return opened
    from dltoolkit import progress  # imports Rich, which takes a noticeable part of the time of --help

    progress.note(f"Answering from {answering.path}, which answers as the run does.")
    return answering


def read_options(command: Callable) -> Callable:
    """Add the options for reading labeled data that the recipes share, with the help that the recipes give."""
    options = config.options(ImageReadOptions) | config.options(TextReadOptions)
    del options["resize"]  # images are resized as in training
    for option in reversed(options.values()):
        flag = option.flag
        if option.kind is bool:
            names, metavar = [f"{flag}/{option.no_flag}" if option.optional else flag], None
        else:
            names, metavar = [flag], "TEXT"
        is_flag = option.kind is bool
        command = click.option(*names, default=None, metavar=metavar, is_flag=is_flag, help=option.help)(command)
    return command


def refuse_unsupported(run: Answers, names: Iterable[str], supported: Iterable[str]) -> None:
    """Raise a UserError for an option that the recipe of the run does not support."""
    for name in sorted(set(names) - set(supported)):
        flag = FLAGS.get(name, name.replace("_", "-"))
        raise UserError(f"--{flag} has no effect on a run of {run.info['recipe']}: leave it out.")


def help_command(context: click.Context) -> str:
    """Return the command that prints the help of a verb or of a recipe, such as a file whose name holds a space."""
    words = []
    while context is not None:
        words.insert(0, context.info_name)
        context = context.parent
    return display.command(*words, "--help")
