"""A head on frozen features, computed once, against Keras' transfer-learning guide, which computes them each epoch.

    python benchmarks/frozen_features.py FOLDER --weights FILE

The plain side is the guide's first phase (keras.io/guides/transfer_learning, seen 2026): the frozen network in
inference mode, average pooling, dropout and a dense layer, Adam, ten epochs, validated after each.
"""

import time

import click
import machine
import numpy as np


@click.command()
@click.argument("data")
@click.option("--backbone", default="MobileNetV2", show_default=True)
@click.option("--weights", help="Weights file; by default ImageNet's.")
@click.option("--epochs", default=10, show_default=True, help="Of the plain side.")
@click.option("--rounds", default=1, show_default=True, help="Rounds of each side, in alternation.")
def main(data: str, backbone: str, weights: str | None, epochs: int, rounds: int) -> None:
    """Train a head both ways on DATA, and print seconds and accuracies on its test split."""
    from dltoolkit import lazy

    lazy.import_tensorflow()
    from dltoolkit.recipes import fine_tune

    from dltoolkit import evaluation, finetuning, models

    config = fine_tune.Config(data=data, backbone=backbone, weights=weights, method="linear-probe", augment=False)
    config = fine_tune.suited(config, "pictures")
    pictures = fine_tune.build_data(config)
    click.echo(machine.describe())

    for _ in range(rounds):
        network, took = fine_tune.build_model(config, pictures), {}
        began = time.perf_counter()
        work = finetuning.transfer.Transfer(config, network, pictures)
        work.fit_head()
        took["ours"] = time.perf_counter() - began
        named = models.pretrained.keras_applications.find(backbone)
        network = models.pretrained.image_backbones.from_application(named, pictures.image_shape, weights or "imagenet")
        began = time.perf_counter()
        plain = plainly(network, pictures, epochs)
        took["plain"] = time.perf_counter() - began
        for name, model in (("ours", work.whole), ("plain", plain)):
            labels, batches = evaluation.image_classification.labeled_batches(pictures, "test")
            right = (evaluation.prediction.logits(model, batches).argmax(axis=1) == labels).astype(int)
            low, high = evaluation.metrics.interval(int(right.sum()), len(labels))
            click.echo(
                f"{name:6} {took[name]:7.1f} s, test accuracy {100 * np.mean(right):.2f} % "
                f"({100 * low:.1f} to {100 * high:.1f})"
            )
        click.echo(f"ratio  {took['plain'] / took['ours']:7.1f}")


def plainly(network, pictures, epochs: int):
    """The guide's model, trained."""
    import keras

    from dltoolkit import data

    network.trainable = False
    image = keras.Input(pictures.image_shape)
    x = keras.layers.Dropout(0.2)(network(image, training=False))
    model = keras.Model(image, keras.layers.Dense(len(pictures.classes))(x))
    model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    parts = (data.pipeline.evaluation_pipeline(pictures, name, 32) for name in ("train", "validation"))
    train, validation = parts
    model.fit(train.shuffle(8), epochs=epochs, validation_data=validation, shuffle=False, verbose=0)
    return model


if __name__ == "__main__":
    main()
