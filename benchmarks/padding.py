"""Padding in an epoch of training batches, of texts of similar length and of texts in random order.

python benchmarks/padding.py imdb
python benchmarks/padding.py imdb --backbone FOLDER
"""

import click


@click.command()
@click.argument("data")
@click.option("--model", default="lstm", show_default=True, help="Network family of the sentiment analyzer.")
@click.option("--backbone", help="Backbone of fine-tune, instead of a network family.")
@click.option("--batch-size", type=int, help="Texts per batch (default: the recipe's).")
def main(data: str, model: str, backbone: str | None, batch_size: int | None) -> None:
    """Print the fraction of padding in the batches that the sentiment analyzer, or fine-tune, would train on."""
    from dltoolkit import lazy

    lazy.import_tensorflow()
    import numpy as np
    from dltoolkit.recipes import fine_tune, sentiment_analyzer

    from dltoolkit import finetuning
    from dltoolkit.data.text import pipeline as text_pipeline

    if backbone:
        config = fine_tune.Config(data=data, backbone=backbone)
        task = finetuning.tasks.resolve(config).create()
        splits = fine_tune.build_data(config)
        splits.encoder = task.backbone.text_features(config.max_length).encoder
        config = fine_tune.resolve_defaults(config, task, task.max_length(splits))
    else:
        config = sentiment_analyzer.Config(data=data, model=model)
        splits = sentiment_analyzer.build_data(config)
        config = sentiment_analyzer.resolve_defaults(config, len(splits.train))
    batch_size = batch_size or config.batch_size
    steps = len(splits.train) // batch_size
    batches = text_pipeline.training_pipeline(splits, batch_size=batch_size, seed=0).take(steps)
    tokens = positions = 0
    for token_ids, _ in batches.as_numpy_iterator():
        tokens, positions = tokens + np.count_nonzero(token_ids), positions + token_ids.size
    shuffled = np.random.default_rng(0).permutation(splits.token_ids.lengths[splits.train])[: steps * batch_size]
    padded = shuffled.reshape(steps, batch_size).max(axis=1).sum() * batch_size
    click.echo(f"{steps} batches of {batch_size}, {tokens:,} words or tokens")
    click.echo(f"padding in batches of similar length {100 * (1 - tokens / positions):.1f} %")
    click.echo(f"padding in batches in random order   {100 * (1 - shuffled.sum() / padded):.1f} %")


if __name__ == "__main__":
    main()
