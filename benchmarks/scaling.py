"""Measure the cost of training on two replicas of one machine, two logical CPUs or two workers, against one device.

    python benchmarks/scaling.py gpt
    python benchmarks/scaling.py cnn
    python benchmarks/scaling.py layer

The commands alternate. The examples per second are those of all epochs except the first, which includes the
compilation; validation is included. Two replicas share the same cores here, so 100 % would mean that communication
costs nothing. ``layer`` measures the cost of the layer around TensorFlow's strategies on one device: the same steps
with and without it.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import machine
import numpy as np

SIDES = {"one device": [], "cpu:2": ["--device", "cpu:2"], "two workers": ["launch", "--workers", "2", "--"]}
GPT = ["--context-length", "128", "--batch-tokens", "3072", "--steps", "160", "--sample-tokens", "0", "--limit", "2000"]


@click.command()
@click.argument("what", type=click.Choice(["gpt", "cnn", "layer"]))
@click.option("--rounds", default=3, show_default=True, help="Rounds of each side, in alternation.")
def main(what: str, rounds: int) -> None:
    """Print the throughput of each side, and its ratio to that of one device."""
    click.echo(machine.describe())
    if what == "layer":
        layer(rounds)
        return
    speeds: dict[str, list[float]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        arguments = train_arguments(what, Path(folder))
        for number in range(rounds):
            for side in SIDES:
                out_dir = Path(folder) / f"{side}-{number}"
                speeds[side].append(examples_per_second(arguments, side, out_dir))
    click.echo(f"dltoolkit {' '.join(arguments)}")
    for side, values in speeds.items():
        ratios = [value / one for value, one in zip(values, speeds["one device"], strict=True)]
        click.echo(
            f"{side:12} {statistics.median(values):7.0f} examples per second, {100 * statistics.median(ratios):4.0f} % "
            f"of one device (from {100 * min(ratios):.0f} to {100 * max(ratios):.0f} %)"
        )


def train_arguments(what: str, folder: Path) -> list[str]:
    """Return the arguments of a training run of a few epochs."""
    if what == "gpt":
        return ["train", "text-generator", *GPT]
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3000, 32, 32, 3), dtype=np.uint8)
    np.savez(folder / "images.npz", images=images, labels=rng.integers(0, 10, 3000))
    data = str(folder / "images.npz")
    return ["train", "image-classifier", "--data", data, "--epochs", "4", "--model", "cnn", "--precision", "float32"]


def examples_per_second(arguments: list[str], side: str, folder: Path) -> float:
    """Train, and return the speed of all epochs except the first."""
    extra = SIDES[side]
    arguments = [*extra, *arguments] if extra[:1] == ["launch"] else [*arguments, *extra]
    done = subprocess.run(
        [sys.executable, "-m", "dltoolkit", *arguments, "--out-dir", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        raise click.ClickException(done.stderr)
    (path,) = folder.glob("*/*/run.json")
    rows = [line.split(",") for line in (path.parent / "history.csv").read_text().splitlines()]
    step, seconds = rows[0].index("step"), rows[0].index("seconds")
    batch_size = json.loads(path.read_text())["plan"]["batch_size"]
    steps = int(rows[-1][step]) - int(rows[1][step])
    return steps * batch_size / sum(float(row[seconds]) for row in rows[2:])


def layer(rounds: int) -> None:
    """Compare training steps through the layer around the strategies with plain Keras, on one device."""
    from dltoolkit import lazy

    lazy.import_tensorflow()
    import keras

    from dltoolkit import data, models
    from dltoolkit.config import OptimizerOptions
    from dltoolkit.training import optimizer
    from dltoolkit.training.distribute import replicas, strategy
    from dltoolkit.training.shared_clock import SharedClock

    devices = strategy.devices("cpu")
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (640, 32, 32, 3), dtype=np.uint8), np.eye(10, dtype="float32")
    steps = 40

    def batches():
        import tensorflow as tf

        order = data.batches.index_batches(len(images), 32, 0)
        dataset = order.map(lambda _, rows: (tf.gather(images, rows), tf.gather(labels, rows % 10)))
        return data.pipeline.finalize_pipeline(dataset)

    class Empty(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            pass

    class Synchronize(keras.callbacks.Callback):
        clock = SharedClock(devices)

        def on_train_batch_end(self, batch, logs=None):
            self.clock.synchronize(batch)

    model = models.image.classifiers.build("cnn", (32, 32, 3), 10)
    optimizer.compile(model, OptimizerOptions(), 32, loss=keras.losses.CategoricalCrossentropy(True), jit_compile=False)
    model = replicas.wrap_for_strategy(model, devices)
    options = {"steps_per_epoch": steps, "shuffle": False, "verbose": 0}
    sides = {
        "plain": lambda: model.fit(batches(), callbacks=[Empty()], **options),
        "with the layer": lambda: model.fit(
            replicas.distribute_dataset(batches(), devices), callbacks=[Synchronize()], **options
        ),
    }
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(rounds * 5 + 1):
        for side, measure in sides.items():
            start = time.perf_counter()
            measure()
            if number:  # the first round compiles
                seconds[side].append(time.perf_counter() - start)
    ratios = [layered / plain for plain, layered in zip(*seconds.values(), strict=True)]
    click.echo(
        f"the layer costs {100 * (statistics.median(ratios) - 1):.2f} % of a step of "
        f"{1000 * statistics.median(seconds['plain']) / steps:.1f} ms (median of {len(ratios)} rounds)"
    )


if __name__ == "__main__":
    main()
