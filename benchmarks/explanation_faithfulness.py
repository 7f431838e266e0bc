"""Measure how faithful the methods of explanation are to a run, next to random values, with intervals.

    python benchmarks/explanation_faithfulness.py RUN

Every method is measured, also those that auto leaves out because they take long.
"""

import math

import click
import machine

import dltoolkit
from dltoolkit.explanation import faithfulness


@click.command()
@click.argument("run")
@click.option("--examples", default=50, show_default=True, help="Examples on which the methods are measured.")
@click.option("--data", help="Other labeled data.  [default: validation split of the run]")
def main(run: str, examples: int, data: str | None) -> None:
    """Print the figures of each method."""
    click.echo(machine.describe())
    explainer = dltoolkit.load(run).explainer
    faithfulness.EXAMPLES, faithfulness.MAX_SECONDS = examples, math.inf
    figures = faithfulness.measure(explainer, faithfulness.sample(explainer.examples(data)))
    names = list(figures["random"])
    click.echo(f"{run}: {figures['examples']} {explainer.kind}s; mean (95 % interval)")
    click.echo(f"{'':22s} {'ms':>7s}  " + "  ".join(f"{name:>22s}" for name in names))
    rows = {name: (each["seconds"], each["figures"]) for name, each in figures["methods"].items()}
    for name, (seconds, row) in {**rows, "random": (0.0, figures["random"])}.items():
        cells = (f"{row[key]['mean']:+.2f} ({row[key]['low']:+.2f} to {row[key]['high']:+.2f})" for key in names)
        click.echo(f"{name:22s} {1000 * seconds:7.0f}  " + "  ".join(f"{cell:>22s}" for cell in cells))
    click.echo(f"auto: {figures['auto']}")


if __name__ == "__main__":
    main()
