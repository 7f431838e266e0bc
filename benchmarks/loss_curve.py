"""The validation loss of a run against its seconds of training, compilation and validation included.

dltoolkit train text-generator --data input.txt --validation-tail 0.1 --max-time 20s
python benchmarks/loss_curve.py latest
"""

import itertools

import click
import machine


@click.command()
@click.argument("name")
def main(name: str) -> None:
    """Print seconds, steps, training loss and validation loss at the end of each epoch of the run NAME."""
    import dltoolkit

    run = dltoolkit.load(name)
    click.echo(machine.describe())
    click.echo(f"{run.path.name}: {run.info['model']['parameters']:,} parameters, {run.info.get('resolved', {})}")
    seconds = itertools.accumulate(float(row["seconds"]) for row in run.history)
    for elapsed, row in zip(seconds, run.history, strict=True):
        click.echo(
            f"{elapsed:8.1f} s  step {int(row['step']):6}  training {row['loss']:.4f}  "
            f"validation {row['validation_loss']:.4f}"
        )
    click.echo(f"{run.info['time']['train_seconds']:8.1f} s in total")


if __name__ == "__main__":
    main()
