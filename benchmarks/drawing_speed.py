"""Pictures a second that an image GAN draws and writes as PNG files, start-up apart.

python benchmarks/drawing_speed.py RUN
"""

import tempfile
import time

import click
import machine


@click.command()
@click.argument("run")
@click.option("--count", default=4096, show_default=True, help="Pictures to draw.")
@click.option("--rounds", default=3, show_default=True)
def main(run: str, count: int, rounds: int) -> None:
    """Let RUN draw, write the files, and print how many pictures that was a second."""
    import dltoolkit
    from dltoolkit.cli import output

    found = dltoolkit.load(run)
    side = "x".join(map(str, found.generate(count=1).shape[1:]))
    click.echo(machine.describe())
    for seed in range(rounds):
        began = time.perf_counter()
        pictures = found.generate(count=count, seed=seed)
        drawn = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            output.pictures(pictures, folder, grid=False, animated=False)
        written = time.perf_counter()
        click.echo(
            f"{side}: {count / (written - began):,.0f} pictures a second, drawn in {drawn - began:.2f} s and written "
            f"in {written - drawn:.2f} s"
        )


if __name__ == "__main__":
    main()
