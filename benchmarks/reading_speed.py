"""Measure seconds and peak memory for reading and decoding a folder of images.

python benchmarks/reading_speed.py ~/cifar10
"""

import time

import click
import machine


@click.command()
@click.argument("folder")
def main(folder: str) -> None:
    """Read FOLDER as the image classifier does before training and print the cost."""
    from dltoolkit import lazy
    from dltoolkit.machine import peak_memory_mb

    lazy.import_tensorflow()
    from dltoolkit.data.image import dataset

    before = peak_memory_mb()
    began = time.perf_counter()
    splits = dataset.load(folder)
    seconds = time.perf_counter() - began
    click.echo(machine.describe())
    count = len(splits.labels)
    click.echo(
        f"{count:,} images of {splits.image_shape} in {seconds:.1f} s, {count / seconds:,.0f} per second; "
        f"{splits.images.nbytes / 1e6:.0f} MB of pixels, peak memory {before:.0f} -> {peak_memory_mb():.0f} MB"
    )


if __name__ == "__main__":
    main()
