"""Compare the sentiment analyzer with the same idea in scikit-learn: whole processes, seconds and accuracy.

    python benchmarks/text_linear.py ~/imdb
    python benchmarks/text_linear.py ~/imdb --ngrams 3 --rounds 3

The scikit-learn side does what a guide would: it reads the files, counts words and n-grams with CountVectorizer,
weights them by naive Bayes (Wang & Manning 2012), fits a logistic regression on the whole training split, and scores
the test split. It makes no validation split, searches no hyperparameters and writes no report. The two sides alternate.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import machine


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--ngrams", default=2, show_default=True, help="Maximum n-gram length of the scikit-learn side.")
@click.option("--rounds", default=1, show_default=True, help="Runs per side, alternating.")
@click.option("--plain", is_flag=True, hidden=True, help="Run the scikit-learn side only.")
@click.argument("words", nargs=-1)
def main(folder: Path, ngrams: int, rounds: int, plain: bool, words: tuple[str, ...]) -> None:
    """Train on FOLDER (train and test, each with class folders of .txt files) on both sides and compare them.

    WORDS after -- are additional options of `dltoolkit train sentiment-analyzer`.
    """
    if plain:
        click.echo(scikit_learn(folder, ngrams))
        return
    click.echo(machine.describe())
    took: dict[str, list[float]] = {"dltoolkit": [], "scikit-learn": []}
    for _ in range(rounds):
        for side in took:
            with tempfile.TemporaryDirectory() as runs:
                toolkit_command = [
                    "-m",
                    "dltoolkit",
                    "train",
                    "sentiment-analyzer",
                    "--data",
                    str(folder),
                    "--out-dir",
                    runs,
                    *words,
                ]
                plain_command = [__file__, str(folder), "--plain", "--ngrams", str(ngrams)]
                began = time.monotonic()
                done = subprocess.run(
                    [sys.executable, *(toolkit_command if side == "dltoolkit" else plain_command)],
                    stdout=subprocess.PIPE,
                    check=True,
                )
                took[side].append(time.monotonic() - began)
                if side == "dltoolkit":
                    (metrics_path,) = Path(runs).glob("*/*/metrics.json")
                    accuracy = json.loads(metrics_path.read_text())["test"]["accuracy"]
                else:
                    accuracy = float(done.stdout)
                click.echo(f"{side:13} {took[side][-1]:6.1f} s  test accuracy {100 * accuracy:.2f} %")
    ratio = statistics.median(a / b for a, b in zip(*took.values(), strict=True))
    click.echo(f"dltoolkit takes {ratio:.2f} times as long")


def scikit_learn(folder: Path, ngrams: int) -> float:
    """Return the test accuracy of the naive-Bayes-weighted logistic regression."""
    import numpy as np
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    texts, labels = {}, {}
    for part in ("train", "test"):
        files = sorted((folder / part).glob("*/*.txt"))
        texts[part] = [file.read_text(encoding="utf-8") for file in files]
        labels[part] = np.array([file.parent.name for file in files])
    vectorizer = CountVectorizer(ngram_range=(1, ngrams), binary=True, min_df=2)
    train, test = vectorizer.fit_transform(texts["train"]), vectorizer.transform(texts["test"])
    first = labels["train"] == labels["train"][0]
    counts = [np.asarray(train[rows].sum(axis=0)).ravel() + 1.0 for rows in (first, ~first)]
    ratio = np.log(counts[0] / counts[0].sum()) - np.log(counts[1] / counts[1].sum())
    model = LogisticRegression(C=0.1, solver="liblinear", dual=True, max_iter=100)
    model.fit(train.multiply(ratio).tocsr(), labels["train"])
    return model.score(test.multiply(ratio).tocsr(), labels["test"])


if __name__ == "__main__":
    main()
