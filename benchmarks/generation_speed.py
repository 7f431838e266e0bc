"""Measure how fast a text generator starts and writes, against a loop that reads the whole context for each token.

python benchmarks/generation_speed.py RUN
"""

import os
import subprocess
import sys
import time

import click
import machine


@click.command()
@click.argument("name")
@click.option("--tokens", default=1000, show_default=True, help="Tokens per text.")
@click.option("--streams", default=32, show_default=True, help="Texts that are generated together.")
def main(name: str, tokens: int, streams: int) -> None:
    """Print the seconds until the first token of a cold command, and the speed of one text and of several at once."""
    import dltoolkit

    run = dltoolkit.load(name)
    click.echo(machine.describe())
    first, total = seconds_of_command(name, tokens)
    click.echo(f"cold command: first token after {first:.1f} s, {tokens} tokens after {total:.1f} s")
    for count in (1, streams):
        options = {"max_tokens": tokens, "count": count, "temperature": 0.8}
        run.generate("\n", **options)  # loads the network
        start = time.monotonic()
        texts = run.generate("\n", **options)
        seconds = time.monotonic() - start
        characters = len(texts) if count == 1 else sum(map(len, texts))
        click.echo(f"{count:3} at once: {characters / seconds:,.0f} characters per second")
    baseline_tokens = min(tokens, 100)
    generate_without_cache(run, 5)
    start = time.monotonic()
    generate_without_cache(run, baseline_tokens)
    click.echo(f"  without a cache: {baseline_tokens / (time.monotonic() - start):,.0f} tokens per second")


def seconds_of_command(name: str, tokens: int) -> tuple[float, float]:
    """Return the seconds from the start of ``dltoolkit generate`` to its first token, and to its end."""
    prompt = "The "
    command = ["generate", name, "--prompt", prompt, "--max-tokens", str(tokens)]
    start, first, written = time.monotonic(), 0.0, 0
    with subprocess.Popen([sys.executable, "-m", "dltoolkit", *command], stdout=subprocess.PIPE) as process:
        while chunk := os.read(process.stdout.fileno(), 1 << 16):
            written += len(chunk)
            if not first and written > len(prompt):
                first = time.monotonic() - start
    return first, time.monotonic() - start


def generate_without_cache(run, tokens: int) -> None:
    """Draw one token after the other, and run the network on the whole context for each of them."""
    import numpy as np

    context_length = run.info["resolved"]["context_length"]
    token_ids, rng = [1] * context_length, np.random.default_rng(0)
    for _ in range(tokens):
        logits = run.model.predict_on_batch(np.array([token_ids[-context_length:]], "int32"))[0, -1] / 0.8
        token_ids.append(int(np.argmax(logits + rng.gumbel(size=len(logits)))))


if __name__ == "__main__":
    main()
