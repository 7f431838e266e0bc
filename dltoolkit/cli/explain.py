"""The verb that explains answers."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import dltoolkit
from dltoolkit import display, recipe
from dltoolkit.cli.tables import print_json
from dltoolkit.cli.verb_options import out_dir_option, recipe_option, refuse_unsupported
from dltoolkit.errors import UserError
from dltoolkit.files import atomic_write, user_path
from dltoolkit.formatting import counted

if TYPE_CHECKING:
    from dltoolkit.answers import Answers
    from dltoolkit.evaluation.prediction import Prediction
    from dltoolkit.explanation.explanation import Explanation

TOP_WORDS = 10  # words that a prediction lists
SHOWN_ERRORS = 3  # inputs whose reasons are printed if none could be explained
FOLDER, PAGE = "explanations", "explanations.html"  # where the page is written by default


@click.command(epilog="Example: dltoolkit explain latest photo.jpg --class bee")
@click.argument("run")
@click.argument("inputs", nargs=-1, metavar="[INPUT...]")
@click.option("--method", default="auto", show_default=True, metavar="NAME", help="Method of explanation.")
@click.option("--class", "label", metavar="NAME", help="Class to explain.  [default: the most probable one]")
@click.option(
    "--format", "form", type=click.Choice(["html", "json"]), default="html", show_default=True, help="Output format."
)
@click.option("--data", metavar="DATA", help="Labeled data to measure the methods on.  [default: data of the run]")
@click.option("--out", metavar="DIR", help="Folder of the page.  [default: explanations]")
@click.option("--text", "meaning", flag_value="text", help="Read each INPUT as a text, even if it names a file.")
@click.option("--files", "meaning", flag_value="file", help="Read each INPUT as the name of a file.")
@click.option("--encoding", metavar="NAME", help="Character encoding of files.  [default: UTF-8]")
@recipe_option
@out_dir_option
def explain(
    run: str,
    inputs: tuple[str, ...],
    form: str,
    out: str | None,
    meaning: str | None,
    encoding: str | None,
    recipe_file: str | None,
    out_dir: str,
    **options: str | None,
) -> int:
    """Explain why RUN answers so: which pixels or words speak for a class, and which against it.

    RUN is a run or an export. Each INPUT is a file, a folder, a glob, or a text. html writes one page about all inputs,
    and json prints the values. Without INPUT, the worst mistakes and a right answer of each class are explained in the
    report of RUN.

    An input that cannot be read has a row with its error, the others are explained, and the exit code is 2.
    """
    if out is not None and form == "json":
        raise UserError("--out has no effect with --format=json, which prints to stdout: leave it out.")
    if "-" in inputs:
        raise UserError("explain reads no stdin: write it to a file, and name the file.")
    opened = dltoolkit.load(run, out_dir, recipe=None if recipe_file is None else recipe.load(recipe_file))
    from dltoolkit import progress  # imports Rich, which takes a noticeable part of the time of --help
    from dltoolkit.data.readers import encoding as encodings

    explainer = opened.explainer
    if encoding is not None:
        refuse_unsupported(opened, ["encoding"], [] if explainer.kind == "image" else ["encoding"])
        encodings.check_name(encoding)
        explainer.predictor.encoding = encoding
    if not inputs:
        refused = {"--format=json": form == "json", "--out": out is not None, "--class": options["label"] is not None}
        refused["--encoding"] = encoding is not None
        if flags := [flag for flag, is_given in refused.items() if is_given]:
            raise UserError(f"{flags[0]} has no effect without INPUT: name files or texts, or leave it out.")
        click.echo(_write_report(opened, options["method"], options["data"]))
        return 0
    page_path = user_path(out or FOLDER) / PAGE
    if form == "html":
        _require_writable(page_path)  # before methods are measured, which takes a while
    items = explainer.predictor.expand(inputs, None, meaning or "auto")
    with progress.phase("Explaining"):
        explanations = list(explainer.stream(items, **options))
    if form == "json":
        print_json([each.to_json() for each in explanations])
    else:
        click.echo(_write(explanations, page_path, str(run)))
    return 2 if any(each.error is not None for each in explanations) else 0


def with_reasons(run: Answers, items: Iterable[Any], **options: Any) -> Iterator[Prediction]:
    """Yield the predictions for inputs as they arrive, with the box or the words that each label rests on.

    Args:
        run: The run or the export.
        items: Inputs, as the predictor takes them.
        options: Options of the predictor.
    """
    from dltoolkit.evaluation.prediction import FLUSH

    explainer = run.explainer
    method, _ = explainer.resolve("auto", measures=False)
    for item in items:
        if item is FLUSH:
            continue
        (prediction,) = explainer.predictor.stream([item], **options)
        if prediction.top:  # of an input that could be read, and that the model knows
            explained = explainer.of_item(item, method)
            words = sorted(explained.words, key=lambda word: -abs(word["value"]))[:TOP_WORDS]
            reasons = {"words": words} if explainer.kind == "text" else explained.places
            prediction = dataclasses.replace(prediction, reasons={**reasons, "method": method})
        yield prediction


def _write_report(run: Answers, method: str, data: str | None) -> str:
    """Write the explanations into the report of a run and return a sentence about it."""
    from dltoolkit import progress
    from dltoolkit.explanation import reporting

    if not isinstance(run, dltoolkit.Run):
        raise UserError(f"{run.path} is an export, which has no test images or texts: name an INPUT, or give the run.")
    explainer = run.explainer
    splits = explainer.read_splits()
    with progress.phase("Explaining the worst mistakes"):
        reporting.write(run, explainer, splits, method=method, data=data)
    return f"explanations in {display.visible(run.path / 'report.html')}"


def _require_writable(path: Path) -> None:
    """Raise a UserError if a page cannot be written."""
    folder = next(each for each in path.parents if os.path.lexists(each))
    if not folder.is_dir():
        raise UserError(f"Cannot write {path}: {folder} is not a folder: give another folder with --out.")
    if path.is_dir():
        raise UserError(f"Cannot write {path}: it is a folder: give another folder with --out.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"Cannot write {path}: {folder} may not be changed: give another folder with --out.")


def _write(explanations: Sequence[Explanation], path: Path, title: str) -> str:
    """Write the page and return a sentence about it; a UserError gives the reasons if nothing was explained."""
    from dltoolkit.explanation import page

    failed = [each for each in explanations if each.error is not None]
    if len(failed) == len(explanations):
        reasons = "; ".join(f"{each.input}: {str(each.error).rstrip('.')}" for each in failed[:SHOWN_ERRORS])
        more = f"; and {counted(len(failed) - SHOWN_ERRORS, 'further input')}" if len(failed) > SHOWN_ERRORS else ""
        raise UserError(f"Nothing is explained, and no page is written: {reasons}{more}.")
    with atomic_write(path, suffix=f".{os.getpid()}") as partial:  # another process may write the same page
        partial.write_text(page.render(explanations, title=title), encoding="utf-8")
    notes = f", {counted(len(failed), 'input')} not explained" if failed else ""
    return f"{counted(len(explanations) - len(failed), 'explanation')} in {display.visible(path)}{notes}"
