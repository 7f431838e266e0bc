"""The last step of a language model's training: evaluation, baselines and report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dltoolkit.evaluation import language
from dltoolkit.report import page

if TYPE_CHECKING:
    import keras

    from dltoolkit.data.language.corpus import Corpus
    from dltoolkit.run import Run


def evaluate_and_report(run: Run, model: keras.Model, corpus: Corpus, context_length: int) -> None:
    """Evaluate a language model next to its baselines, and write metrics.json and report.html.

    Args:
        run: Trained run, with generated texts in ``samples/``.
        model: Model of the best epoch: token IDs in, logits of each next token out.
        corpus: Corpus that the run was trained on; a corpus without a test split is evaluated on validation only.
        context_length: Tokens of a scoring window.
    """
    splits = [split for split in ("test", "validation") if split in corpus.splits]
    scores = {
        split: language.measure(model, [corpus.split(split)], corpus.characters[split], context_length)
        for split in splits
    }
    token_ids = corpus.split(splits[0])
    baseline = language.baselines(
        corpus.split("train"),
        token_ids,
        corpus.characters[splits[0]],
        corpus.tokenizer.vocab_size,
        corpus.tokenizer.decode(token_ids),
    )
    run.write_json("metrics.json", {**scores, "baseline": baseline})
    samples = sorted((run.path / "samples").glob("epoch-*.txt"))
    titles = [f"After epoch {path.stem.removeprefix('epoch-').lstrip('0')}" for path in samples]
    page.write(run, texts={title: path.read_text("utf-8") for title, path in zip(titles, samples, strict=True)})
