"""The verbs that read run directories and lists: show, list and compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from dltoolkit import config as configuration
from dltoolkit import display, recipe
from dltoolkit.cli.tables import metric_cells, print_json, print_table
from dltoolkit.cli.verb_options import open_run, out_dir_option, table_or_json_option
from dltoolkit.errors import UserError
from dltoolkit.formatting import data_rows, main_split, metric_label

if TYPE_CHECKING:
    from dltoolkit.run import Run

DATA_FORMS = [
    ["FOLDER", "class folders, optionally inside train, validation and test folders"],
    ["FILE", ".csv, .tsv, .jsonl or .parquet with a column of paths or texts and one of labels, or .npz arrays"],
    ["keras:NAME", "data set that Keras downloads: mnist, fashion_mnist, cifar10, cifar100"],
    ["NAME, tfds:NAME/CONFIG", "TensorFlow data set, such as fashion_mnist"],
]
READING = (  # options that decide which examples a run reads and tests
    *("label_column", "text_column", "image_column", "split_column", "header", "encoding", "label_pattern"),
    *("skip_invalid", "max_pixels", "max_length", "lowercase", "limit", "seed", "validation_fraction", "test_fraction"),
)
ABSENT = "–"  # stands for a score or value that a run does not have
MAX_CLASSES = 12  # class names that show prints, so that a thousand classes do not fill the screen


@click.command(epilog="Example: dltoolkit show latest")
@click.argument("run")
@table_or_json_option
@out_dir_option
def show(run: str, form: str, out_dir: str) -> None:
    """Show the state, the data, the model and the scores of RUN."""
    opened = open_run(run, out_dir)
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
        print_runs(out_dir)


@click.command(epilog="Example: dltoolkit compare digits-1 digits-2")
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...")
@out_dir_option
def compare(runs: tuple[str, ...], out_dir: str) -> None:
    """Compare the scores, the data and the options of runs.

    A dash stands for an option that a recipe lacks, or that was left to its default.
    """
    if len(runs) < 2:
        example = display.command("dltoolkit", "compare", runs[0], "OTHER_RUN")
        raise UserError(f"compare needs at least two runs, such as: {example}")
    opened = [open_run(run, out_dir) for run in runs]
    repeated = [run for i, run in enumerate(opened) if run.path.resolve() in {o.path.resolve() for o in opened[:i]}]
    if repeated:
        raise UserError(f"{repeated[0].path} is named twice: name different runs.")
    print_comparison(opened)


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
        *([label, value] for label, value in data_rows(data) if label != "classes"),
        ["classes", ", ".join(classes[:MAX_CLASSES]) + more if len(classes) > 1 else ""],
        ["model", "{name}, {parameters:,} parameters".format_map(info["model"]) if "model" in info else ""],
        ["device", "{kind} × {replicas}, {precision}".format_map(info["device"]) if "device" in info else ""],
        ["epochs", str(len(run.history))],
    ]
    for split in ("validation", "test"):
        cells = metric_cells(metrics.get(split, {}))
        rows += [[f"{split} {label}", value] for label, value in cells.items()]
    main = next(iter(metric_cells(main_split(metrics))), "")
    for name, values in metrics.get("baseline", {}).items():
        cells = metric_cells(values)
        rows.append([f"{metric_label(name)} baseline", cells.get(main) or next(iter(cells.values()), "")])
    rows.append(["report", str(run.path / "report.html")])
    print_table([], [row for row in rows if row[1]], unbroken=("run", "command", "report"))


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


def print_runs(out_dir: str) -> None:
    """Print the runs in a folder, oldest first, with states and main scores, and warnings about damaged ones."""
    from dltoolkit import saved_runs  # imports what --help does not need

    runs, unreadable = saved_runs.scan(out_dir)
    click.echo()
    if not runs and not unreadable:
        click.echo(f"No runs in {display.visible(out_dir)} yet.")
        return
    rows = []
    for run in runs:
        scores = []
        try:
            scores += [f"{label} {value}" for label, value in metric_cells(run.metrics.get("test", {})).items()]
        except UserError as error:
            unreadable[run.path] = str(error)
        name = f"{run.path.parent.name}/{run.path.name}"
        created = run.info.get("created", "")[:16].replace("T", " ")  # without seconds
        rows.append([name, run.info["state"], next(iter(scores), ""), created])
    if rows:
        print_table(["run", "state", "test", "created"], rows)
    saved_runs.warn_of_unreadable(unreadable)


def print_comparison(runs: Sequence[Run]) -> None:
    """Print the scores of runs in columns, what their data are, and the options in which they differ.

    A score or value that a run lacks is a dash, and so is an option that its recipe lacks.
    """
    recipes = [run.info["recipe"] for run in runs]
    names = [run.path.name for run in runs]
    if len(set(recipes)) > 1 or len(set(names)) < len(names):
        names = [f"{run.path.parent.name}/{run.path.name}" for run in runs]
    data = [run.info.get("data", {}) for run in runs]
    rows = [["recipe", *recipes]] if len(set(recipes)) > 1 else []
    rows.append(["state", *(run.info["state"] for run in runs)])
    cells = [metric_cells(run.metrics.get("test", {})) for run in runs]
    labels = dict.fromkeys(label for scores in cells for label in scores)
    rows += [[f"test {label}", *(scores.get(label, ABSENT) for scores in cells)] for label in labels]
    rows.append(["training time", *(_training_time(run) for run in runs)])
    parameters = [run.info.get("model", {}).get("parameters") for run in runs]
    rows.append(["parameters", *(ABSENT if count is None else f"{count:,}" for count in parameters)])
    rows.append(["data", *(str(each.get("source") or ABSENT) for each in data)])
    configs = [configuration.display(run.info["config"]) for run in runs]
    for option in dict.fromkeys(option for config in configs for option in config):
        values = [_option_text(config.get(option)) for config in configs]
        if option not in ("name", "data") and len(set(values)) > 1:
            rows.append([f"--{option.replace('_', '-')}", *values])
    print_table(["", *names], rows, break_words=True)
    if reason := _describe_difference(runs):
        click.echo(f"{reason}: their scores are not comparable.", err=True)
    elif len(runs) > 1 and not set.intersection(*(set(scores) for scores in cells)):
        click.echo("The runs have no score in common.", err=True)


def _describe_difference(runs: Sequence[Run]) -> str:
    """Return why runs were tested on different examples, as the beginning of a sentence; "" if they were not."""
    data = [run.info.get("data", {}) for run in runs]
    options = {option: {str(run.info["config"].get(option)) for run in runs} for option in READING}
    different = [f"--{option.replace('_', '-')}" for option, values in options.items() if len(values) > 1]
    splitting = [flag for flag in different if flag in ("--seed", "--validation-fraction", "--test-fraction")]
    if len({each.get("fingerprint") for each in data}) == 1:
        own_splits = any("split by" in (each.get("split_origin") or "") for each in data)
        return f"The runs split the data differently ({', '.join(splitting)})" if splitting and own_splits else ""
    if len({str(each.get("source")) for each in data}) > 1:
        return "The runs were trained on different data"
    if read := [flag for flag in different if flag not in splitting or "--limit" in different]:
        return f"The runs read the data differently ({', '.join(read)})"
    return "The data have changed between the runs"


def _training_time(run: Run) -> str:
    from dltoolkit import progress  # imports Rich, which takes a noticeable part of the time of --help

    seconds = run.info.get("time", {}).get("train_seconds")
    return ABSENT if seconds is None else progress.duration(seconds)


def _option_text(value: Any) -> str:
    """Return the value of an option as the command line takes it; a dash if it was left to its default."""
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
