"""The verb that explains answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import dltoolkit
from dltoolkit import display, recipe
from dltoolkit.cli.tables import print_json
from dltoolkit.cli.verb_options import out_dir_option, recipe_option
from dltoolkit.errors import UserError
from dltoolkit.files import atomic_write, user_path
from dltoolkit.formatting import counted

if TYPE_CHECKING:
    from dltoolkit.explanation.explanation import Explanation

FOLDER, PAGE = "explanations", "explanations.html"  # where the page is written by default


@click.command(epilog="Example: dltoolkit explain latest photo.jpg --class bee")
@click.argument("run")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--method", default="auto", show_default=True, metavar="NAME", help="Method of explanation.")
@click.option("--class", "label", metavar="NAME", help="Class to explain.  [default: the most probable one]")
@click.option(
    "--format", "form", type=click.Choice(["html", "json"]), default="html", show_default=True, help="Output format."
)
@click.option("--out", metavar="DIR", help="Folder of the page.  [default: explanations]")
@click.option("--text", "meaning", flag_value="text", help="Read each INPUT as a text, even if it names a file.")
@click.option("--files", "meaning", flag_value="file", help="Read each INPUT as the name of a file.")
@recipe_option
@out_dir_option
def explain(
    run: str,
    inputs: tuple[str, ...],
    form: str,
    out: str | None,
    meaning: str | None,
    recipe_file: str | None,
    out_dir: str,
    **options: Any,
) -> int:
    """Explain why RUN answers so: which pixels or words speak for a class, and which against it.

    RUN is a run or an export. Each INPUT is a file, a folder, a glob, or a text. html writes one page about all inputs,
    and json prints the values.

    An input that cannot be read has a row with its error, the others are explained, and the exit code is 2.
    """
    if out is not None and form == "json":
        raise UserError("--out has no effect with --format=json, which prints to stdout: leave it out.")
    opened = dltoolkit.load(run, out_dir, recipe=None if recipe_file is None else recipe.load(recipe_file))
    from dltoolkit import progress  # imports Rich, which takes a noticeable part of the time of --help

    explainer = opened.explainer
    items = explainer.predictor.expand(inputs, None, meaning or "auto")
    with progress.phase("Explaining"):
        explanations = list(explainer.stream(items, **options))
    if form == "json":
        print_json([each.to_json() for each in explanations])
    else:
        click.echo(_write(explanations, user_path(out or FOLDER), str(run)))
    return 2 if any(each.error is not None for each in explanations) else 0


def _write(explanations: Sequence[Explanation], folder: Path, title: str) -> str:
    """Write the page and return a sentence about it."""
    from dltoolkit.explanation import page

    with atomic_write(path := folder / PAGE) as partial:
        partial.write_text(page.render(explanations, title=title), encoding="utf-8")
    failed = [each for each in explanations if each.error is not None]
    notes = f", {counted(len(failed), 'input')} not explained" if failed else ""
    return f"{counted(len(explanations) - len(failed), 'explanation')} in {display.visible(path)}{notes}"
