"""``dltoolkit check-data``: read, validate and split data as training would, and print what was understood."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import click

from dltoolkit import config as configuration
from dltoolkit import display, recipe
from dltoolkit.cli.recipe_command import Flag, RecipeCommand, given_options
from dltoolkit.cli.tables import print_json
from dltoolkit.cli.verb_options import table_or_json_option
from dltoolkit.config import Option
from dltoolkit.errors import UserError
from dltoolkit.formatting import counted

FLAGS_OF_OTHER_GROUPS = ("seed",)  # options that change the splits, besides those of the group "data"


class CheckDataCommand(RecipeCommand):
    """A command with the options of all recipes that decide how data are read and split."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the parameters; the recipes are imported for the first call only."""
        if not any(isinstance(parameter, Flag) for parameter in self.params):
            self.params += _flags()
        return super().get_params(ctx)


@click.command(
    name="check-data",
    cls=CheckDataCommand,
    epilog="Example: dltoolkit check-data ~/reviews.csv --text-column review --label-column stars",
)
@click.argument("data", metavar="DATA")
@click.option(
    "--recipe",
    "recipe_name",
    metavar="RECIPE",
    help="Recipe that would be trained.  [default: image-classifier, sentiment-analyzer or text-generator]",
)
@table_or_json_option
def check_data(data: str, recipe_name: str | None, form: str, **flags: Any) -> None:
    """Read, validate and split DATA as training would, and print what was understood; train nothing."""
    from dltoolkit import plan, progress

    values = given_options(click.get_current_context(), flags)
    name = recipe_name or _detect_recipe(data, values)
    module = recipe.load(name)
    declared = configuration.options(module.Config)
    if unknown := sorted(values.keys() - declared.keys()):
        raise UserError(f"--{unknown[0].replace('_', '-')} has no effect on data for {name}: leave it out.")
    config = configuration.make(module.Config, {**values, "data": data}, flags=True)
    with progress.phase(f"Reading {data}"):
        splits = module.build_data(config)
    if not hasattr(splits, "summary"):
        raise UserError(f"The data of {name} cannot be described, because its build_data returns no splits.")
    findings = getattr(splits, "findings", [])
    if form == "json":
        listed = [{"input": example, "finding": problem} for example, problem in findings]
        print_json({"recipe": name, **splits.describe(), "findings": listed})
        return
    click.echo(plan.render([*splits.summary(), ("Findings", _describe_findings(findings))]))
    click.echo(f"Train with these data: {_train_command(name, data, values, declared)}")
    for warning in splits.describe().get("warnings", []):
        progress.warn(warning)


def _flags() -> list[Flag]:
    """Return a flag for each option of any recipe that decides how data are read and split."""
    options = {}
    for name in recipe.names():
        for option in configuration.options(recipe.load(name).Config).values():
            if option.name != "data" and (option.group == "data" or option.name in FLAGS_OF_OTHER_GROUPS):
                options.setdefault(option.name, option)
    flags = []
    for option in options.values():  # conditions on the options of training would mean nothing here
        conditions = {name: allowed for name, allowed in option.applies_to.items() if name in ("task", *options)}
        flags.append(Flag(dataclasses.replace(option, applies_to=conditions), 0))
    return flags


def _detect_recipe(data: str, values: Mapping[str, Any]) -> str:
    """Return the recipe for images, labeled texts or plain text.

    Args:
        data: Value of ``--data``.
        values: The options that were given, some of which say how to read a table.
    """
    from dltoolkit.data import task
    from dltoolkit.data.options import ReadOptions
    from dltoolkit.data.readers import source

    resolved = source.resolve(data)
    if resolved.kind == "text" or resolved.reference == "python-docs":
        return "text-generator"
    given = {name: value for name, value in values.items() if name in configuration.options(ReadOptions)}
    detected = task.detect(resolved, configuration.make(ReadOptions, given, flags=True))
    return {"image": "image-classifier", "text": "sentiment-analyzer"}[detected]


def _train_command(name: str, data: str, values: Mapping[str, Any], declared: Mapping[str, Option]) -> str:
    words = ["dltoolkit", "train", name, data]
    for option, value in values.items():
        words += [declared[option].no_flag if value is False else declared[option].flag]
        words += [] if isinstance(value, bool) else [str(value)]
    return display.command(*words)


def _describe_findings(findings: list[tuple[str, str]]) -> str:
    if not findings:
        return ""
    count = len(findings)
    return f"{counted(count, 'unusable or repeated example')}; --format json lists them"
