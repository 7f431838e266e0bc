"""The verb that exports a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dltoolkit import progress
from dltoolkit.cli.tables import print_json, print_table
from dltoolkit.cli.verb_options import open_run, out_dir_option, recipe_option
from dltoolkit.errors import ExportRefused, UserError
from dltoolkit.export.folder import MODEL_FILES


@click.command(epilog="Example: dltoolkit export latest --format litert --quantize int8")
@click.argument("run")
@click.option(
    "--format", "runtime", default="onnx", show_default=True, metavar="|".join((*MODEL_FILES, "all")), help="Format."
)
@click.option("--quantize", default="none", show_default=True, metavar="none|float16|int8", help="Type of the weights.")
@click.option("--out", metavar="DIR", help="New folder.  [default: exports/FORMAT in the run]")
@click.option("--data", metavar="DATA", help="Where the data of the run are now, if they have moved.")
@click.option("--keep-anyway", is_flag=True, help="Keep a file that does not answer as the run does.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@recipe_option
@out_dir_option
def export(
    run: str, runtime: str, out: str | None, as_json: bool, recipe_file: str | None, out_dir: str, **options: Any
) -> int:
    """Write a folder that another runtime answers from, such as ONNX Runtime on a server or LiteRT on a phone.

    The file answers the test split of RUN from raw inputs first. If it does not answer as RUN does, it is deleted and
    the exit code is 1.
    """
    from dltoolkit.export import card, exporting

    if runtime == "all" and out:
        raise UserError("--out has no effect with --format=all: leave it out.")
    opened = open_run(run, out_dir, recipe_file)
    exports, code = {}, 0
    for each in MODEL_FILES if runtime == "all" else [runtime]:
        try:
            path, info = exporting.export_run(opened, each, out=out, **options)
            exports[str(path)] = info
        except (ExportRefused, UserError) as error:
            if runtime != "all":
                raise
            progress.warn(f"No {each}: {error}")
            code = 1 if isinstance(error, ExportRefused) else code
    if not exports and not code:
        raise UserError("No format was written: the warnings say why.")
    if as_json:
        print_json({path: dict(info) for path, info in exports.items()})
        return code
    rows = [card.row(info) for info in exports.values()]
    if rows:
        keras = {"runtime": "the run", "quantize": "none", **exporting.speed_of_run(opened)}
        print_table(card.COLUMNS, [*rows, card.row(keras)])
    for path in exports:
        click.echo(f"\n{_use(Path(path), exports[path])}")
    return code


def _use(path: Path, info: dict[str, Any]) -> str:
    from dltoolkit.display import command
    from dltoolkit.export.exported import OTHERS

    verbs = {
        "image-classifier": ("predict", "IMAGE"),
        "text-classifier": ("predict", "TEXT"),
        "text-generator": ("generate", "--prompt", "TEXT"),
        "image-generator": ("generate", "--count", "9"),
    }
    verb, *rest = verbs[info["kind"]]
    if info["runtime"] in OTHERS:
        return f"written to  {command(path)}"
    return f"written to  {command(path)}\nuse it      {command('dltoolkit', verb, path, *rest)}"
