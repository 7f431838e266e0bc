"""What training on two replicas of this machine costs: two logical CPUs, and two workers, against one device.

    python benchmarks/scaling.py gpt
    python benchmarks/scaling.py cnn
    python benchmarks/scaling.py layer

The whole commands alternate. Examples a second are those of all epochs but the first, which holds the compilation;
validation is included. Two replicas share the same cores here, so that 100 % would be communication for nothing.
``layer`` asks what the layer between dltoolkit and TensorFlow's strategies costs on one device: the same steps with and
without it.
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
    """Print the throughput of each side, and its share of one device's."""
    click.echo(machine.describe())
    if what == "layer":
        layer(rounds)
        return
    took: dict[str, list[float]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        words = command(what, Path(folder))
        for number in range(rounds):
            for side in SIDES:
                out_dir = Path(folder) / f"{side}-{number}"
                took[side].append(examples_a_second(words, side, out_dir))
    click.echo(f"dltoolkit {' '.join(words)}")
    for side, speeds in took.items():
        shares = [mine / one for mine, one in zip(speeds, took["one device"], strict=True)]
        click.echo(
            f"{side:12} {statistics.median(speeds):7.0f} examples a second, {100 * statistics.median(shares):4.0f} % "
            f"of one device (from {100 * min(shares):.0f} to {100 * max(shares):.0f} %)"
        )


def command(what: str, folder: Path) -> list[str]:
    """The words of a training of a few epochs."""
    if what == "gpt":
        return ["train", "text-generator", *GPT]
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (3000, 32, 32, 3), dtype=np.uint8)
    np.savez(folder / "pictures.npz", images=pictures, labels=rng.integers(0, 10, 3000))
    data = str(folder / "pictures.npz")
    return ["train", "image-classifier", "--data", data, "--epochs", "4", "--model", "cnn", "--precision", "float32"]


def examples_a_second(words: list[str], side: str, folder: Path) -> float:
    """Train, and return the speed of all epochs but the first."""
    extra = SIDES[side]
    words = [*extra, *words] if extra[:1] == ["launch"] else [*words, *extra]
    done = subprocess.run(
        [sys.executable, "-m", "dltoolkit", *words, "--out-dir", str(folder)], capture_output=True, text=True
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
    """Compare training steps through what stands before the strategies with plain Keras, on one device."""
    from dltoolkit import lazy

    lazy.import_tensorflow()
    import keras

    from dltoolkit import data, models
    from dltoolkit.config import OptimizerOptions
    from dltoolkit.training import optimizer
    from dltoolkit.training import shared_clock as pace
    from dltoolkit.training.distribute import replicas as distributed
    from dltoolkit.training.distribute import strategy

    devices = strategy.devices("cpu")
    rng = np.random.default_rng(0)
    pictures, labels = rng.integers(0, 256, (640, 32, 32, 3), dtype=np.uint8), np.eye(10, dtype="float32")
    steps = 40

    def batches():
        import tensorflow as tf

        order = data.batches.index_batches(len(pictures), 32, 0)
        made = order.map(lambda _, rows: (tf.gather(pictures, rows), tf.gather(labels, rows % 10)))
        return data.pipeline.finalize_pipeline(made)

    class Watches(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            pass

    class Looks(keras.callbacks.Callback):
        clock = pace.SharedClock(devices)

        def on_train_batch_end(self, batch, logs=None):
            self.clock.look(batch)

    model = models.image.classifiers.build("cnn", (32, 32, 3), 10)
    optimizer.compile(model, OptimizerOptions(), 32, loss=keras.losses.CategoricalCrossentropy(True), jit_compile=False)
    model = distributed.wrap_for_strategy(model, devices)
    how = {"steps_per_epoch": steps, "shuffle": False, "verbose": 0}
    sides = {
        "plain": lambda: model.fit(batches(), callbacks=[Watches()], **how),
        "with the layer": lambda: model.fit(distributed.distribute_dataset(batches(), devices), callbacks=[Looks()], **how),
    }
    took: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(rounds * 5 + 1):
        for side, measure in sides.items():
            began = time.perf_counter()
            measure()
            if number:  # the first round compiles
                took[side].append(time.perf_counter() - began)
    ratios = [ours / plain for plain, ours in zip(*took.values(), strict=True)]
    click.echo(
        f"the layer costs {100 * (statistics.median(ratios) - 1):.2f} % of a step of "
        f"{1000 * statistics.median(took['plain']) / steps:.1f} ms (median of {len(ratios)} rounds)"
    )


if __name__ == "__main__":
    main()
