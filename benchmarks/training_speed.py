"""Training speed against the same model under plain Keras, in alternation, and the input pipeline's share of a step.

    python benchmarks/training_speed.py
    python benchmarks/training_speed.py --side 28 --channels 1 --rounds 7

Plain Keras is what the Keras guides write: arrays given to ``model.fit`` after ``compile`` with its defaults, random
flips and shifts as layers in front of the network.
"""

import os
import statistics
import time

import click
import machine
import numpy as np


@click.command()
@click.option("--side", default=32, show_default=True, help="Pictures' side in pixels.")
@click.option("--channels", default=3, show_default=True, help="Pictures' channels.")
@click.option("--batch-size", default=128, show_default=True)
@click.option("--steps", default=30, show_default=True, help="Steps in a round.")
@click.option("--rounds", default=5, show_default=True, help="Rounds of each side, in alternation.")
def main(side: int, channels: int, batch_size: int, steps: int, rounds: int) -> None:
    """Print pictures a second on both sides, their ratio, and what the input pipeline takes of a step."""
    from dltoolkit import lazy

    lazy.import_tensorflow()
    from dltoolkit.data import augment, images, pipeline
    from dltoolkit.models import vision

    rng = np.random.default_rng(0)
    count = steps * batch_size
    pixels = rng.integers(0, 256, (count, side, side, channels), dtype=np.uint8)
    labels = rng.integers(0, 10, count).astype(np.int32)
    everything = np.arange(count)
    splits = images.ImageSplits(
        pixels, labels, [], everything, everything[:1], everything[:1], [str(i) for i in range(10)], "", "random"
    )
    shape = (side, side, channels)
    options = augment.for_images(shape, flip=True)

    def batches(start: int):
        return pipeline.training_pipeline(splits, batch_size=batch_size, seed=0, augment=options, start_step=start)

    ours = vision.build("resnet", shape, 10)
    compile_ours(ours, batch_size)
    plain = plain_model(vision.build("resnet", shape, 10), shape, options)

    def ours_round(number: int) -> float:
        began = time.perf_counter()
        ours.fit(batches(number * steps), steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0)
        return time.perf_counter() - began

    def plain_round(number: int) -> float:
        began = time.perf_counter()
        plain.fit(pixels, labels, batch_size=batch_size, epochs=1, verbose=0)
        return time.perf_counter() - began

    def pipeline_round(number: int) -> float:
        iterator = iter(batches(number * steps))
        next(iterator)
        began = time.process_time()
        for _ in range(steps):
            next(iterator)
        return time.process_time() - began

    click.echo(machine.describe())
    click.echo(f"{side}x{side}x{channels}, batches of {batch_size}, {ours.count_params():,} parameters")
    click.echo(f"{rounds} rounds of {steps} steps")
    for side_of in (ours_round, plain_round):
        side_of(0)  # compiles
    took = {"ours": [], "plain": [], "pipeline": []}
    for number in range(1, rounds + 1):
        took["ours"].append(ours_round(number))
        took["plain"].append(plain_round(number))
        took["pipeline"].append(pipeline_round(number))
    for name in ("ours", "plain"):
        click.echo(f"{name:8} {count / statistics.median(took[name]):7.0f} pictures a second")
    ratios = [plain / mine for mine, plain in zip(took["ours"], took["plain"], strict=True)]
    click.echo(f"ratio    {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")
    cores = os.cpu_count()
    shares = [used / (mine * cores) for used, mine in zip(took["pipeline"], took["ours"], strict=True)]
    click.echo(f"the input pipeline uses {100 * statistics.median(shares):.1f} % of the processor time of a step")


def compile_ours(model, batch_size: int) -> None:
    """Compile as the training loop does on this machine."""
    import keras

    from dltoolkit.config import RunConfig
    from dltoolkit.training import optimizer, strategy

    config = RunConfig()
    devices = strategy.devices(config.device)
    rule, _ = optimizer.make(config, batch_size)
    optimizer.spare_vectors(rule, model)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    model.compile(rule, loss, metrics=["accuracy"], jit_compile=strategy.xla(config.xla, devices))


def plain_model(network, shape: tuple[int, int, int], options):
    """The same network, as the Keras guides would train it: augmentation layers, default compile."""
    import keras

    inputs = keras.Input(shape)
    x = keras.layers.RandomFlip("horizontal")(inputs)
    x = keras.layers.RandomTranslation(options.shift / shape[0], options.shift / shape[1])(x)
    model = keras.Model(inputs, network(x))
    model.compile("adamw", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


if __name__ == "__main__":
    main()
