"""Test accuracy of fine-tune with few labels per class, over several seeds, which also draw the labeled examples.

    python benchmarks/few_labels.py FOLDER --backbone MobileNetV2 --weights FILE --labels 20 --resize crop

Prints mean and standard deviation of the selected network and of the linear probe alone.
"""

import tempfile

import click
import machine
import numpy as np


@click.command()
@click.argument("data")
@click.option("--backbone", required=True)
@click.option("--weights", help="Weights file (default: ImageNet weights).")
@click.option("--labels", type=int, help="Labels per class (default: all).")
@click.option("--resize", help="How images become squares: crop, letterbox or stretch.")
@click.option("--seeds", default=5, show_default=True)
def main(data: str, backbone: str, weights: str | None, labels: int | None, resize: str | None, seeds: int) -> None:
    """Fine-tune BACKBONE on DATA with every seed."""
    from dltoolkit.recipes import fine_tune

    click.echo(machine.describe())
    accuracies = {"selected": [], "linear probe": []}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            run = fine_tune.train(
                fine_tune.Config(
                    data=data,
                    backbone=backbone,
                    weights=weights,
                    shots=labels,
                    seed=seed,
                    resize=resize,
                    out_dir=folder,
                )
            )
            accuracies["selected"].append(run.metrics["test"]["accuracy"])
            accuracies["linear probe"].append(run.metrics["baseline"]["linear_probe"]["accuracy"])
            selected, probe = (100 * values[-1] for values in accuracies.values())
            click.echo(f"seed {seed}: {selected:.2f} % ({run.info['selected']}), linear probe {probe:.2f} %")
    for name, values in accuracies.items():
        click.echo(f"{name}: mean {100 * np.mean(values):.2f} %, standard deviation {100 * np.std(values, ddof=1):.2f}")


if __name__ == "__main__":
    main()
