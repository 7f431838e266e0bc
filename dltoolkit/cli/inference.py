"""The verbs that use a run: evaluate, predict and generate."""

from __future__ import annotations

import contextlib
import csv
import inspect
import math
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

import dltoolkit
from dltoolkit import config, lines
from dltoolkit.cli import explain, image_files
from dltoolkit.cli.tables import dump_json, print_evaluation, print_json, print_table
from dltoolkit.cli.verb_options import (
    open_for_answers,
    open_run,
    out_dir_option,
    read_options,
    recipe_option,
    refuse_unsupported,
    table_or_json_option,
)
from dltoolkit.display import visible
from dltoolkit.errors import UserError
from dltoolkit.formatting import percent

if TYPE_CHECKING:
    from dltoolkit.evaluation.prediction import Prediction

TABLE_WIDTH = 80  # columns of the table of predictions that no terminal shows
MIN_INPUT_WIDTH = 20  # columns of the inputs in this table, however long the names of the classes are
# Characters that begin a formula in a spreadsheet, at the start of a cell or of what a program takes for one
FORMULA = re.compile(
    "(^|[\t\r\n;])(?=[\\s\"']*[=+\\-@\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}"
    "\N{FULLWIDTH HYPHEN-MINUS}\N{FULLWIDTH COMMERCIAL AT}]|[\t\r])"
)


