"""Measure how long the explanations of texts take with each method that a run can have, after loading.

    python benchmarks/explanation_speed_texts.py RUN --data reviews

RUN is a run or an export. The first text, which compiles, is explained once before.
"""

import time

import click
import machine

import dltoolkit


@click.command()
@click.argument("run")
@click.option("--data", default="reviews", show_default=True, help="Labeled texts, as --data of train takes them.")
@click.option("--texts", default=100, show_default=True, help="Texts that are explained.")
@click.option("--method", multiple=True, help="Method; may be repeated.  [default: all that the run can have]")
def main(run: str, data: str, texts: int, method: tuple[str, ...]) -> None:
    """Print the time of all explanations by method."""
    click.echo(machine.describe())
    opened = dltoolkit.load(run)
    explainer = opened.explainer
    values = explainer.read_labeled(data)[:texts]
    words = sum(len(explainer.word_by_word(value).spans) for value in values) / len(values)
    click.echo(f"{run}: {len(values)} texts of {words:.0f} words that the model reads")
    for name in method or explainer.available:
        opened.explain(max(values, key=len), method=name)
        start = time.perf_counter()
        opened.explain(values, method=name)
        click.echo(f"{name:22s} {time.perf_counter() - start:8.2f} s")


if __name__ == "__main__":
    main()
