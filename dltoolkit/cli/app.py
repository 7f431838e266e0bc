"""The ``dltoolkit`` command: verbs. Anything heavy is imported inside the verb that needs it."""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

import dltoolkit
from dltoolkit import config as configuration
from dltoolkit import lazy, lines, recipe
from dltoolkit.cli import output
from dltoolkit.errors import UserError, WorkerLost, gist, suggestion

RECIPE_LIST = "image-classifier, a recipe of 'dltoolkit list', or ./FILE.py"
FLAGS = {"label": "class", "form": "format"}  # what is called otherwise on the command line than in Python

out_dir_option = click.option(
    "--out-dir", default="saved_models", show_default=True, metavar="DIR", help="Where runs are kept."
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong input, 130 or 143 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be no text
    debug = "--debug" in words
    if debug:
        os.environ[lazy.DEBUG_VARIABLE] = "1"
        words = [word for word in words if word != "--debug"]
    try:
        code = dltoolkit_command.main(words, prog_name="dltoolkit", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help())
        sys.exit(2)
    except click.ClickException as error:
        _fail(_plain(error), 2, debug)
    except UserError as error:
        _fail(str(error), 2, debug)
    except WorkerLost as error:
        _fail(str(error), 1, debug)
    except Stopped as error:
        command = getattr(error.interrupt, "resume_command", None)
        message = f"Interrupted; all is saved. Go on with: {command}" if command else "Interrupted."
        _fail(message, 128 + getattr(error.interrupt, "signal", signal.SIGINT), debug)
    except (KeyboardInterrupt, click.Abort):
        _fail("Interrupted.", 128 + signal.SIGINT, debug)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has seen enough
        sys.exit(0)
    except Exception as error:
        _fail(f"{type(error).__name__}: {gist(error)} (--debug shows where).", 1, debug)


class Verbs(click.Group):
    """The top group; keeps click from turning an interrupt into its own exception and losing what it carries."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise Stopped(interrupt) from interrupt


class Stopped(Exception):
    """The work was interrupted; ``interrupt`` is the KeyboardInterrupt."""

    def __init__(self, interrupt: KeyboardInterrupt):
        super().__init__("interrupted")
        self.interrupt = interrupt


class RecipeGroup(click.Group):
    """``train``: one subcommand a recipe, made from its ``Config``; a path to a .py file is one too."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(recipe.names())

    def get_command(self, ctx: click.Context, name: str) -> click.Command:
        return _train_command(name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Recipes"):
            formatter.write_dl([(name, recipe.summary(path)) for name, path in recipe.names().items()])


@click.group(
    cls=Verbs,
    name="dltoolkit",
    epilog="Example: dltoolkit train image-classifier --data ~/flowers --max-time 10m",
    context_settings={"max_content_width": 110, "help_option_names": ["-h", "--help"]},
)
@click.version_option(dltoolkit.__version__, message="dltoolkit %(version)s")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks and TensorFlow's own messages.")
def dltoolkit_command() -> None:
    """Train, measure and use neural networks without writing training code."""


@dltoolkit_command.group(
    cls=RecipeGroup,
    subcommand_metavar="RECIPE [OPTIONS]",
    epilog="Example: dltoolkit train image-classifier --data ~/flowers --epochs 20. "
    "'dltoolkit train RECIPE --help' lists a recipe's options.",
)
def train() -> None:
    """Train a recipe, or a copied recipe ./FILE.py."""


@dltoolkit_command.command(epilog="Example: dltoolkit resume latest --epochs 40")
@click.argument("run")
@click.option("--epochs", metavar="N", help="Train up to this many epochs in all.")
@click.option("--max-time", metavar="T", help="Train this much longer, e.g. 10m.")
@click.option("--device", metavar="D", help="Go on on another device.")
@out_dir_option
def resume(run: str, out_dir: str, **options: str | None) -> None:
    """Go on with RUN where it stopped."""
    found = dltoolkit.load(run, out_dir)
    changed = {name: value for name, value in options.items() if value is not None}
    output.training_summary(dltoolkit.resume(found, **changed))


@dltoolkit_command.command(
    epilog="Example: dltoolkit launch --workers 2 -- train image-classifier --epochs 5",
    context_settings={"ignore_unknown_options": True},
)
@click.option("--workers", type=click.IntRange(min=2), required=True, metavar="N", help="How many processes.")
@click.option(
    "--timeout",
    default="10m",
    show_default=True,
    metavar="TIME",
    help="How long they wait for each other in the beginning.",
)
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- train|resume ...")
def launch(workers: int, timeout: str, words: tuple[str, ...]) -> int:
    """Train in several processes on this machine, as several machines would with TF_CONFIG.

    Lines on stderr begin with the worker's number. When one worker is gone, all end.
    """
    from dltoolkit.training.distribute import launch as launcher

    code, error = launcher.launch(words, workers, timeout)
    if error:
        _fail(error, code, debug=False)
    return code


@dltoolkit_command.command(epilog="Example: dltoolkit evaluate latest --data ~/new-flowers --format json")
@click.argument("run")
@click.option("--data", metavar="DATA", help="Other labelled data; by default the run's own test split.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--label-column", metavar="NAME", help="Column of the labels, where it differs from the run's.")
@click.option("--image-column", metavar="NAME", help="Column of the pictures' paths, where it differs from the run's.")
@click.option("--text-column", metavar="NAME", help="Column of the texts, where it differs from the run's.")
@click.option("--header/--no-header", default=None, help="Whether the table begins with column names.")
@click.option("--skip-invalid", is_flag=True, default=None, help="Leave out what cannot be read.")
@out_dir_option
def evaluate(run: str, data: str | None, form: str, out_dir: str, **reading: Any) -> None:
    """Measure RUN on its own test split, or on other labelled data."""
    found = dltoolkit.load(run, out_dir)
    given = {name: value for name, value in reading.items() if value is not None}
    _refuse_useless(found, given, configuration.options(found.recipe.Config))
    measured = found.evaluate(data, **given)
    output.as_json(measured) if form == "json" else output.measures(measured)


@dltoolkit_command.command(epilog="Example: dltoolkit predict latest photo.jpg 'holiday/*.png' --format csv")
@click.argument("run")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "--format", "form", type=click.Choice(["table", "json", "jsonl", "csv"]), default="table", show_default=True
)
@click.option("--top-k", type=click.IntRange(min=1), default=5, show_default=True, help="How many classes to list.")
@click.option("--threshold", type=click.FloatRange(0, 1), metavar="P", help="Answer 'unsure' below this probability.")
@click.option("--text-column", metavar="NAME", help="Column of the texts, where an input is a table.")
@click.option(
    "--stdin",
    type=click.Choice(["text", "jsonl", "csv"]),
    default="text",
    show_default=True,
    help="What a line of stdin is.",
)
@out_dir_option
def predict(run: str, inputs: tuple[str, ...], form: str, stdin: str, out_dir: str, **options: Any) -> int:
    """Answer files, folders, globs, texts or, with -, lines from stdin.

    An input that cannot be answered gets its own error row, the rest go on, and the exit code is 2.
    """
    found = dltoolkit.load(run, out_dir)
    stream = getattr(found.recipe, "predictions", None) or found.verb("predict")
    given = {name: value for name, value in options.items() if value is not None}
    known = inspect.signature(stream).parameters
    _refuse_useless(found, given, known)
    if stdin != "text":
        _refuse_useless(found, ["stdin"], ["stdin"] if "text_column" in known else [])
        if "-" not in inputs:
            raise UserError(f"--stdin {stdin} says what the lines of stdin are, but - is not among the inputs: add it.")
    return 2 if output.predictions(stream(found, _inputs(inputs, stdin, options["text_column"]), **given), form) else 0


@dltoolkit_command.command(epilog="Example: dltoolkit generate latest --prompt 'ROMEO:' --max-tokens 300 --top-p 0.9")
@click.argument("run")
@click.option("--count", type=int, metavar="N", help="How many pictures, or texts of each prompt.")
@click.option("--seed", type=int, metavar="N", help="Equal seeds give equal results.  [default: 0]")
@click.option("--prompt", multiple=True, metavar="TEXT", help="What to continue; may be given several times.")
@click.option("--max-tokens", type=int, metavar="N", help="How many tokens to draw.  [default: 500]")
@click.option("--temperature", type=float, metavar="X", help="0 takes the most probable token.  [default: 0.8]")
@click.option("--top-k", type=int, metavar="N", help="Draw from so many of the most probable tokens only.")
@click.option("--top-p", type=float, metavar="P", help="Draw from the most probable tokens that make up this share.")
@click.option("--min-p", type=float, metavar="P", help="Leave out tokens below this share of the most probable one.")
@click.option("--repetition-penalty", type=float, metavar="X", help="Above 1 makes tokens seen before less likely.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; may be given several times.")
@click.option(
    "--unknown-chars", type=click.Choice(["refuse", "drop"]), help="Prompts with characters never seen in training."
)
@click.option("--format", "form", type=click.Choice(["text", "json"]), help="Of texts.  [default: text]")
@click.option("--class", "label", multiple=True, metavar="NAME", help="Class of the pictures; several take turns.")
@click.option("--truncation", type=float, metavar="X", help="Below about 1, pictures are more alike and more typical.")
@click.option("--interpolate", type=int, metavar="N", help="Go from each picture to the next in N steps; adds a GIF.")
@click.option("--out", metavar="DIR", help="Where pictures are written.  [default: generated]")
@click.option("--grid", is_flag=True, default=None, help="Also write all pictures on one page, grid.png.")
@out_dir_option
def generate(run: str, out_dir: str, **options: Any) -> None:
    """Continue prompts with RUN, a text generator, or draw pictures with RUN, an image GAN."""
    found = dltoolkit.load(run, out_dir)
    given = {name: value for name, value in options.items() if value not in (None, ())}
    (_generate_texts if hasattr(found.recipe, "stream") else _generate_pictures)(found, given)


def _generate_texts(found: dltoolkit.Run, given: dict[str, Any]) -> None:
    stream, form, count = found.verb("stream"), given.pop("form", "text"), given.pop("count", 1)
    if count < 1:
        raise UserError(f"--count must be at least 1, not {count}.")
    prompts = [one for one in given.pop("prompt", ("",)) for _ in range(count)]
    _refuse_useless(found, given, inspect.signature(stream).parameters)
    if form == "text" and len(prompts) == 1:
        output.continuation(prompts[0], stream(found, prompts, **given))
    else:
        output.continuations(prompts, found.generate(prompts, **given), form)


def _generate_pictures(found: dltoolkit.Run, given: dict[str, Any]) -> None:
    folder, grid = given.pop("out", "generated"), given.pop("grid", False)
    known = inspect.signature(found.verb("generate")).parameters
    _refuse_useless(found, given, known)
    pictures = found.generate(**given)
    output.pictures(pictures, folder, grid=grid, animated="interpolate" in given)


@dltoolkit_command.command(epilog="Example: dltoolkit show latest")
@click.argument("run")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@out_dir_option
def show(run: str, form: str, out_dir: str) -> None:
    """Show what RUN is, what it was trained on and how good it is."""
    found = dltoolkit.load(run, out_dir)
    output.as_json({**found.info, "metrics": found.metrics}) if form == "json" else output.run(found)


@dltoolkit_command.command(name="list", epilog="Example: dltoolkit list runs")
@click.argument("what", required=False, type=click.Choice(["recipes", "runs", "data", "backbones"]))
@out_dir_option
def list_(what: str | None, out_dir: str) -> None:
    """List the recipes, the runs, the data that need no download (all three by default), or fine-tune's backbones."""
    if what in (None, "recipes"):
        output.recipes()
    if what in (None, "data"):
        output.data_sets()
    if what == "backbones":
        output.backbones()
    if what in (None, "runs"):
        output.runs(dltoolkit.runs(out_dir), out_dir)


@dltoolkit_command.command(epilog="Example: dltoolkit compare digits-1 digits-2")
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...")
@out_dir_option
def compare(runs: tuple[str, ...], out_dir: str) -> None:
    """Lay runs side by side: their scores, and the options in which they differ."""
    output.comparison([dltoolkit.load(run, out_dir) for run in runs])


@dltoolkit_command.command(epilog="Example: dltoolkit copy image-classifier . && dltoolkit train ./image_classifier.py")
@click.argument("recipe_name", metavar="RECIPE")
@click.argument("folder", default=".", metavar="[DIR]")
def copy(recipe_name: str, folder: str) -> None:
    """Copy a recipe's file into DIR, to change it and train with the copy."""
    target = recipe.copy(recipe_name, folder)
    click.echo(target)
    click.echo(f"Train with it: dltoolkit train ./{target.name}", err=True)


@dltoolkit_command.command(epilog="Example: dltoolkit doctor")
def doctor() -> int:
    """Check this machine: versions, devices, memory, folders, and a few real training steps of each recipe."""
    from dltoolkit.cli import doctor as check

    return check.run()


def _train_command(name: str) -> click.Command:
    if recipe.is_file(name):
        lazy.import_tensorflow()  # the user's file may import Keras at its top, which is then quiet
    module = recipe.load(name)

    def train_recipe(config_file: str | None, **flags: Any) -> None:
        given = click.get_current_context()
        values = configuration.read_file(config_file) if config_file else {}
        chosen = {
            key: ",".join(value) if isinstance(value, tuple) else value
            for key, value in flags.items()
            if given.get_parameter_source(key) is not click.core.ParameterSource.DEFAULT
        }
        from_file = configuration.make(module.Config, values)  # a wrong name in the file is the file's error
        settings = configuration.make(
            module.Config, {**{k: v for k, v in from_file.to_dict().items() if k not in chosen}, **chosen}, flags=True
        )
        output.training_summary(module.train(settings))

    parameters: list[click.Parameter] = [
        click.Option(
            ["--config", "config_file"], metavar="FILE", help="Read options from a YAML or JSON file; flags win."
        )
    ]
    parameters += [_flag(item) for item in configuration.options(module.Config).values()]
    text = (module.__doc__ or "").strip()
    return click.Command(
        name=name,
        callback=train_recipe,
        params=parameters,
        help=text.partition("\n")[0],
        epilog=f"Example: dltoolkit train {name} --epochs 20 --learning-rate 1e-3",
    )


def _flag(item: configuration.Option) -> click.Option:
    shown = item.default if item.default is not None and item.default != "" else None
    if item.kind is bool:
        spelled = f"{item.flag}/--no-{item.flag.removeprefix('--')}"
        return click.Option([spelled], default=item.default, help=item.help, show_default=shown is not None)
    metavar = "|".join(item.choices) or {int: "N", float: "X", str: "TEXT", configuration.Duration: "TIME"}[item.kind]
    text = f"{item.help}  [default: {shown}]" if shown is not None else item.help
    return click.Option([item.flag], metavar=metavar, multiple=item.multiple, help=text, type=str)


def _inputs(words: Iterable[str], stdin: str, text_column: str | None) -> Iterator[Any]:
    for word in words:
        if word == "-":
            arriving = lines.arriving(sys.stdin.fileno())
            yield from arriving if stdin == "text" else _cells(arriving, stdin, text_column)
        else:
            yield word


def _cells(arriving: Iterator[Any], form: str, text_column: str | None) -> Iterator[Any]:
    from dltoolkit.data.readers.tables import Table
    from dltoolkit.data.text.listing import TEXT_COLUMNS

    def column(names: Sequence[str]) -> str:
        return Table(Path("stdin"), {name: [] for name in names}).find(text_column, TEXT_COLUMNS, "text")

    return lines.cells(arriving, form, column)


def _refuse_useless(run: dltoolkit.Run, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise a UserError for an option that the run's recipe does not know."""
    for name in set(given) - set(known):
        flag = FLAGS.get(name, name.replace("_", "-"))
        raise UserError(f"A run of {run.info['recipe']} has no use for --{flag}: leave it out.")


def _plain(error: click.ClickException) -> str:
    """Return click's message as one sentence with the nearest right word."""
    if isinstance(error, click.NoSuchOption):
        known = [
            name for parameter in error.ctx.command.params for name in (*parameter.opts, *parameter.secondary_opts)
        ]
        where = error.ctx.command_path
        if error.ctx.info_name == "resume":
            return (
                f"{error.option_name} is not among {', '.join(known)}: a run goes on with the options that it began "
                "with; train a new run for others."
            )
        return f"There is no option '{error.option_name}'.{suggestion(error.option_name, known)} See '{where} --help'."
    if isinstance(error, click.UsageError) and error.message.startswith("No such command"):
        word = error.message.split("'")[1]
        known = error.ctx.command.list_commands(error.ctx)
        return f"There is no command '{word}'.{suggestion(word, known)} See 'dltoolkit --help'."
    return " ".join(error.format_message().split())


def _fail(message: str, code: int, debug: bool) -> None:
    if debug:
        import traceback

        traceback.print_exc()
    click.echo(f"Error: {' '.join(message.split())}", err=True)
    sys.exit(code)
