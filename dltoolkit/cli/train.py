"""The verbs that train: train, resume and launch; and copy, for a recipe to change."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import click

import dltoolkit
from dltoolkit import config as configuration
from dltoolkit import recipe
from dltoolkit.cli import recipe_command
from dltoolkit.cli.tables import print_table
from dltoolkit.cli.verb_options import open_run, out_dir_option, recipe_option
from dltoolkit.formatting import metric_label, metric_value, percent

if TYPE_CHECKING:
    from dltoolkit.run import Run


class RecipeGroup(click.Group):
    """The group ``train`` with one subcommand for each recipe, made from its ``Config``; a .py file is one too."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(recipe.names())

    def get_command(self, ctx: click.Context, name: str) -> click.Command:
        return recipe_command.make(name, print_summary)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Recipes"):
            formatter.write_dl([(name, recipe.summary(path)) for name, path in recipe.names().items()])


# Main scores of a GAN, and the name of each for real images
GAN_SCORES = {
    "gan_train_accuracy": "classifier_accuracy",
    "frechet_distance": "frechet_distance",
    "kernel_distance": "kernel_distance",
}


@click.group(
    cls=RecipeGroup,
    subcommand_metavar="RECIPE [OPTIONS]",
    epilog="Example: dltoolkit train image-classifier --data ~/flowers --epochs 20. "
    "'dltoolkit train RECIPE --help' lists the options of a recipe.",
)
def train() -> None:
    """Train a recipe, or a copied recipe ./FILE.py."""


@click.command(epilog="Example: dltoolkit resume latest --epochs 40")
@click.argument("run")
@click.option("--epochs", metavar="N", help="Total number of epochs.")
@click.option("--max-time", metavar="T", help="Additional training time, such as 10m.")
@click.option("--device", metavar="D", help="Device to continue on.")
@recipe_option
@out_dir_option
def resume(run: str, out_dir: str, recipe_file: str | None, **options: str | None) -> None:
    """Continue the training of RUN where it stopped."""
    changes = {name: value for name, value in options.items() if value is not None}
    opened = open_run(run, out_dir, recipe_file)
    changes = configuration.parse(opened.recipe.Config, changes, flags=True)
    print_summary(dltoolkit.resume(opened, **changes))


@click.command(
    epilog="Example: dltoolkit launch --workers 2 -- train image-classifier --epochs 5",
    context_settings={"ignore_unknown_options": True},
)
@click.option("--workers", type=click.IntRange(2, 256), required=True, metavar="N", help="Number of processes.")
@click.option(
    "--timeout", default="10m", show_default=True, metavar="TIME", help="Time to wait for all processes to start."
)
@click.option("--trust-network", is_flag=True, help="Let other machines connect to the processes and control them.")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- train|resume ...")
def launch(workers: int, timeout: str, trust_network: bool, words: tuple[str, ...]) -> int:
    """Train in several processes on this machine.

    They train together as several machines do with TF_CONFIG. Lines on stderr begin with the number of the worker. If
    one worker ends early, all end.
    """
    from dltoolkit.training.distribute import launch as launcher

    code, error = launcher.launch(words, workers, timeout, trust_network=trust_network)
    if error:
        failure = click.ClickException(error)
        failure.exit_code = code
        raise failure
    return code


@click.command(epilog="Example: dltoolkit copy image-classifier . && dltoolkit train ./image_classifier.py")
@click.argument("recipe_name", metavar="RECIPE")
@click.argument("folder", default=".", metavar="[DIR]")
def copy(recipe_name: str, folder: str) -> None:
    """Copy the file of a recipe into DIR.

    Change the copy and train with it.
    """
    target = recipe.copy(recipe_name, folder)
    click.echo(target)
    click.echo(f"Train with it: {recipe.train_command(target)}", err=True)


def print_summary(run: Run) -> None:
    """Print the scores, the baselines, the time and the next command of a finished training; on the chief only."""
    from dltoolkit import plan
    from dltoolkit.evaluation import significance
    from dltoolkit.progress import duration
    from dltoolkit.report import headline

    if not run.writes:
        return
    metrics = run.metrics
    verdict = headline.verdict(metrics)
    rows = [("result", str(verdict))] if verdict else []
    rows += [row for split in ("test", "validation") for row in _score_rows(split, metrics.get(split, {}))]
    baselines = dict(metrics.get("baseline", {}))
    rows += _gan_rows(metrics.get("test", {}), baselines.pop("real_vs_real", {}))
    for name, values in baselines.items():
        bits = values.get("bits_per_character")
        metric = significance.main_metric(metrics.get("test", {}))
        score = percent(values[metric]) if bits is None else f"{bits:.3f} bits per character"
        rows.append((f"{name.replace('_', ' ')} baseline", score))
    times = run.info.get("time", {})
    if "train_seconds" in times:
        training, total = (duration(times[name]) for name in ("train_seconds", "total_seconds"))
        rows.append(("time", f"{training} training, {total} in total"))
    if hasattr(run.recipe, "predict"):
        words = ["predict", "INPUT..."]
    else:
        options = ["--prompt", "TEXT"] if hasattr(run.recipe, "stream_text") else ["--count", "64", "--grid"]
        words = ["generate", *options]
    rows += [("run", run.path), ("report", run.path / "report.html")]
    rows.append(("use it", run.command(*words)))
    if sys.stdout.isatty():
        columns = shutil.get_terminal_size().columns
        rows = [(name, str(value)) for name, value in rows]
        click.echo(plan.render(rows, width=columns, unbroken=("run", "report", "use it")))
    else:
        print_table([], rows)


def _score_rows(split: str, metrics: dict) -> list[tuple[str, str]]:
    """Return names and values of the main scores on a split."""
    if "accuracy" in metrics:
        from dltoolkit.evaluation import significance

        names, rows = dict.fromkeys((significance.main_metric(metrics), "accuracy")), []
        for name in names:
            bounds = metrics[f"{name}_ci95"]
            interval = "  (95 % interval {} to {})".format(*map(percent, bounds)) if bounds else ""
            rows.append((f"{split} {name.replace('_', ' ')}", f"{percent(metrics[name])}{interval}"))
        label, value = rows[0]
        return [(label, f"{value}  macro F1 {percent(metrics['macro_f1'])}"), *rows[1:]]
    if "bits_per_character" in metrics:
        return [(split, "{bits_per_character:.3f} bits per character  loss {loss:.4f}".format_map(metrics))]
    return []


def _gan_rows(metrics: dict, baseline: dict) -> list[tuple[str, str]]:
    """Return names and values of the main scores of a GAN, with those of real images as the baseline."""
    return [
        (metric_label(name), f"{metric_value(name, metrics[name])}  (real images: {metric_value(name, baseline[key])})")
        for name, key in GAN_SCORES.items()
        if name in metrics and key in baseline
    ]
