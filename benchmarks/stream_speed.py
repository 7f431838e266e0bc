"""Measure the lines per second that `dltoolkit predict RUN -` answers from a pipe, and its memory.

python benchmarks/stream_speed.py saved_models/sentiment-analyzer/reviews-1 --lines 1000000
"""

import subprocess
import sys
import threading
import time
from pathlib import Path

import click
import machine

SUBJECTS = ("the film", "this hotel", "our waiter", "her new album", "the battery", "that course", "the ending", "it")
VERBS = ("was", "seemed", "felt", "turned out", "stayed", "became", "is", "looks")
OPINIONS = (
    "great",
    "dull",
    "a waste of money",
    "better than hoped",
    "rude",
    "lovely",
    "not worth it",
    "fine",
    "perfect",
)


@click.command()
@click.argument("run")
@click.option("--lines", "count", default=200_000, show_default=True, help="Number of lines.")
@click.option("--format", "form", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True)
def main(run: str, count: int, form: str) -> None:
    """Send short lines to `dltoolkit predict RUN - --format …` and print lines per second after the first answer."""
    click.echo(machine.describe())
    process = subprocess.Popen(
        [sys.executable, "-m", "dltoolkit", "predict", run, "-", "--format", form],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    if form == "csv":
        process.stdout.readline()
    process.stdin.write(b"the first line\n")
    process.stdin.flush()
    process.stdout.readline()
    began = time.monotonic()
    threading.Thread(target=send, args=(process.stdin, count), daemon=True).start()
    memory = {}
    for number in range(1, count + 1):
        if not process.stdout.readline():
            raise SystemExit("the command ended early")
        if number * 10 % count == 0:
            memory[number] = resident_mb(process.pid)
    took = time.monotonic() - began
    process.wait()
    click.echo(f"{count:,} lines in {took:.1f} s: {count / took:,.0f} lines per second after the first answer")
    click.echo("resident memory: " + ", ".join(f"{mb:,.0f} MB after {lines:,}" for lines, mb in memory.items()))


def send(pipe, count: int) -> None:
    """Write ``count`` different short lines and close the pipe."""
    for start in range(0, count, 1000):
        lines = [
            f"{SUBJECTS[i % 8]} {VERBS[i // 8 % 8]} {OPINIONS[i // 64 % 9]}, number {i}\n"
            for i in range(start, min(start + 1000, count))
        ]
        pipe.write("".join(lines).encode())
    pipe.close()


def resident_mb(process: int) -> float:
    """Return the resident memory of a process in MB."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1000
    return 0.0


if __name__ == "__main__":
    main()
