"""The image GAN beside the DCGAN of TensorFlow's tutorial, trained as long on the same pictures and measured alike.

    dltoolkit train image-gan --data fashion_mnist --max-time 10m
    python benchmarks/gan_baseline.py latest

The tutorial's networks, rates and step (tensorflow.org/tutorials/generative/dcgan, seen 2026) are for 28x28 grey
pictures: 5x5 transposed convolutions, batch normalisation, leaky ReLU and dropout, Adam at 0.0001, batches of 256.
"""

import time

import click
import machine
import numpy as np
import plain

NOISE = 100
BATCH = 256


@click.command()
@click.argument("run")
@click.option("--seconds", type=float, help="How long to train; by default as long as RUN did.")
def main(run: str, seconds: float | None) -> None:
    """Train the tutorial's GAN on RUN's data, and print its distances from the test pictures beside RUN's."""
    import dltoolkit
    from dltoolkit import lazy

    lazy.import_tensorflow()
    from dltoolkit.recipes import image_gan

    from dltoolkit import evaluation

    found = dltoolkit.load(run)
    pictures = image_gan.build_data(found.config)
    found.check_data(pictures.describe())
    probe = evaluation.feature_extractor.of_data(pictures)
    seconds = seconds or found.info["time"]["train_seconds"]
    generator, steps = trained(pictures.images[pictures.train], seconds)
    count = len(pictures.test)
    noise = np.random.default_rng(1).standard_normal((count, NOISE)).astype("float32")
    drawn = np.concatenate([generator.predict_on_batch(noise[i : i + BATCH]) for i in range(0, count, BATCH)])
    drawn = np.clip(np.round((drawn + 1) * 127.5), 0, 255).astype("uint8")
    real = probe.features(pictures.images[pictures.test])[0]
    train = probe.features(pictures.images[pictures.train])[0]
    theirs = evaluation.gan.measure(probe.features(drawn)[0], real, train)
    click.echo(machine.describe())
    click.echo(f"{found.path.name}: {found.info['time']['train_seconds']:.0f} s of training")
    click.echo(f"tutorial: {seconds:.0f} s, {steps} steps of {BATCH}")
    for name in ("frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage"):
        click.echo(f"{name:20} ours {found.metrics['test'][name]:9.4f}   tutorial {theirs[name]:9.4f}")


def trained(pictures: np.ndarray, seconds: float):
    """Return the tutorial's generator after so many seconds, compilation included, and how many steps it made."""
    import keras
    import tensorflow as tf

    layers = keras.layers
    generator = keras.Sequential(
        [
            keras.Input((NOISE,)),
            layers.Dense(7 * 7 * 256, use_bias=False),
            layers.BatchNormalization(),
            layers.LeakyReLU(),
            layers.Reshape((7, 7, 256)),
            layers.Conv2DTranspose(128, 5, 1, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.LeakyReLU(),
            layers.Conv2DTranspose(64, 5, 2, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.LeakyReLU(),
            layers.Conv2DTranspose(1, 5, 2, padding="same", use_bias=False, activation="tanh"),
        ]
    )
    discriminator = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(64, 5, 2, padding="same"),
            layers.LeakyReLU(),
            layers.Dropout(0.3),
            layers.Conv2D(128, 5, 2, padding="same"),
            layers.LeakyReLU(),
            layers.Dropout(0.3),
            layers.Flatten(),
            layers.Dense(1),
        ]
    )
    step = plain.adversarial_step(generator, discriminator, BATCH, 1e-4)
    batches = tf.data.Dataset.from_tensor_slices(pictures).shuffle(len(pictures)).batch(BATCH, drop_remainder=True)
    began = time.monotonic()
    for steps, images in enumerate(batches.repeat(), 1):
        step(images)
        if time.monotonic() - began >= seconds:
            return generator, steps


if __name__ == "__main__":
    main()
