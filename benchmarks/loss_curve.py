"""The validation loss of a run against its seconds of training, compilation and validations included.

dltoolkit train text-generator --data input.txt --validation-tail 0.1 --max-time 20s
python benchmarks/loss_curve.py latest
"""

import itertools

import click
import machine


@click.command()
@click.argument("run")
def main(run: str) -> None:
    """Print seconds, steps and loss of the training and the validation at the end of each epoch of RUN."""
    import dltoolkit

    found = dltoolkit.load(run)
    click.echo(machine.describe())
    click.echo(f"{found.path.name}: {found.info['model']['parameters']:,} parameters, {found.info.get('chosen', {})}")
    seconds = itertools.accumulate(float(row["seconds"]) for row in found.history)
    for passed, row in zip(seconds, found.history, strict=True):
        click.echo(
            f"{passed:8.1f} s  step {int(row['step']):6}  training {row['loss']:.4f}  "
            f"validation {row['validation_loss']:.4f}"
        )
    click.echo(f"{found.info['time']['train_seconds']:8.1f} s in all")


if __name__ == "__main__":
    main()
