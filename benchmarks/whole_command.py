"""Measure a whole dltoolkit command from a cold process: wall seconds, peak memory and the scores of its run.

python benchmarks/whole_command.py -- train image-classifier
python benchmarks/whole_command.py --times 3 -- train image-classifier --seed 1
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import machine


@click.command()
@click.option("--times", default=1, show_default=True, help="Number of runs.")
@click.option("--keep", type=click.Path(path_type=Path), help="Folder that keeps the runs.")
@click.argument("words", nargs=-1, required=True)
def main(times: int, keep: Path | None, words: tuple[str, ...]) -> None:
    """Run `dltoolkit WORDS` and print its cost and its scores."""
    click.echo(machine.describe())
    seconds = []
    for _ in range(times):
        with tempfile.TemporaryDirectory() as scratch:
            folder = keep or Path(scratch)
            before = set(folder.glob("*/*/run.json"))
            began = time.monotonic()
            process = subprocess.Popen([sys.executable, "-m", "dltoolkit", *words, "--out-dir", str(folder)])
            _, status, usage = os.wait4(process.pid, 0)
            seconds.append(time.monotonic() - began)
            if status:
                raise SystemExit(f"the command failed with status {status}")
            (run_file,) = set(folder.glob("*/*/run.json")) - before
            info = json.loads(run_file.read_text())
            metrics = json.loads((run_file.parent / "metrics.json").read_text())
        click.echo(
            f"{seconds[-1]:.1f} s wall ({info['time']['train_seconds']:.1f} s training), "
            f"peak {usage.ru_maxrss / 1024**2:.2f} GiB, {reached(metrics)}"
        )
    if times > 1:
        click.echo(f"median {statistics.median(seconds):.1f} s")


def reached(metrics: dict) -> str:
    """Return the scores of a classifier, a language model or a GAN as a sentence."""
    if "frechet_distance" in metrics.get("test", {}):
        real = metrics["baseline"]["real_vs_real"]
        scores = metrics["test"] | {f"real_vs_real_{name}": value for name, value in real.items()}
        figures = ("gan_train_accuracy", "frechet_distance", "coverage", *(f"real_vs_real_{name}" for name in real))
        return ", ".join(f"{name} {scores[name]:.4f}" for name in figures if name in scores)
    if "accuracy" not in metrics["validation"]:
        parts = [part for part in ("test", "validation") if part in metrics]
        return ", ".join(f"{part} {metrics[part]['loss']:.4f} nats a token" for part in parts)
    test = metrics["test"]
    return (
        f"test accuracy {100 * test['accuracy']:.2f} % "
        f"(95 % interval {100 * test['accuracy_ci95'][0]:.2f} to {100 * test['accuracy_ci95'][1]:.2f}), "
        f"validation {100 * metrics['validation']['accuracy']:.2f} %, "
        f"linear baseline {100 * metrics['baseline']['linear']['accuracy']:.2f} %"
    )


if __name__ == "__main__":
    main()
