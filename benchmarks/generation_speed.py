"""Characters a second that a text generator writes, against a plain loop over the whole context for each token.

python benchmarks/generation_speed.py RUN
"""

import time

import click
import machine


@click.command()
@click.argument("run")
@click.option("--tokens", default=1000, show_default=True, help="Tokens drawn in each text.")
@click.option("--streams", default=32, show_default=True, help="Texts drawn together.")
def main(run: str, tokens: int, streams: int) -> None:
    """Let RUN write, one text and several at once, and print how fast that was, start-up apart."""
    import dltoolkit

    found = dltoolkit.load(run)
    click.echo(machine.describe())
    for count in (1, streams):
        options = {"max_tokens": tokens, "count": count, "temperature": 0.8}
        found.generate("\n", **options)  # compiles
        began = time.monotonic()
        written = found.generate("\n", **options)
        seconds = time.monotonic() - began
        characters = len(written) if count == 1 else sum(map(len, written))
        click.echo(f"{count:3} at once: {characters / seconds:,.0f} characters a second")
    few = min(tokens, 100)
    plainly(found, 5)
    began = time.monotonic()
    plainly(found, few)
    click.echo(f"  1 plainly: {few / (time.monotonic() - began):,.0f} tokens a second")


def plainly(found, tokens: int) -> None:
    """Draw one token after the other from a fresh look at all of the context."""
    import numpy as np

    context_length = found.info["chosen"]["context_length"]
    text, rng = [1] * context_length, np.random.default_rng(0)
    for _ in range(tokens):
        logits = found.model.predict_on_batch(np.array([text[-context_length:]], "int32"))[0, -1] / 0.8
        text.append(int(np.argmax(logits + rng.gumbel(size=len(logits)))))


if __name__ == "__main__":
    main()
