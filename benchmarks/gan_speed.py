"""Compare the training speed of the image GAN with a plain implementation of the same networks.

    python benchmarks/gan_speed.py
    python benchmarks/gan_speed.py --side 64 --channels 3

The plain implementation follows TensorFlow's tutorial: stock Keras layers, one call of the discriminator on real and
one on generated images, two tapes in a ``tf.function``. It has neither a gradient penalty nor an average of the
weights; the GAN of dltoolkit has both. The two sides alternate.
"""

import statistics
import time

import click
import machine
import numpy as np
import plain


@click.command()
@click.option("--side", default=28, show_default=True, help="Image side in pixels.")
@click.option("--channels", default=1, show_default=True, help="Image channels.")
@click.option("--batch-size", default=64, show_default=True)
@click.option("--steps", default=20, show_default=True, help="Steps per round.")
@click.option("--rounds", default=15, show_default=True, help="Rounds per side, alternating.")
def main(side: int, channels: int, batch_size: int, steps: int, rounds: int) -> None:
    """Print images per second of both training steps and their ratio."""
    from dltoolkit import lazy

    lazy.import_tensorflow()
    import keras
    import tensorflow as tf
    from dltoolkit.recipes import image_gan

    from dltoolkit import models

    config = image_gan.Config(learning_rate=1e-3, discriminator_lr=1e-3)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, side, side, channels), dtype=np.uint8)
    one_hot = np.eye(10, dtype=np.float32)[rng.integers(0, 10, batch_size)]
    options = tf.data.Options()
    options.autotune.enabled = False  # stopping the autotuner takes time that would be counted
    batches = tf.data.Dataset.from_tensors((images, one_hot)).repeat().with_options(options)
    gan = models.gan.gan.Gan("dcgan", (side, side, channels), 10)
    image_gan.compile_model(gan, config, batch_size, jit_compile=False)
    networks = [plain.stock(network) for network in (gan.generator, gan.discriminator)]
    step = plain.adversarial_step(*networks, batch_size, 1e-3)

    def toolkit_round() -> None:
        gan.fit(batches, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0)

    def plain_round() -> None:
        for images, classes in batches.take(steps):
            step(images, classes)

    took = {toolkit_round: [], plain_round: []}
    for number in range(rounds + 1):
        for train in took:
            began = time.perf_counter()
            train()
            if number:  # the first round compiles
                took[train].append(time.perf_counter() - began)
    click.echo(machine.describe())
    click.echo(f"{side}x{side}x{channels}, batches of {batch_size}, Keras {keras.__version__}")
    for name, seconds in zip(("dltoolkit", "plain"), took.values(), strict=True):
        click.echo(f"{name:9} {steps * batch_size / statistics.median(seconds):6.0f} images per second")
    ratios = [plain / toolkit for toolkit, plain in zip(*took.values(), strict=True)]
    click.echo(f"ratio     {statistics.median(ratios):6.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
