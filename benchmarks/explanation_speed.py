"""Measure how long the explanation of one image takes with each method that a run can have, after loading.

    python benchmarks/explanation_speed.py RUN IMAGE_FOLDER

RUN is a run or an export. The first call, which compiles, is not counted.
"""

import statistics
import time
from pathlib import Path

import click
import machine

import dltoolkit


@click.command()
@click.argument("run")
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--images", default=5, show_default=True, help="Images that are explained.")
@click.option("--method", multiple=True, help="Method; may be repeated.  [default: all that the run can have]")
def main(run: str, folder: Path, images: int, method: tuple[str, ...]) -> None:
    """Print the median time of an explanation by method."""
    click.echo(machine.describe())
    opened = dltoolkit.load(run)
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in (".png", ".jpg")][:images]
    height, width, channels = opened.explainer.predictor.shape
    click.echo(f"{run}: images of {width}x{height}x{channels}, median of {len(paths)}")
    for name in method or opened.explainer.available:
        opened.explain(paths[0], method=name)
        seconds = []
        for path in paths:
            start = time.perf_counter()
            opened.explain(path, method=name)
            seconds.append(time.perf_counter() - start)
        click.echo(f"{name:22s} {1000 * statistics.median(seconds):8.0f} ms")


if __name__ == "__main__":
    main()
