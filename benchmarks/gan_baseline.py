"""Compare the image GAN with the DCGAN of TensorFlow's tutorial, trained as long on the same images.

    dltoolkit train image-gan --data fashion_mnist --max-time 10m
    python benchmarks/gan_baseline.py latest

The tutorial's networks, learning rates and training step (tensorflow.org/tutorials/generative/dcgan, read in 2026) are
for 28x28 grayscale images: 5x5 transposed convolutions, batch normalization, leaky ReLU and dropout, Adam at 0.0001,
batches of 256.
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
@click.option("--seconds", type=float, help="Training time in seconds; default: that of RUN.")
def main(run: str, seconds: float | None) -> None:
    """Train the tutorial's GAN on the data of RUN and print the metrics of both on the test images."""
    import dltoolkit
    from dltoolkit import lazy

    lazy.import_tensorflow()
    from dltoolkit.recipes import image_gan

    from dltoolkit import evaluation

    trained_run = dltoolkit.load(run)
    splits = image_gan.build_data(trained_run.config)
    trained_run.check_data(splits.describe())
    extractor = evaluation.feature_extractor.for_dataset(splits)
    seconds = seconds or trained_run.info["time"]["train_seconds"]
    generator, steps = trained(splits.images[splits.train], seconds)
    count = len(splits.test)
    noise = np.random.default_rng(1).standard_normal((count, NOISE)).astype("float32")
    generated = np.concatenate([generator.predict_on_batch(noise[i : i + BATCH]) for i in range(0, count, BATCH)])
    generated = np.clip(np.round((generated + 1) * 127.5), 0, 255).astype("uint8")
    real = extractor.features(splits.images[splits.test])[0]
    train = extractor.features(splits.images[splits.train])[0]
    tutorial, _ = evaluation.gan.compare(extractor.features(generated)[0], real, train)
    click.echo(machine.describe())
    click.echo(f"{trained_run.path.name}: {trained_run.info['time']['train_seconds']:.0f} s of training")
    click.echo(f"tutorial: {seconds:.0f} s, {steps} steps of {BATCH}")
    for name in ("frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage"):
        click.echo(f"{name:20} dltoolkit {trained_run.metrics['test'][name]:9.4f}   tutorial {tutorial[name]:9.4f}")


def trained(images: np.ndarray, seconds: float):
    """Return the tutorial's generator after ``seconds`` of training, compilation included, and its number of steps."""
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
    batches = tf.data.Dataset.from_tensor_slices(images).shuffle(len(images)).batch(BATCH, drop_remainder=True)
    began = time.monotonic()
    for steps, images in enumerate(batches.repeat(), 1):
        step(images)
        if time.monotonic() - began >= seconds:
            return generator, steps


if __name__ == "__main__":
    main()
