"""Measure the answers of an exported run against those of the run: whole commands, one item, batches, memory.

    python benchmarks/export_speed.py image RUN IMAGE_FOLDER
    python benchmarks/export_speed.py text RUN

A copy of the run is exported first. What is compared takes turns, so that other work on the machine slows both.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import machine
import numpy as np

TIMES = 5  # of each command
ITEMS = 200  # calls for one item
RUNTIMES = ("onnx", "litert")
# Runs a command and prints its seconds and its peak memory in MB. A process of its own does this because the peak of a
# new process begins with that of the process that started it.
WATCH = """
import json, os, subprocess, sys, time
start = time.monotonic()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(json.dumps([time.monotonic() - start, usage.ru_maxrss / 1024, status]))
"""


@click.group()
def main() -> None:
    """Compare exported files with runs."""
    click.echo(machine.describe())


@main.command()
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--times", default=TIMES, show_default=True, help="Runs of each command.")
def image(name: str, folder: Path, times: int) -> None:
    """Predict one image and all images of a folder with a classifier of images and with its exports."""
    one = next(path for path in sorted(folder.rglob("*")) if path.suffix.lower() in (".png", ".jpg"))
    with tempfile.TemporaryDirectory() as scratch:
        paths = export(name, Path(scratch))
        compare_commands("one image", {key: ["predict", path, one] for key, path in paths.items()}, times)
        everything = {key: ["predict", path, folder, "--format", "csv"] for key, path in paths.items()}
        compare_commands("all images of the folder", everything, max(1, times // 2))
        compare_items(paths)


@main.command()
@click.argument("name")
@click.option("--prompt", default="\n", help="Beginning of the text.  [default: a line break]")
@click.option("--tokens", default=500, show_default=True, help="Tokens of the text.")
@click.option("--times", default=TIMES, show_default=True, help="Texts.")
def text(name: str, prompt: str, tokens: int, times: int) -> None:
    """Generate a text with a text generator and with its exports."""
    import dltoolkit

    with tempfile.TemporaryDirectory() as scratch:
        paths = export(name, Path(scratch))
        command = ["--prompt", prompt, "--max-tokens", str(tokens)]
        compare_commands("one text", {key: ["generate", path, *command] for key, path in paths.items()}, times)
        models = {key: dltoolkit.load(path) for key, path in paths.items()}
        calls = {key: lambda model=model: model.generate(prompt, max_tokens=tokens) for key, model in models.items()}
        report(f"{tokens} tokens in a running process", in_turns(calls, times), {})


def export(name: str, scratch: Path) -> dict[str, Path]:
    """Export a copy of a run, and return the paths of the copy, which has no exports, and of its exports."""
    import dltoolkit

    run = dltoolkit.load(name)
    paths = {"run": scratch / "run"}
    shutil.copytree(run.path, paths["run"], ignore=shutil.ignore_patterns("exports"))
    for runtime in RUNTIMES:
        paths[runtime] = scratch / runtime
        command = ["export", run.path, "--format", runtime, "--out", paths[runtime]]
        subprocess.run([sys.executable, "-m", "dltoolkit", *map(str, command)], check=True, stdout=subprocess.DEVNULL)
    return paths


def compare_commands(title: str, commands: dict[str, list[object]], times: int) -> None:
    """Run commands in turns, and print their median seconds and peak memory."""
    seconds, memory = {key: [] for key in commands}, {}
    for key in [*commands] * times:
        words = [sys.executable, "-c", WATCH, sys.executable, "-m", "dltoolkit", *map(str, commands[key])]
        result = subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout
        spent, memory[key], status = json.loads(result)
        if status:
            raise SystemExit(f"the command of {key} failed with status {status}")
        seconds[key].append(spent)
    report(title, seconds, memory)


def compare_items(paths: dict[str, Path]) -> None:
    """Answer one item in this process with a tf.function of the model and with the sessions, in turns."""
    import dltoolkit
    from dltoolkit import lazy

    lazy.import_tensorflow()  # without its messages
    import tensorflow as tf

    model = dltoolkit.load(paths["run"]).model
    pixels = np.zeros((1, *model.input_shape[1:]), np.uint8)
    function = tf.function(lambda x: model(x, training=False), autograph=False)
    calls = {"run": lambda: function(pixels).numpy()}
    for runtime in RUNTIMES:
        session = dltoolkit.load(paths[runtime]).session
        calls[runtime] = lambda session=session: session.run({"image": pixels})
    report("one item in a running process", in_turns(calls, ITEMS), {})


def in_turns(calls: dict[str, Callable[[], object]], times: int) -> dict[str, list[float]]:
    """Return the seconds of each call, after one that is not counted."""
    seconds = {key: [] for key in calls}
    for number in range(times + 1):
        for key, call in calls.items():
            start = time.perf_counter()
            call()
            if number:
                seconds[key].append(time.perf_counter() - start)
    return seconds


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
