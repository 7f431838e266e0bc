"""Test accuracy of fine-tune with few labels of each class, over several seeds that choose which.

    python benchmarks/few_labels.py FOLDER --backbone MobileNetV2 --weights FILE --labels 20

Says the mean over the seeds for what was kept and for a head on frozen features alone.
"""

import tempfile

import click
import machine
import numpy as np


@click.command()
@click.argument("data")
@click.option("--backbone", required=True)
@click.option("--weights", help="Weights file; by default ImageNet's.")
@click.option("--labels", type=int, help="Of each class; by default all.")
@click.option("--seeds", default=5, show_default=True)
def main(data: str, backbone: str, weights: str | None, labels: int | None, seeds: int) -> None:
    """Fine-tune BACKBONE on DATA with every seed."""
    from dltoolkit.recipes import fine_tune

    click.echo(machine.describe())
    found = {"kept": [], "head": []}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            run = fine_tune.train(
                fine_tune.Config(data=data, backbone=backbone, weights=weights, shots=labels, seed=seed, out_dir=folder)
            )
            found["kept"].append(run.metrics["test"]["accuracy"])
            found["head"].append(run.metrics["baseline"]["probe"]["accuracy"])
            kept, head = (100 * values[-1] for values in found.values())
            click.echo(f"seed {seed}: {kept:.2f} % ({run.info['kept']}), head {head:.2f} %")
    for name, values in found.items():
        click.echo(f"{name}: mean {100 * np.mean(values):.2f} %, standard deviation {100 * np.std(values, ddof=1):.2f}")


if __name__ == "__main__":
    main()
