"""Compare training speed with the same network under plain Keras, and measure the input pipeline's share of a step.

    python benchmarks/training_speed.py
    python benchmarks/training_speed.py --side 28 --channels 1 --rounds 7

Plain Keras is what the guides write: arrays passed to ``model.fit`` after ``compile`` with its defaults, and stock
Keras layers; once without augmentation, which is less work than dltoolkit's side does, and once with random flips and
shifts as layers before the network. The sides alternate.
"""

import os
import statistics
import time

import click
import machine
import numpy as np
import plain


@click.command()
@click.option("--side", default=32, show_default=True, help="Image side in pixels.")
@click.option("--channels", default=3, show_default=True, help="Image channels.")
@click.option("--batch-size", default=128, show_default=True)
@click.option("--steps", default=30, show_default=True, help="Steps per round.")
@click.option("--rounds", default=5, show_default=True, help="Rounds per side, alternating.")
def main(side: int, channels: int, batch_size: int, steps: int, rounds: int) -> None:
    """Print images per second of all sides, their ratio, and the input pipeline's share of a step."""
    from dltoolkit import lazy

    lazy.import_tensorflow()
    from dltoolkit.data.image import augment, dataset, pipeline
    from dltoolkit.models.image import classifiers

    rng = np.random.default_rng(0)
    count = steps * batch_size
    pixels = rng.integers(0, 256, (count, side, side, channels), dtype=np.uint8)
    labels = rng.integers(0, 10, count).astype(np.int32)
    everything = np.arange(count)
    splits = dataset.ImageSplits(
        images=pixels,
        labels=labels,
        names=[],
        train=everything,
        validation=everything[:1],
        test=everything[:1],
        classes=[str(i) for i in range(10)],
        fingerprint="",
        source="random",
    )
    shape = (side, side, channels)
    options = augment.default_augmentation(shape, flip=True)

    def batches(start: int):
        return pipeline.training_pipeline(splits, batch_size=batch_size, seed=0, augment=options, start_step=start)

    model = classifiers.build("resnet", shape, 10)
    compile_model(model, batch_size)
    bare = plain_model(model, shape, None)
    augmented = plain_model(model, shape, options)

    def toolkit_round(number: int) -> float:
        began = time.perf_counter()
        model.fit(batches(number * steps), steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0)
        return time.perf_counter() - began

    def plain_round(model) -> float:
        began = time.perf_counter()
        model.fit(pixels, labels, batch_size=batch_size, epochs=1, verbose=0)
        return time.perf_counter() - began

    def pipeline_round(number: int) -> float:
        iterator = iter(batches(number * steps))
        next(iterator)
        began = time.process_time()
        for _ in range(steps):
            next(iterator)
        return time.process_time() - began

    click.echo(machine.describe())
    click.echo(f"{side}x{side}x{channels}, batches of {batch_size}, {model.count_params():,} parameters")
    click.echo(f"{rounds} rounds of {steps} steps")
    sides = {
        "dltoolkit": toolkit_round,
        "plain": lambda number: plain_round(bare),
        "plain, augmented": lambda number: plain_round(augmented),
        "pipeline": pipeline_round,
    }
    took = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, measure in sides.items():
            seconds = measure(number)
            if number:  # the first round compiles
                took[name].append(seconds)
    click.echo(f"{'dltoolkit':18} {count / statistics.median(took['dltoolkit']):5.0f} images per second")
    for name in ("plain", "plain, augmented"):
        ratios = [plain / toolkit for toolkit, plain in zip(took["dltoolkit"], took[name], strict=True)]
        click.echo(
            f"{name:18} {count / statistics.median(took[name]):5.0f} images per second; dltoolkit is "
            f"{statistics.median(ratios):.2f} times as fast (from {min(ratios):.2f} to {max(ratios):.2f})"
        )
    cores = os.cpu_count()
    shares = [used / (seconds * cores) for used, seconds in zip(took["pipeline"], took["dltoolkit"], strict=True)]
    click.echo(f"the input pipeline uses {100 * statistics.median(shares):.1f} % of the processor time of a step")


def compile_model(model, batch_size: int) -> None:
    """Compile the model as the training loop does on this machine."""
    import keras

    from dltoolkit.config import OptimizerOptions
    from dltoolkit.training import optimizer
    from dltoolkit.training.distribute import strategy

    config = OptimizerOptions()
    devices = strategy.devices("auto")
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    xla = strategy.use_xla("auto", devices)
    optimizer.compile(model, config, batch_size, loss=loss, metrics=["accuracy"], jit_compile=xla)


def plain_model(network, shape: tuple[int, int, int], options):
    """Return the same network of stock Keras layers, compiled with Keras' defaults."""
    import keras

    inputs = x = keras.Input(shape)
    if options:
        x = keras.layers.RandomFlip("horizontal")(x)
        x = keras.layers.RandomTranslation(options.shift / shape[0], options.shift / shape[1])(x)
    model = keras.Model(inputs, plain.stock(network)(x))
    model.compile("adamw", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


if __name__ == "__main__":
    main()
