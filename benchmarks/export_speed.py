"""Measure the answers of an exported run against those of the run: whole commands, one item, batches, memory.

    python benchmarks/export_speed.py image RUN IMAGE_FOLDER
    python benchmarks/export_speed.py text RUN

The run is exported first, to folders of its own. Commands alternate, so that other work on the machine slows both.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import machine
import numpy as np

TIMES = 5  # of each command


@click.group()
def main() -> None:
    """Compare exported files with runs."""
    click.echo(machine.describe())


@main.command()
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path))
def image(name: str, folder: Path) -> None:
    """Predict one image and all images of a folder with a classifier of images and with its exports."""
    import dltoolkit

    run = dltoolkit.load(name)
    one = next(path for path in sorted(folder.rglob("*")) if path.suffix.lower() in (".png", ".jpg"))
    with tempfile.TemporaryDirectory() as scratch:
        paths = {"run": str(run.path)}
        for runtime in ("onnx", "litert"):
            paths[runtime] = str(run.export(runtime, out=Path(scratch) / runtime))
        compare_commands("one image", {key: ["predict", path, str(one)] for key, path in paths.items()}, TIMES)
        compare_items(run, paths)
        everything = {key: ["predict", path, str(folder), "--format", "csv"] for key, path in paths.items()}
        compare_commands("all images of the folder", everything, 2)


@main.command()
@click.argument("name")
@click.option("--tokens", default=500, show_default=True, help="Tokens of the text.")
def text(name: str, tokens: int) -> None:
    """Generate a text with a text generator and with its exports."""
    import dltoolkit

    run = dltoolkit.load(name)
    with tempfile.TemporaryDirectory() as scratch:
        models = {"run": run}
        for runtime in ("onnx", "litert"):
            models[runtime] = dltoolkit.load(run.export(runtime, out=Path(scratch) / runtime))
        seconds = {key: [] for key in models}
        for _ in range(TIMES):
            for key, model in models.items():
                start = time.monotonic()
                model.generate("\n", max_tokens=tokens)
                seconds[key].append(time.monotonic() - start)
        report("one text", seconds, {})


def compare_commands(title: str, commands: dict[str, list[str]], times: int) -> None:
    """Run commands in turns, and print their median seconds and peak memory."""
    seconds, memory = {key: [] for key in commands}, {}
    for _ in range(times):
        for key, words in commands.items():
            start = time.monotonic()
            process = subprocess.Popen([sys.executable, "-m", "dltoolkit", *words], stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            if status:
                raise SystemExit(f"the command of {key} failed with status {status}")
            seconds[key].append(time.monotonic() - start)
            memory[key] = usage.ru_maxrss / 1024
    report(title, seconds, memory)


def compare_items(run, paths: dict[str, str]) -> None:
    """Answer one item in this process with a tf.function of the model and with the sessions, in turns."""
    import tensorflow as tf

    import dltoolkit

    pixels = np.zeros((1, *run.model.input_shape[1:]), np.uint8)
    function = tf.function(lambda x: run.model(x, training=False))
    calls = {"run": lambda: function(pixels).numpy()}
    for runtime in ("onnx", "litert"):
        session = dltoolkit.load(paths[runtime]).session
        calls[runtime] = lambda session=session: session.run({"image": pixels})
    seconds = {key: [] for key in calls}
    for _ in range(200):
        for key, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[key].append(time.perf_counter() - start)
    report("one item in a running process", seconds, {})


def report(title: str, seconds: dict[str, list[float]], memory: dict[str, float]) -> None:
    """Print medians, and how many times as fast as the run each export is."""
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    click.echo(title)
    for key, median in medians.items():
        peak = f", peak {memory[key]:,.0f} MB" if key in memory else ""
        click.echo(
            f"  {key:7} {1000 * median:10,.3f} ms, {medians['run'] / median:6.2f} times as fast as the run{peak}"
        )


if __name__ == "__main__":
    main()
