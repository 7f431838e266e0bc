"""Scanning and decoding a folder of pictures: seconds and peak memory.

python benchmarks/reading_speed.py ~/cifar10
"""

import time

import click
import machine


@click.command()
@click.argument("folder")
def main(folder: str) -> None:
    """Read FOLDER as the image classifier does before it trains, and print what that took."""
    from dltoolkit import lazy
    from dltoolkit.machine import peak_memory_mb

    lazy.import_tensorflow()
    from dltoolkit.data.image import dataset as images

    before = peak_memory_mb()
    began = time.perf_counter()
    found = images.load(folder)
    seconds = time.perf_counter() - began
    click.echo(machine.describe())
    count = len(found.labels)
    click.echo(
        f"{count:,} pictures of {found.image_shape} in {seconds:.1f} s, {count / seconds:,.0f} a second; "
        f"{found.images.nbytes / 1e6:.0f} MB of pixels, peak memory {before:.0f} -> {peak_memory_mb():.0f} MB"
    )


if __name__ == "__main__":
    main()