class Probability(click.FloatRange):
    """A number from 0 to 1. Comparisons with NaN, which click takes for one, are always false."""

    def __init__(self) -> None:
        super().__init__(0, 1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if math.isnan(number := super().convert(value, param, ctx)):
            self.fail(f"{value} is not in the range 0<=x<=1.", param, ctx)
        return number


@click.command(epilog="Example: dltoolkit evaluate latest --data ~/new-flowers --format json")
@click.argument("run")
@click.option("--data", metavar="DATA", help="Other labeled data.  [default: test split of the run]")
@table_or_json_option
@read_options
@recipe_option
@out_dir_option
def evaluate(run: str, data: str | None, form: str, out_dir: str, recipe_file: str | None, **options: Any) -> None:
    """Evaluate RUN on its test split, or on other labeled data.

    The options for reading replace those of the training. A line on stderr says which examples are evaluated.
    """
    opened = open_run(run, out_dir, recipe_file)
    given = {name: value for name, value in options.items() if value is not None}
    refuse_unsupported(opened, given, config.options(opened.recipe.Config))
    if given:
        from dltoolkit.data import checks
        from dltoolkit.data.readers import source

        if data is None:
            raise UserError(
                f"--{next(iter(given)).replace('_', '-')} is about other data: add --data, or leave it out."
            )
        noun = opened.info.get("task") or ("text" if hasattr(opened.config, "text_column") else "image")
        checks.refuse_unused(given, source.resolve(data, trains=False), noun)
    metrics = opened.evaluate(data, **given)
    print_json(metrics) if form == "json" else print_evaluation(metrics)


@click.command(epilog="Example: dltoolkit predict latest photo.jpg 'holiday/*.png' --format csv")
@click.argument("run")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "jsonl", "csv"]),
    default="table",
    show_default=True,
    help="Output format.",
)
@click.option(
    "--spreadsheet-safe", is_flag=True, help="Put ' before CSV cells that a spreadsheet would execute as formulas."
)
@click.option("--top-k", type=click.IntRange(min=1), default=5, show_default=True, help="Number of classes to list.")
@click.option("--threshold", type=Probability(), metavar="P", help="Probability below which the label is 'unsure'.")
@click.option("--explain", "explains", is_flag=True, help="Add to JSON the box or the words that each label rests on.")
@click.option("--text-column", metavar="NAME", help="Column of the texts in tables.")
@click.option("--encoding", metavar="NAME", help="Character encoding of files and stdin.  [default: UTF-8]")
@click.option("--text", "meaning", flag_value="text", help="Read each INPUT as a text, even if it names a file.")
@click.option("--files", "meaning", flag_value="file", help="Read each INPUT as the name of a file.")
@click.option(
    "--stdin", type=click.Choice(["text", "jsonl", "csv"]), default="text", show_default=True, help="Format of stdin."
)
@recipe_option
@out_dir_option
def predict(
    run: str,
    inputs: tuple[str, ...],
    form: str,
    spreadsheet_safe: bool,
    explains: bool,
    stdin: str,
    meaning: str | None,
    out_dir: str,
    recipe_file: str | None,
    **options: Any,
) -> int:
    """Classify files, folders, globs, texts or what stdin holds.

    Each INPUT is a file, a folder, a glob, or - for stdin. A classifier of texts takes an INPUT that names no file as
    a text, and stdin as one text per line, or as records of CSV or JSON; a classifier of images takes stdin as one
    image, or as one file name per line.

    An input that cannot be read becomes a row with its error, the others are classified, and the exit code is 2.
    """
    from dltoolkit.data.readers import encoding as encodings
    from dltoolkit.data.readers import streams

    if spreadsheet_safe and form != "csv":
        raise UserError("--spreadsheet-safe has no effect without --format csv: add it, or leave this one out.")
    if explains and form not in ("json", "jsonl"):
        raise UserError("--explain has no effect without --format json or jsonl: add it, or use 'dltoolkit explain'.")
    opened = open_for_answers(run, out_dir, recipe_file)
    predictor = opened.explainer.predictor if explains else opened.verb("predictor")(opened)
    given = {name: value for name, value in options.items() if value is not None}
    trained = opened.info.get("data", {}).get("columns", {}).get("text")
    text_column = given.pop("text_column", trained and streams.TrainedColumn(trained))
    if encoding := given.pop("encoding", None):
        refuse_unsupported(opened, ["encoding"], ["encoding"] if predictor.noun == "text" else [])
        encodings.check_name(encoding)
        predictor.encoding = encoding
    if stdin != "text":
        refuse_unsupported(opened, ["stdin"], ["stdin"] if predictor.noun == "text" else [])
        if "-" not in inputs:
            raise UserError(f"--stdin {stdin} is the format of stdin, but - is not among the inputs: add it.")
    if predictor.noun == "text" and meaning is None:
        _warn_of_missing_files(inputs)
    words = _read_inputs(inputs, stdin, text_column, predictor.noun, encoding)
    items = predictor.expand(words, text_column, meaning or "auto")
    predictions = explain.with_reasons(opened, items, **given) if explains else predictor.stream(items, **given)
    return 2 if print_predictions(predictions, form, live="-" not in inputs, safe=spreadsheet_safe) else 0


