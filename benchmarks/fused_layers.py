"""Compare training steps of a KerasHub transformer with Keras' layers and with fused layers.

    python benchmarks/fused_layers.py
    python benchmarks/fused_layers.py --precision float32

The network has the shape of MiniLM (6 layers of 384 units, 12 heads) and random weights. The two sides alternate.
"""

import statistics
import time

import click
import machine


@click.command()
@click.option("--precision", default="mixed_bfloat16", show_default=True, help="Dtype policy of Keras.")
@click.option("--texts", default=16, show_default=True, help="Texts per batch.")
@click.option("--tokens", default=256, show_default=True, help="Tokens per text.")
@click.option("--rounds", default=5, show_default=True, help="Rounds per side, alternating.")
def main(precision: str, texts: int, tokens: int, rounds: int) -> None:
    """Print tokens per second of both sides and their ratio."""
    from dltoolkit import lazy

    lazy.import_tensorflow()
    import keras
    import numpy as np

    from dltoolkit import models

    click.echo(machine.describe())
    keras.config.set_dtype_policy(precision)
    rng = np.random.default_rng(0)
    words = rng.integers(1, 30_000, (texts, tokens))
    inputs = {"token_ids": words, "segment_ids": np.zeros_like(words), "padding_mask": np.ones_like(words)}
    labels = keras.utils.to_categorical(rng.integers(0, 2, texts), 2)

    def network(quick: bool) -> keras.Model:
        hub = lazy.keras_hub()
        shape = {"num_layers": 6, "num_heads": 12, "hidden_dim": 384, "intermediate_dim": 1536, "dropout": 0.0}
        encoder = hub.models.BertBackbone(30_522, **shape)
        if quick:
            models.fused.use_fused_ops(encoder)
        first = encoder.output["sequence_output"][:, 0]
        model = keras.Model(encoder.input, keras.layers.Dense(2, dtype="float32")(first))
        model.get_layer("token_embedding").trainable = False
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.AdamW(1e-4), loss, jit_compile=False)
        return model

    sides = {"Keras' layers": network(False), "fused": network(True)}
    took: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(rounds + 1):
        for side, model in sides.items():
            began = time.perf_counter()
            for _ in range(3):
                model.train_on_batch(inputs, labels)
            if number:  # the first round compiles
                took[side].append((time.perf_counter() - began) / 3)
    for side, seconds in took.items():
        click.echo(f"{side:14} {texts * tokens / statistics.median(seconds):7.0f} tokens per second")
    ratios = [plain / quick for plain, quick in zip(*took.values(), strict=True)]
    click.echo(f"{statistics.median(ratios):.2f} times as fast, {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
