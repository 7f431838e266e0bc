"""How much of a float32 matrix product's speed the text generator's training reaches, in alternation.

    python benchmarks/matmul_share.py
    python benchmarks/matmul_share.py --max-time 3600

The network is the one that ``--max-time`` and the text's length choose; a step is the whole of it, optimizer included.
Its operations are counted as Chowdhery et al. 2022 count them: 6 for each token and parameter that is multiplied
(vectors that are only looked up are none), and 12 * layers * width * context for each token in attention, as if nothing
were masked.
"""

import statistics
import time

import click
import machine
import numpy as np

SIDE = 2048  # of the square product


@click.command()
@click.option("--max-time", default=600.0, show_default=True, help="Seconds that a run would have.")
@click.option("--vocabulary", default=66, show_default=True, help="Tokens there are.")
@click.option("--text-length", default=1_000_000, show_default=True, help="Tokens in the text.")
@click.option("--steps", default=20, show_default=True, help="Steps in a round.")
@click.option("--rounds", default=7, show_default=True, help="Rounds of each side, in alternation.")
def main(max_time: float, vocabulary: int, text_length: int, steps: int, rounds: int) -> None:
    """Print operations a second of a training step and of a large product, and the share."""
    from dltoolkit import lazy

    lazy.import_tensorflow()
    import tensorflow as tf
    from dltoolkit.recipes import text_generator

    from dltoolkit import data, models

    config = text_generator.suited(text_generator.Config(max_time=max_time), text_length)
    sizes = {name: getattr(config, name) for name in ("layers", "embedding_dim", "heads", "dropout", "ensemble_size")}
    model = models.language.gpt.build("gpt", vocabulary, **sizes)
    how = {"jit_compile": True, "steps_per_execution": text_generator.STEPS_PER_CALL}
    text_generator.compile_model(model, config, config.batch_size, **how)
    shape = (config.batch_size, config.context_length)
    both = np.random.default_rng(0).integers(0, vocabulary, (2, *shape), dtype=np.int32)
    batches = data.pipeline.served(tf.data.Dataset.from_tensors((both[0], both[1])).repeat())
    one, two = tf.random.normal((SIDE, SIDE)), tf.random.normal((SIDE, SIDE))
    product = tf.function(lambda: tf.matmul(one, two), jit_compile=True)
    products = 10

    def train() -> None:
        model.fit(batches, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0)

    def multiply() -> None:
        for _ in range(products):
            product().numpy()

    looked_up = sum(layer.count_params() for layer in model.layers if "embedding" in layer.name)
    multiplied = (model.count_params() - looked_up) // config.ensemble_size  # a token is one member's
    attention = 12 * config.layers * config.embedding_dim * config.context_length
    work = {
        train: steps * config.batch_size * config.context_length * (6 * multiplied + attention),
        multiply: products * 2 * SIDE**3,
    }
    reached = {train: [], multiply: []}
    for number in range(rounds + 1):
        for side, operations in work.items():
            began = time.perf_counter()
            side()
            if number:  # the first round compiles
                reached[side].append(operations / (time.perf_counter() - began) / 1e9)
    shares = [ours / most for ours, most in zip(reached[train], reached[multiply], strict=True)]
    click.echo(machine.describe())
    click.echo(
        f"{config.ensemble_size} × {config.layers} layers of {config.embedding_dim}, context {config.context_length}, "
        f"{config.batch_size * config.context_length:,} "
        f"tokens a step: {6 * multiplied + attention:,} operations a token"
    )
    click.echo(f"training {statistics.median(reached[train]):6.1f} thousand million operations a second")
    click.echo(f"product  {statistics.median(reached[multiply]):6.1f}")
    click.echo(f"share    {statistics.median(shares):6.1%} (from {min(shares):.1%} to {max(shares):.1%})")


if __name__ == "__main__":
    main()
