"""``dltoolkit train RECIPE``: a click command with one flag for each option of the recipe's ``Config``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import click

from dltoolkit import config as configuration
from dltoolkit import config_file, display, recipe
from dltoolkit.cli.verb_options import help_command
from dltoolkit.config import GROUPS, Option
from dltoolkit.errors import UserError
from dltoolkit.option_values import Duration

METAVARS = {int: "N", float: "X", str: "TEXT", Duration: "TIME"}
MAX_CHOICES_LENGTH = 50  # characters; longer lists of choices do not fit next to the flag, so the help holds them


class RecipeCommand(click.Command):
    """A command whose ``--help`` lists the options in the groups that the ``Config`` declares."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        flags = [parameter for parameter in self.params if isinstance(parameter, Flag)]
        others = [parameter for parameter in self.get_params(ctx) if not isinstance(parameter, Flag)]
        options = {flag.option.name: flag.option for flag in flags}
        flags.sort(key=lambda flag: flag.rank)
        for group in GROUPS:
            rows = [help_row(flag.option, options) for flag in flags if flag.option.group == group]
            if group == "other":
                rows += [row for parameter in others if (row := parameter.get_help_record(ctx)) and row[1]]
            if rows:
                with formatter.section(f"{group.capitalize()} options"):
                    formatter.write_dl(rows)


class Flag(click.Option):
    """The flag of an option of a ``Config``.

    Attributes:
        option: The option.
        rank: Position of the flag within its group in ``--help``; equal ranks keep the order of the options.
    """

    def __init__(self, option: Option, rank: int):
        self.option, self.rank = option, rank
        if option.kind is bool and option.choices:
            super().__init__([option.flag], is_flag=False, flag_value=True, type=click.UNPROCESSED)
        elif option.kind is bool:
            super().__init__([f"{option.flag}/{option.no_flag}"], default=option.default)
        else:
            super().__init__([option.flag], multiple=option.multiple, type=str)


def _no_flag(option: Option) -> click.Option:
    """Return the flag ``--no-NAME`` of an option whose own flag takes a value; its parameter is ``no_NAME``."""
    return click.Option([option.no_flag], is_flag=True, hidden=True)


def help_row(option: Option, options: Mapping[str, Option]) -> tuple[str, str]:
    """Return the spelling of a flag, and its help with its default and the modes in which it has an effect."""
    choices, text = "|".join(option.choices), option.help
    if option.kind is bool:
        spelling = f"--[no-]{option.flag.removeprefix('--')}" + (f" [{choices}]" if choices else "")
    elif len(choices) > MAX_CHOICES_LENGTH:
        spelling, text = f"{option.flag} NAME", f"{text}: {configuration.list_choices(option.choices)}"
    else:
        metavar = METAVARS[option.kind]
        spelling = f"{option.flag} {choices or (f'{metavar},{metavar},...' if option.multiple else metavar)}"
    notes = [_condition(name, allowed, options.get(name)) for name, allowed in option.applies_to.items()]
    if option.default not in (None, ""):
        notes.insert(0, f"default: {_default(option)}")
    if notes and text.endswith(")") and " (default" in text:  # such as "(default: by family)"
        text, _, default = text[:-1].rpartition(" (default")
        notes.insert(0, f"default{default}")
    return spelling, text + (f" ({'; '.join(notes)})" if notes else "")


def _default(option: Option) -> str:
    if option.kind is bool:
        return "on" if option.default else "off"
    return f"{option.default:g}" if option.kind is float else str(option.default)


def _condition(name: str, allowed: tuple[Any, ...], other: Option | None) -> str:
    """Return a condition of ``applies_to`` in words, such as ``with --model gpt``; ``other`` is the option ``name``."""
    if name == "task":
        return f"{'|'.join(allowed)} data"
    if other is None:
        return f"if {name} is {' or '.join(allowed)}"
    if allowed == (None,):
        return f"without {other.flag}"
    if True in allowed:
        return f"with {other.flag}"
    excluded = [choice for choice in other.choices if choice not in allowed]
    if 0 < len(excluded) < len(allowed):
        return f"not with {other.flag} {'|'.join(excluded)}"
    return f"with {other.flag} {'|'.join(str(value) for value in allowed if value is not None)}"


def given_options(context: click.Context, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags that the user has written, by the name of their option."""
    return {
        name: ",".join(value) if isinstance(value, tuple) else value
        for name, value in flags.items()
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
    }


def make(name: str, on_end: Callable[[Any], None]) -> click.Command:
    """Return the command that trains a recipe.

    Args:
        name: Any value that :func:`dltoolkit.recipe.load` takes.
        on_end: Function that is called with the finished run.
    """
    module = recipe.load(name)

    def train_recipe(words: tuple[str, ...], config_path: str | None, **flags: Any) -> None:
        context = click.get_current_context()
        values = given_options(context, flags)
        for option in switches:
            if values.pop(f"no_{option.name}", False):
                values[option.name] = False
        if words:
            if len(words) == 1 and "data" in values:
                raise UserError(f"The data are given twice, as '{words[0]}' and with --data: leave one of them out.")
            if len(words) > 1:
                raise UserError(f"The argument '{words[-1]}' belongs to no option; see '{help_command(context)}'.")
            values["data"] = words[0]
        from_file = {} if config_path is None else config_file.parse(module.Config, config_path)
        on_end(module.train(module.Config(**{**from_file, **configuration.parse(module.Config, values, flags=True)})))

    shared, declared = configuration.options(configuration.RunConfig), inspect.get_annotations(module.Config)
    options = configuration.options(module.Config)
    switches = [option for option in options.values() if option.kind is bool and option.choices]
    flags = [Flag(option, 0 if name in shared else 1 if name in declared else 2) for name, option in options.items()]
    return RecipeCommand(
        name=name,
        callback=train_recipe,
        params=[
            click.Argument(["words"], nargs=-1, metavar="[DATA]"),
            *flags,
            *map(_no_flag, switches),
            click.Option(["--config", "config_path"], metavar="FILE", help="YAML or JSON file; flags take precedence"),
        ],
        help=(module.__doc__ or "").strip().partition("\n")[0],
        epilog=f"Example: {example(module, name)}",
    )


def example(module: ModuleType, name: str) -> str:
    """Return the first ``dltoolkit train`` command in the docstring of a recipe, for the recipe of this name."""
    for line in (module.__doc__ or "").splitlines():
        words = line.split()
        if words[:2] == ["dltoolkit", "train"]:
            return " ".join([*words[:2], display.quote(name), *words[3:]])
    return f"dltoolkit train {display.quote(name)} --epochs 20"
