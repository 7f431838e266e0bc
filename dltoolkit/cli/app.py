"""The ``dltoolkit`` command: its group of verbs, and how errors and interrupts end it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

import dltoolkit
from dltoolkit import interrupt, lazy, option_names
from dltoolkit.cli import check_data, doctor, inference, show, train
from dltoolkit.errors import UserError, WorkerLost, did_you_mean, root_cause


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong input, 129, 130 or 143 interrupted by a signal."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name may hold bytes that are not UTF-8
    debug = "--debug" in words
    if debug:
        os.environ[lazy.DEBUG_VARIABLE] = "1"
        words = [word for word in words if word != "--debug"]
    try:
        with interrupt.signals_raise(), lazy.quiet_tensorflow():
            code = dltoolkit_command.main(words, prog_name="dltoolkit", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help())
        sys.exit(2)
    except click.ClickException as error:
        _fail(_message(error), error.exit_code, debug)
    except UserError as error:
        _fail(str(error), 2, debug)
    except WorkerLost as error:
        _fail(str(error), 1, debug)
    except VerbInterrupted as error:
        command = getattr(error.interrupt, "resume_command", None)
        message = f"Interrupted; the run is saved. Resume it with: {command}" if command else "Interrupted."
        _fail(message, 128 + getattr(error.interrupt, "signal", interrupt.SIGINT), debug)
    except (KeyboardInterrupt, click.Abort) as error:  # click replaces one by the other
        cause = error if isinstance(error, KeyboardInterrupt) else error.__cause__
        _fail("Interrupted.", 128 + getattr(cause, "signal", interrupt.SIGINT), debug)
    except BrokenPipeError:  # the reader of stdout, such as head, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        _fail(f"{type(error).__name__}: {root_cause(error)} (--debug shows the traceback).", 1, debug)


class Verbs(click.Group):
    """The top group. It keeps click from replacing a KeyboardInterrupt, which carries the command that resumes."""

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
        return f"{message} See '{error.ctx.command_path} --help'."
    if isinstance(error, click.UsageError) and error.message.startswith("No such command"):
        word = error.message.split("'")[1]
        verbs = error.ctx.command.list_commands(error.ctx)
        return f"There is no command '{word}'.{did_you_mean(word, verbs)} See 'dltoolkit --help'."
    return " ".join(error.format_message().split())


def _fail(message: str, code: int, debug: bool) -> None:
    if debug:
        import traceback

        traceback.print_exc()
    click.echo(f"Error: {' '.join(message.split())}", err=True)
    sys.exit(code)
