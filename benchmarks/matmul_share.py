"""Floating-point speed of the text generator's training relative to a float32 matrix product, in alternating rounds.

    python benchmarks/matmul_share.py
    python benchmarks/matmul_share.py --max-time 3600

The network is the default for ``--max-time`` and the length of the text; a step includes the optimizer. The operations
of a step are counted as in Chowdhery et al. (2022): 6 per token and multiplied parameter (embedding tables are not
multiplied), and 12 * layers * embedding_dim * context_length per token for attention, without regard to the mask.
"""

import statistics
import time

import click
import machine
import numpy as np

SIDE = 2048  # rows and columns of the square matrices
PRODUCTS = 10  # matrix products per round


@click.command()
@click.option("--max-time", default=600.0, show_default=True, help="Time limit of the run in seconds.")
@click.option("--vocab-size", default=66, show_default=True, help="Vocabulary size.")
@click.option("--text-length", default=1_000_000, show_default=True, help="Tokens in the text.")
@click.option("--steps", default=20, show_default=True, help="Steps per round.")
@click.option("--rounds", default=7, show_default=True, help="Alternating rounds of both sides.")
def main(max_time: float, vocab_size: int, text_length: int, steps: int, rounds: int) -> None:
    """Print the operations per second of training steps and of matrix products, and their ratio."""
    from dltoolkit import lazy

    lazy.import_tensorflow()
    import tensorflow as tf
    from dltoolkit.recipes import text_generator

    from dltoolkit import data, models

    config = text_generator.resolve_defaults(text_generator.Config(max_time=max_time), text_length)
    sizes = {name: getattr(config, name) for name in ("layers", "embedding_dim", "heads", "dropout", "ensemble_size")}
    model = models.language.gpt.build("gpt", vocab_size, **sizes)
    options = {"jit_compile": True, "steps_per_execution": text_generator.STEPS_PER_EXECUTION}
    text_generator.compile_model(model, config, config.batch_size, **options)
    shape = (config.batch_size, config.context_length)
    token_ids = np.random.default_rng(0).integers(0, vocab_size, (2, *shape), dtype=np.int32)
    batches = data.pipeline.finalize_pipeline(tf.data.Dataset.from_tensors((token_ids[0], token_ids[1])).repeat())
    a, b = tf.random.normal((SIDE, SIDE)), tf.random.normal((SIDE, SIDE))
    product = tf.function(lambda: tf.matmul(a, b), jit_compile=True)

    def train() -> None:
        model.fit(batches, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0)

    def multiply() -> None:
        for _ in range(PRODUCTS):
            product().numpy()

    embeddings = sum(layer.count_params() for layer in model.layers if "embedding" in layer.name)
    multiplied = (model.count_params() - embeddings) // config.ensemble_size  # each token is read by one model
    attention = 12 * config.layers * config.embedding_dim * config.context_length
    operations = {
        train: steps * config.batch_size * config.context_length * (6 * multiplied + attention),
        multiply: PRODUCTS * 2 * SIDE**3,
    }
    speeds = {train: [], multiply: []}  # billion operations per second
    for round_number in range(rounds + 1):
        for side, count in operations.items():
            start = time.perf_counter()
            side()
            if round_number:  # the first round compiles
                speeds[side].append(count / (time.perf_counter() - start) / 1e9)
    shares = [training / limit for training, limit in zip(speeds[train], speeds[multiply], strict=True)]
    click.echo(machine.describe())
    click.echo(
        f"{config.ensemble_size} × {config.layers} layers of {config.embedding_dim}, context {config.context_length}, "
        f"{config.batch_size * config.context_length:,} tokens per step: {6 * multiplied + attention:,} operations per "
        "token"
    )
    click.echo(f"training {statistics.median(speeds[train]):6.1f} billion operations per second")
    click.echo(f"product  {statistics.median(speeds[multiply]):6.1f}")
    click.echo(f"share    {statistics.median(shares):6.1%} (from {min(shares):.1%} to {max(shares):.1%})")


if __name__ == "__main__":
    main()