@click.command(epilog="Example: dltoolkit generate latest --prompt 'ROMEO:' --max-tokens 300 --top-p 0.9")
@click.argument("run")
@click.option("--count", type=int, metavar="N", help="Number of images, or of texts per prompt.")
@click.option("--seed", type=int, metavar="N", help="Seed; equal seeds give equal results.  [default: 0]")
@click.option("--prompt", multiple=True, metavar="TEXT", help="Text to continue; may be repeated.")
@click.option("--max-tokens", type=int, metavar="N", help="Maximum number of tokens.  [default: 500]")
@click.option("--temperature", type=float, metavar="X", help="Sampling temperature; 0 is greedy.  [default: 0.8]")
@click.option("--top-k", type=int, metavar="N", help="Sample from the N most probable tokens only.")
@click.option("--top-p", type=float, metavar="P", help="Sample from the most probable tokens with total probability P.")
@click.option("--min-p", type=float, metavar="P", help="Minimum probability relative to the most probable token.")
@click.option("--repetition-penalty", type=float, metavar="X", help="Penalty of repeated tokens; 1 turns it off.")
@click.option("--stop", multiple=True, metavar="TEXT", help="Text before which to stop; may be repeated.")
@click.option(
    "--unknown-chars",
    type=click.Choice(["refuse", "drop"]),
    help="Treatment of prompt characters that the training data lack.",
)
@click.option("--format", "form", type=click.Choice(["text", "json"]), help="Output format of texts.  [default: text]")
@click.option("--class", "label", multiple=True, metavar="NAME", help="Class of the images; several take turns.")
@click.option("--truncation", type=float, metavar="X", help="Truncation of the noise; below 1 reduces variety.")
@click.option("--interpolate", type=int, metavar="N", help="Steps from each image to the next; also writes a GIF.")
@click.option("--out", metavar="DIR", help="Folder of the images.  [default: generated]")
@click.option("--grid", is_flag=True, default=None, help="Also write all images to grid.png.")
@recipe_option
@out_dir_option
def generate(run: str, out_dir: str, recipe_file: str | None, **options: Any) -> None:
    """Generate texts or images with RUN.

    A run of text-generator continues prompts, and a run of image-gan generates images.
    """
    opened = open_for_answers(run, out_dir, recipe_file)
    given = {name: value for name, value in options.items() if value not in (None, ())}
    (_generate_texts if hasattr(opened.recipe, "stream_text") else _generate_images)(opened, given)


def _generate_texts(run: dltoolkit.Run, given: dict[str, Any]) -> None:
    stream, form, count = run.verb("stream_text"), given.pop("form", "text"), given.pop("count", 1)
    if count < 1:
        raise UserError(f"--count must be at least 1, not {count}.")
    prompts = [prompt for prompt in given.pop("prompt", ("",)) for _ in range(count)]
    refuse_unsupported(run, given, inspect.signature(stream).parameters)
    if form == "text" and len(prompts) == 1:
        chunks = stream(run, prompts, **given)  # refuses wrong options before anything is written
        sys.stdout.write(prompts[0])
        for (text,) in chunks:
            sys.stdout.write(text)
            sys.stdout.flush()
        sys.stdout.write("\n")
        return
    texts = list(zip(prompts, run.generate(prompts, **given), strict=True))
    if form == "json":
        print_json([{"prompt": prompt, "text": text} for prompt, text in texts])
        return
    for number, (prompt, text) in enumerate(texts, start=1):
        click.echo(f"--- {number} of {len(texts)}\n{prompt}{text}")


def _generate_images(run: dltoolkit.Run, given: dict[str, Any]) -> None:
    folder, grid = given.pop("out", "generated"), given.pop("grid", False)
    refuse_unsupported(run, given, inspect.signature(run.verb("generate")).parameters)
    from dltoolkit import progress

    with progress.phase("Generating images"):
        images = run.generate(**given)
    click.echo(image_files.write(images, folder, grid=grid, animated="interpolate" in given))


def print_predictions(predictions: Iterable[Prediction], form: str, *, live: bool = False, safe: bool = False) -> bool:
    """Print predictions as table, json, jsonl or csv; return whether any input had an error.

    Args:
        predictions: The predictions.
        form: The format; table and json are printed when all predictions are ready.
        live: Whether to show until then that inputs are being classified.
        safe: Whether to change CSV cells that a spreadsheet would execute as formulas.
    """
    from dltoolkit import progress

    failed = False

    def noting_errors() -> Iterator[Prediction]:
        nonlocal failed
        for prediction in predictions:
            failed = failed or prediction.error is not None
            yield prediction

    def collect() -> list[Prediction]:
        with progress.phase("Classifying the inputs") if live else contextlib.nullcontext():
            return list(noting_errors())

    if form == "json":
        print_json([prediction.to_dict() for prediction in collect()])
    elif form == "jsonl":
        for prediction in noting_errors():
            sys.stdout.write(dump_json(prediction.to_dict()) + "\n")
            sys.stdout.flush()
    elif form == "csv":
        minimal = csv.writer(sys.stdout, lineterminator="\n")
        quoted = csv.writer(sys.stdout, lineterminator="\n", quoting=csv.QUOTE_ALL)
        (quoted if safe else minimal).writerow(["input", "label", "probability", "top", "error"])
        for prediction in noting_errors():
            top = " ".join(f"{item['label']}={item['probability']:.4f}" for item in prediction.top)
            row = [prediction.input, prediction.label, prediction.probability, top, prediction.error]
            # some programs split cells without quotes at semicolons, and csv quotes no carriage return of its own
            writer = quoted if safe or any("\r" in str(cell) for cell in row) else minimal
            writer.writerow([FORMULA.sub(r"\1'", cell) if safe and isinstance(cell, str) else cell for cell in row])
            sys.stdout.flush()
    else:
        print_table(*_prediction_table(collect()))
    return failed


