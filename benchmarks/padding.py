"""Padding in an epoch of training batches, of texts of similar length and of texts as they come.

python benchmarks/padding.py imdb
python benchmarks/padding.py imdb --backbone FOLDER
"""

import click


@click.command()
@click.argument("data")
@click.option("--model", default="lstm", show_default=True, help="Network family of the sentiment analyzer.")
@click.option("--backbone", help="Network that fine-tune goes on from, in place of a family.")
@click.option("--batch-size", type=int, help="Texts in a batch; by default the recipe's.")
def main(data: str, model: str, backbone: str | None, batch_size: int | None) -> None:
    """Print the share of padding in the batches that the sentiment analyzer, or fine-tune, would train on."""
    from dltoolkit import lazy

    lazy.import_tensorflow()
    import numpy as np
    from dltoolkit.recipes import fine_tune, sentiment_analyzer

    from dltoolkit import finetuning
    from dltoolkit.data.text import pipeline as text_pipeline

    if backbone:
        config = fine_tune.Config(data=data, backbone=backbone)
        texts = fine_tune.build_data(config)
        texts.encoder = finetuning.backbone.texts(config).encoder
        config = fine_tune.suited(config, "texts", int(texts.packed.lengths.max()))
    else:
        config = sentiment_analyzer.Config(data=data, model=model)
        texts = sentiment_analyzer.build_data(config)
        config = sentiment_analyzer.suited(config, len(texts.train))
    batch_size = batch_size or config.batch_size
    steps = len(texts.train) // batch_size
    batches = text_pipeline.training_pipeline(texts, batch_size=batch_size, seed=0).take(steps)
    words = places = 0
    for numbers, _ in batches.as_numpy_iterator():
        words, places = words + np.count_nonzero(numbers), places + numbers.size
    shuffled = np.random.default_rng(0).permutation(texts.packed.lengths[texts.train])[: steps * batch_size]
    longest = shuffled.reshape(steps, batch_size).max(axis=1)
    click.echo(f"{steps} batches of {batch_size}, {words:,} words or tokens")
    click.echo(f"padding in batches of similar length {100 * (1 - words / places):.1f} %")
    click.echo(f"padding in batches as they come      {100 * (1 - shuffled.sum() / longest.sum() / batch_size):.1f} %")


if __name__ == "__main__":
    main()
