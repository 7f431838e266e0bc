"""Measure the images per second that an image GAN generates and writes as PNG files, start-up excluded.

python benchmarks/gan_generation_speed.py RUN
"""

import tempfile
import time

import click
import machine


@click.command()
@click.argument("run")
@click.option("--count", default=4096, show_default=True, help="Number of images.")
@click.option("--rounds", default=3, show_default=True)
def main(run: str, count: int, rounds: int) -> None:
    """Generate images with RUN, write the files, and print images per second."""
    import dltoolkit
    from dltoolkit.cli import image_files

    trained_run = dltoolkit.load(run)
    side = "x".join(map(str, trained_run.generate(count=1).shape[1:]))
    click.echo(machine.describe())
    for seed in range(rounds):
        began = time.perf_counter()
        images = trained_run.generate(count=count, seed=seed)
        generated = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            image_files.write(images, folder, grid=False, animated=False)
        written = time.perf_counter()
        click.echo(
            f"{side}: {count / (written - began):,.0f} images per second, generated in {generated - began:.2f} s "
            f"and written in {written - generated:.2f} s"
        )


if __name__ == "__main__":
    main()
