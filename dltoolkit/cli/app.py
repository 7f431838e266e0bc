"""The ``dltoolkit`` command: its group of verbs, and how errors and interrupts end it."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

import dltoolkit
from dltoolkit import display, interrupt, lazy, option_names, streams
from dltoolkit.cli import check_data, doctor, explain, export, inference, show, train
from dltoolkit.cli.verb_options import help_command
from dltoolkit.errors import ExportRefused, UserError, WorkerLost, did_you_mean, machine_error, root_cause


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    The exit code is 0 if the command is done, 1 if it failed, 2 for wrong input, 129, 130 or 143 if a signal has
    interrupted it, and 141 if the reader of stdout has ended.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    with streams.standard_streams(), option_names.flags():
        _run(words)


def _run(words: list[str]) -> NoReturn:
    debug = "--debug" in words
    if debug:
        os.environ[lazy.DEBUG_VARIABLE] = "1"
        words = [word for word in words if word != "--debug"]
    try:
        with interrupt.signals_raise(), lazy.quiet_tensorflow():
            code = dltoolkit_command.main(words, prog_name="dltoolkit", standalone_mode=False)
        sys.stdout.flush()
        atexit.register(interrupt.ignore)  # a signal while the process ends does not change what it has done
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help())
        sys.exit(2)
    except click.ClickException as error:
        _fail(_message(error), error.exit_code, debug)
    except UserError as error:
        _fail(str(error), 2, debug)
    except (WorkerLost, ExportRefused) as error:
        _fail(str(error), 1, debug)
    except VerbInterrupted as error:
        command = getattr(error.interrupt, "resume_command", None)
        message = f"Interrupted; the run is saved. Resume it with: {command}" if command else "Interrupted."
        _fail(message, 128 + getattr(error.interrupt, "signal", interrupt.SIGINT), debug)
    except (KeyboardInterrupt, click.Abort) as error:  # click replaces one by the other
        cause = error if isinstance(error, KeyboardInterrupt) else error.__cause__
        _fail("Interrupted.", 128 + getattr(cause, "signal", interrupt.SIGINT), debug)
    except streams.AnswerLost as error:
        streams.discard_answers()
        if error.reader_has_ended:  # such as head: end as other commands do
            sys.exit(128 + signal.SIGPIPE)
        _fail(str(error), 1, debug)
    except Exception as error:
        if sentence := machine_error(error):
            _fail(sentence, 2, debug)
        _fail(f"{type(error).__name__}: {root_cause(error)} (--debug shows the traceback).", 1, debug)


class Verbs(click.Group):
    """The top group. It keeps click from replacing a KeyboardInterrupt, which carries the command that resumes."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, word := args[0]) is None:  # click shows the word as Python code
            hint = did_you_mean(word, self.list_commands(ctx))
            raise UserError(f"There is no command '{word}'.{hint} See 'dltoolkit --help'.")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise VerbInterrupted(error) from error


class VerbInterrupted(Exception):
    """A verb was interrupted.

    Attributes:
        interrupt: The KeyboardInterrupt.
    """

    def __init__(self, error: KeyboardInterrupt):
        super().__init__("interrupted")
        self.interrupt = error


@click.group(
    cls=Verbs,
    name="dltoolkit",
    epilog="Example: dltoolkit train image-classifier --data ~/flowers --max-time 10m",
    context_settings={"max_content_width": 110, "help_option_names": ["-h", "--help"]},
)
@click.version_option(dltoolkit.__version__, message="dltoolkit %(version)s")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks and the messages of TensorFlow.")
def dltoolkit_command() -> None:
    """Train, evaluate and use neural networks without writing training code."""


for verb in (
    *(train.train, train.resume, train.launch, train.copy, check_data.check_data),
    *(inference.evaluate, inference.predict, inference.generate),
    *(explain.explain, export.export),
    *(show.show, show.list_, show.compare, doctor.doctor),
):
    dltoolkit_command.add_command(verb)


def _message(error: click.ClickException) -> str:
    """Return click's message as one sentence with the nearest right word."""
    if isinstance(error, click.NoSuchOption):
        flags = [parameter for parameter in error.ctx.command.params if isinstance(parameter, click.Option)]
        names = [name for flag in flags for name in (*flag.opts, *flag.secondary_opts)]
        if error.ctx.info_name == "resume":
            return (
                f"{error.option_name} is not among {', '.join(names)}: a resumed run keeps its other options; train a "
                "new run to change them."
            )
        message = option_names.no_such_option(error.option_name, names)
        return f"{message} See '{help_command(error.ctx)}'."
    return " ".join(display.visible(error.format_message(), keep="\n\t").split())


def _fail(message: str, code: int, debug: bool) -> NoReturn:
    if debug:
        import traceback

        click.echo(display.visible(traceback.format_exc(), keep="\n"), err=True, nl=False)
    click.echo(f"Error: {display.visible(message)}", err=True)
    sys.exit(code)
