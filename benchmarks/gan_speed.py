"""Training speed of the image GAN against a plain implementation of the same networks, in alternation.

    python benchmarks/gan_speed.py
    python benchmarks/gan_speed.py --side 64 --channels 3

The plain one is what TensorFlow's tutorial writes: stock Keras layers, the discriminator called on real and on
generated pictures, two tapes in a ``tf.function``. It has neither gradient penalty nor average; ours has both.
"""

import statistics
import time

import click
import machine
import numpy as np


@click.command()
@click.option("--side", default=28, show_default=True, help="Pictures' side in pixels.")
@click.option("--channels", default=1, show_default=True, help="Pictures' channels.")
@click.option("--batch-size", default=64, show_default=True)
@click.option("--steps", default=40, show_default=True, help="Steps in a round.")
@click.option("--rounds", default=7, show_default=True, help="Rounds of each side, in alternation.")
def main(side: int, channels: int, batch_size: int, steps: int, rounds: int) -> None:
    """Print pictures a second through both training steps, and their ratio."""
    from dltoolkit import lazy

    lazy.import_tensorflow()
    import keras
    import tensorflow as tf
    from dltoolkit.recipes import image_gan

    from dltoolkit import models

    config = image_gan.Config(learning_rate=1e-3, discriminator_rate=1e-3)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, side, side, channels), dtype=np.uint8)
    one_hot = np.eye(10, dtype=np.float32)[rng.integers(0, 10, batch_size)]
    batches = tf.data.Dataset.from_tensors((images, one_hot)).repeat()
    gan = models.gan.Gan("dcgan", (side, side, channels), 10)
    image_gan.compile_model(gan, config, jit_compile=False)
    networks = [plainly(network) for network in (gan.generator, gan.discriminator)]
    step = plain_step(*networks, batch_size)

    def ours() -> None:
        gan.fit(batches, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0)

    def plain() -> None:
        for pictures, classes in batches.take(steps):
            step(pictures, classes)

    took = {ours: [], plain: []}
    for number in range(rounds + 1):
        for one in took:
            began = time.perf_counter()
            one()
            if number:  # the first round compiles
                took[one].append(time.perf_counter() - began)
    click.echo(machine.describe())
    click.echo(f"{side}x{side}x{channels}, batches of {batch_size}, Keras {keras.__version__}")
    for one, seconds in took.items():
        click.echo(f"{one.__name__:6} {steps * batch_size / statistics.median(seconds):6.0f} pictures a second")
    ratios = [theirs / mine for mine, theirs in zip(took[ours], took[plain], strict=True)]
    click.echo(f"ratio  {statistics.median(ratios):6.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")


def plainly(network):
    """The same network of Keras' own layers."""
    import keras

    from dltoolkit.models import layers

    def own_layer(layer):
        if isinstance(layer, layers.UpConv2D):
            convolution = keras.layers.Conv2D(layer.filters, 3, padding="same", use_bias=False)
            return keras.Sequential([keras.layers.UpSampling2D(), convolution])
        kind = keras.layers.BatchNormalization if isinstance(layer, layers.BatchNorm) else type(layer)
        return kind.from_config(layer.get_config())

    return keras.models.clone_model(network, clone_function=own_layer)


def plain_step(generator, discriminator, batch_size: int):
    """The step of TensorFlow's tutorial, given classes too."""
    import keras
    import tensorflow as tf

    entropy = keras.losses.BinaryCrossentropy(from_logits=True)
    optimizers = keras.optimizers.Adam(1e-3), keras.optimizers.Adam(1e-3)

    @tf.function
    def step(images, one_hot):
        real_images = (tf.cast(images, tf.float32) - 127.5) / 127.5
        labels = tf.argmax(one_hot, axis=-1, output_type=tf.int32)
        noise = tf.random.normal((batch_size, generator.inputs[0].shape[1]))
        with tf.GradientTape() as generator_tape, tf.GradientTape() as discriminator_tape:
            drawn = generator([noise, labels], training=True)
            real = discriminator([real_images, labels], training=True)
            fake = discriminator([drawn, labels], training=True)
            generator_loss = entropy(tf.ones_like(fake), fake)
            discriminator_loss = entropy(tf.ones_like(real), real) + entropy(tf.zeros_like(fake), fake)
        for tape, loss, network, optimizer in (
            (generator_tape, generator_loss, generator, optimizers[0]),
            (discriminator_tape, discriminator_loss, discriminator, optimizers[1]),
        ):
            variables = network.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    return step


if __name__ == "__main__":
    main()
