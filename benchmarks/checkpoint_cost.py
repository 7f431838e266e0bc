"""Measure the share of the training time that checkpoints take, and the time to restore one.

python benchmarks/checkpoint_cost.py image-classifier --epochs 8
python benchmarks/checkpoint_cost.py text-generator --max-time 60s
"""

import contextlib
import sys
import tempfile
import time

import click
import machine


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED)
def main(arguments: tuple[str, ...]) -> None:
    """Run `dltoolkit train ARGUMENTS`, and resume the run for one more epoch."""
    import dltoolkit
    from dltoolkit import lazy
    from dltoolkit.cli import app as cli

    lazy.import_tensorflow()
    from dltoolkit.training import callbacks, checkpoint

    click.echo(machine.describe())
    saving, restoring = timed(callbacks.TrainingStateCallback, "_save"), timed(checkpoint, "restore")
    with tempfile.TemporaryDirectory() as scratch:
        out = ["--out-dir", scratch]
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(sys.stderr):
            cli.main(["train", *arguments, *out])
        (run,) = dltoolkit.runs(scratch)
        seconds = run.info["time"]["train_seconds"]
        size = max(path.stat().st_size for path in checkpoint.list_checkpoints(run))
        click.echo(
            f"{seconds:.1f} s of training, of which {len(saving)} checkpoints of {size / 1e6:.1f} MB took "
            f"{sum(saving):.2f} s: {100 * sum(saving) / seconds:.2f} %"
        )
        restoring.clear()
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(sys.stderr):
            cli.main(["resume", str(run.path), "--epochs", str(len(run.history) + 1), *out])
        click.echo(f"{sum(restoring):.2f} s to restore the last checkpoint")


def timed(owner: object, name: str) -> list[float]:
    """Replace a function by one that appends its seconds to a list, and return the list."""
    seconds, function = [], getattr(owner, name)

    def measured(*arguments: object, **options: object) -> object:
        start = time.monotonic()
        try:
            return function(*arguments, **options)
        finally:
            seconds.append(time.monotonic() - start)

    setattr(owner, name, measured)
    return seconds


if __name__ == "__main__":
    main()
