"""A linear probe on cached features against Keras' transfer-learning guide, which computes the features in each epoch.

    python benchmarks/frozen_features.py FOLDER --weights FILE

The baseline is the first phase of the guide (keras.io/guides/transfer_learning, seen 2026): the frozen network in
inference mode, average pooling, dropout and a dense layer, Adam, ten epochs, validated after each.
"""

import time

import click
import machine
import numpy as np


@click.command()
@click.argument("data")
@click.option("--backbone", default="MobileNetV2", show_default=True)
@click.option("--weights", help="Weights file (default: ImageNet weights).")
@click.option("--epochs", default=10, show_default=True, help="Epochs of the baseline.")
@click.option("--rounds", default=1, show_default=True, help="Alternating rounds of both sides.")
def main(data: str, backbone: str, weights: str | None, epochs: int, rounds: int) -> None:
    """Train a head both ways on DATA, and print seconds and accuracies on its test split."""
    from dltoolkit import lazy

    lazy.import_tensorflow()
    from dltoolkit.recipes import fine_tune

    from dltoolkit import evaluation, finetuning

    config = fine_tune.Config(
        data=data, backbone=backbone, weights=weights, method="linear-probe", augment=False, resize="crop"
    )
    task = finetuning.tasks.resolve(config).create()
    config = fine_tune.resolve_defaults(config, task)
    splits = fine_tune.build_data(config)
    click.echo(machine.describe())

    for _ in range(rounds):
        network, seconds = fine_tune.build_model(config, splits, task), {}
        start = time.perf_counter()
        transfer = finetuning.transfer.Transfer(config, task, network, splits)
        transfer.fit_linear_probe()
        seconds["cached"] = time.perf_counter() - start
        network = task.backbone.image_features(splits.image_shape)
        start = time.perf_counter()
        baseline = train_baseline(network, splits, epochs)
        seconds["guide"] = time.perf_counter() - start
        for name, model in (("cached", transfer.full_model), ("guide", baseline)):
            labels, batches = evaluation.image_classification.labeled_batches(splits, "test")
            correct = (evaluation.prediction.logits(model, batches).argmax(axis=1) == labels).astype(int)
            low, high = evaluation.metrics.interval(int(correct.sum()), len(labels))
            click.echo(
                f"{name:6} {seconds[name]:7.1f} s, test accuracy {100 * np.mean(correct):.2f} % "
                f"({100 * low:.1f} to {100 * high:.1f})"
            )
        click.echo(f"ratio  {seconds['guide'] / seconds['cached']:7.1f}")


def train_baseline(network, splits, epochs: int):
    """Train the model of the guide, and return it."""
    import keras

    from dltoolkit import data

    network.trainable = False
    image = keras.Input(splits.image_shape)
    x = keras.layers.Dropout(0.2)(network(image, training=False))
    model = keras.Model(image, keras.layers.Dense(len(splits.classes))(x))
    model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    train, validation = (
        data.image.pipeline.evaluation_pipeline(splits, split, 32) for split in ("train", "validation")
    )
    model.fit(train.shuffle(8), epochs=epochs, validation_data=validation, shuffle=False, verbose=0)
    return model


if __name__ == "__main__":
    main()
