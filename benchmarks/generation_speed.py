"""Measure the characters per second of a text generator, against a loop that reads the whole context for each token.

python benchmarks/generation_speed.py RUN
"""

import time

import click
import machine


@click.command()
@click.argument("name")
@click.option("--tokens", default=1000, show_default=True, help="Tokens per text.")
@click.option("--streams", default=32, show_default=True, help="Texts that are generated together.")
def main(name: str, tokens: int, streams: int) -> None:
    """Generate one text and several texts at once with the run NAME, and print the speed without compilation."""
    import dltoolkit

    run = dltoolkit.load(name)
    click.echo(machine.describe())
    for count in (1, streams):
        options = {"max_tokens": tokens, "count": count, "temperature": 0.8}
        run.generate("\n", **options)  # compiles
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
