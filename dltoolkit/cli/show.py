"""The verbs that read run directories and lists: show, list and compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

import dltoolkit
from dltoolkit import recipe
from dltoolkit.cli.tables import metric_cells, print_json, print_table
from dltoolkit.cli.verb_options import out_dir_option, table_or_json_option

if TYPE_CHECKING:
    from dltoolkit.run import Run

DATA_FORMS = [
    ["FOLDER", "class folders, optionally inside train, validation and test folders"],
    ["FILE", ".csv, .tsv, .jsonl or .parquet with a column of paths or texts and one of labels, or .npz arrays"],
    ["keras:NAME", "data set that Keras downloads: mnist, fashion_mnist, cifar10, cifar100"],
    ["NAME, tfds:NAME/CONFIG", "TensorFlow data set, such as fashion_mnist"],
]
MAX_CLASSES = 12  # class names that show prints, so that a thousand classes do not fill the screen


@click.command(epilog="Example: dltoolkit show latest")
@click.argument("run")
@table_or_json_option
@out_dir_option
def show(run: str, form: str, out_dir: str) -> None:
    """Show the state, the data, the model and the scores of RUN."""
    opened = dltoolkit.load(run, out_dir)
    if form == "json":
        print_json({**opened.info, "metrics": opened.metrics})
    else:
        print_run(opened)


@click.command(name="list", epilog="Example: dltoolkit list runs")
@click.argument("what", required=False, type=click.Choice(["recipes", "runs", "data", "backbones"]))
@out_dir_option
def list_(what: str | None, out_dir: str) -> None:
    """List recipes, data, runs or backbones.

    Without WHAT, it lists recipes, data and runs. Backbones are the networks that fine-tune downloads.
    """
    if what in (None, "recipes"):
        print_table(["recipe", "purpose"], [[name, recipe.summary(path)] for name, path in recipe.names().items()])
    if what in (None, "data"):
        print_data()
    if what == "backbones":
        print_backbones()
    if what in (None, "runs"):
        print_runs(dltoolkit.runs(out_dir), out_dir)


@click.command(epilog="Example: dltoolkit compare digits-1 digits-2")
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...")
@out_dir_option
def compare(runs: tuple[str, ...], out_dir: str) -> None:
    """Compare the scores and options of runs."""
    print_comparison([dltoolkit.load(run, out_dir) for run in runs])


def print_run(run: Run) -> None:
    """Print the state, the data, the model and the scores of a run."""
    info, metrics = run.info, run.metrics
    data = info.get("data", {})
    classes = data.get("classes", [])
    more = f", … ({len(classes)} in total)" if len(classes) > MAX_CLASSES else ""
    rows = [
        ["run", str(run.path)],
        ["state", info["state"] + (f": {info['error']}" if info.get("error") else "")],
        ["command", info.get("command", "")],
        ["data", data.get("source", "")],
        ["splits", ", ".join(f"{split} {count}" for split, count in data.get("splits", {}).items())],
        ["classes", ", ".join(classes[:MAX_CLASSES]) + more],
        ["model", "{name}, {parameters:,} parameters".format(**info["model"]) if "model" in info else ""],
        ["device", "{kind} × {replicas}, {precision}".format(**info["device"]) if "device" in info else ""],
        ["epochs", str(len(run.history))],
    ]
    for split in ("validation", "test"):
        cells = metric_cells(metrics.get(split, {}))
        rows += [[f"{split} {name}".replace("_", " "), value] for name, value in cells.items()]
    for name, values in metrics.get("baseline", {}).items():
        cells = metric_cells(values)
        rows.append([f"{name} baseline".replace("_", " "), next(iter(cells.values()), "")])
    rows.append(["report", str(run.path / "report.html")])
    print_table([], [row for row in rows if row[1]])


def print_data() -> None:
    """Print the values that ``--data`` takes."""
    from dltoolkit.data.readers import source

    click.echo()
    rows = [[name, text] for name, text in source.BUNDLED.items()]
    print_table(["data", "description (the first need no download)"], [*rows, *DATA_FORMS])


def print_backbones() -> None:
    """Print the names of the networks that fine-tune downloads."""
    from dltoolkit.models.pretrained.keras_applications import APPLICATIONS

    rows = [
        [name, f"{application.million_parameters:g} million", f"{application.image_size}x{application.image_size}"]
        for name, application in APPLICATIONS.items()
    ]
    print_table(["backbone", "parameters", "images"], rows)


def print_runs(runs: Sequence[Run], out_dir: str) -> None:
    """Print the runs with their states and main scores, oldest first."""
    click.echo()
    if not runs:
        click.echo(f"No runs in {out_dir} yet.")
        return
    rows = []
    for run in runs:
        scores = [
            f"{name.replace('_', ' ')} {value}" for name, value in metric_cells(run.metrics.get("test", {})).items()
        ]
        name = f"{run.path.parent.name}/{run.path.name}"
        rows.append([name, run.info["state"], next(iter(scores), ""), run.info.get("created", "")])
    print_table(["run", "state", "test", "created"], rows)


def print_comparison(runs: Sequence[Run]) -> None:
    """Print the scores of runs in columns, and the options in which they differ."""
    rows = [["state", *(run.info["state"] for run in runs)]]
    scores = [metric_cells(run.metrics.get("test", {})) for run in runs]
    for name in dict.fromkeys(name for cells in scores for name in cells):
        rows.append([f"test {name}".replace("_", " "), *(cells.get(name, "") for cells in scores)])
    rows.append(["train seconds", *(str(run.info.get("time", {}).get("train_seconds", "")) for run in runs)])
    rows.append(["parameters", *(f"{run.info.get('model', {}).get('parameters', 0):,}" for run in runs)])
    for option in dict.fromkeys(option for run in runs for option in run.info["config"]):
        values = [str(run.info["config"].get(option)) for run in runs]
        if len(set(values)) > 1 and option != "name":
            rows.append([option, *values])
    print_table(["", *(run.path.name for run in runs)], rows)
