"""What checkpoints take of a training's time, and what restoring from one takes.

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
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED)
def main(words: tuple[str, ...]) -> None:
    """Run `dltoolkit train WORDS`, and resume it for an epoch more."""
    import dltoolkit
    from dltoolkit import lazy
    from dltoolkit.cli import app as cli

    lazy.import_tensorflow()
    from dltoolkit.training import callbacks
    from dltoolkit.training import checkpoint

    click.echo(machine.describe())
    saving, restoring = timed(callbacks.TrainingStateCallback, "_save"), timed(checkpoint, "restore")
    with tempfile.TemporaryDirectory() as scratch:
        out = ["--out-dir", scratch]
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(sys.stderr):
            cli.main(["train", *words, *out])
        (run,) = dltoolkit.runs(scratch)
        took, size = run.info["time"]["train_seconds"], max(path.stat().st_size for path in checkpoint.list_checkpoints(run))
        click.echo(
            f"{took:.1f} s of training, of which {len(saving)} checkpoints of {size / 1e6:.1f} MB took "
            f"{sum(saving):.2f} s: {100 * sum(saving) / took:.2f} %"
        )
        restoring.clear()
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(sys.stderr):
            cli.main(["resume", str(run.path), "--epochs", str(len(run.history) + 1), *out])
        click.echo(f"{sum(restoring):.2f} s for restoring from the last of them")


def timed(owner: object, name: str) -> list[float]:
    """Return a list to which each call of a function adds the seconds that it took."""
    seconds, function = [], getattr(owner, name)

    def measured(*given: object, **named: object) -> object:
        began = time.monotonic()
        try:
            return function(*given, **named)
        finally:
            seconds.append(time.monotonic() - began)

    setattr(owner, name, measured)
    return seconds


if __name__ == "__main__":
    main()