def _prediction_table(predictions: Iterable[Prediction]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the table of predictions, with inputs that leave room for their labels.

    Rows fit the width of the terminal, or 80 columns if there is none, as long as labels and probabilities leave
    ``MIN_INPUT_WIDTH`` columns for the inputs. Errors stay whole.
    """
    header, rows, others_width = ["input", "label", "probability", "next"], [], 0
    for prediction in predictions:
        if prediction.error is not None:
            rows.append([visible(prediction.input), "-", "-", visible(prediction.error)])
            continue
        others = "  ".join(f"{visible(item['label'])} {percent(item['probability'])}" for item in prediction.top[1:])
        probability = "-" if prediction.probability is None else percent(prediction.probability)
        rows.append([visible(prediction.input), visible(prediction.label), probability, others])
        others_width = max(others_width, len(others))
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else TABLE_WIDTH
    taken = [max(len(line[i]) for line in [header, *rows]) for i in (1, 2)]
    width = max(MIN_INPUT_WIDTH, columns - sum(taken) - others_width - 3 * len("  "))
    return header, [[_shorten(text, width), *cells] for text, *cells in rows]


def _read_inputs(
    words: Iterable[str], stdin: str, text_column: str | None, noun: str, encoding: str | None = None
) -> Iterator[Any]:
    """Yield the arguments of predict, with the image, the lines or the cells of stdin in place of -."""
    from dltoolkit.data.readers import encoding as encodings
    from dltoolkit.data.readers import streams
    from dltoolkit.evaluation.prediction import FLUSH

    for word in words:
        if word != "-":
            yield word
            continue
        if sys.stdin is None:
            raise UserError("stdin is closed, so - holds no input: connect it, or name files.")
        descriptor = sys.stdin.fileno()
        image, begin = lines.read_image(descriptor) if noun == "image" else (None, b"")
        if image is not None:
            yield image
            continue
        if noun == "text" and encoding is None:
            begin = os.read(descriptor, lines.CHUNK_BYTES)
            encoding = encodings.of_stream(begin, "stdin")
        stream = lines.read_lines(descriptor, raw=stdin != "text", begin=begin, encoding=encoding)
        rows = stream if stdin == "text" else streams.read_texts(stream, stdin, text_column)
        if noun == "image":  # the lines are names of files
            rows = (str(row) if isinstance(row, lines.Line) else row for row in rows)
        yield from (FLUSH if row is None else row for row in rows)


def _warn_of_missing_files(words: Iterable[str]) -> None:
    """Print a warning about arguments that are classified as texts although they look like names of files."""
    from dltoolkit import progress
    from dltoolkit.data.text.inputs import looks_like_file

    for word in filter(looks_like_file, words):
        progress.warn(f"There is no file {word}, so it is classified as a text; --files reports it instead.")


def _shorten(text: str, width: int) -> str:
    """Return a text with an ellipsis for its middle if it is longer than a width; its end may be a file's name."""
    if len(text) <= width:
        return text
    end = width // 3
    return f"{text[: width - end - 1]}…{text[-end:]}"
