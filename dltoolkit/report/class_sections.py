"""The sections of a classifier's report: from what is known of the run to HTML, or "" where there is nothing to say."""

from __future__ import annotations

import numpy as np

from dltoolkit.evaluation.classification import Mistake
from dltoolkit.report import plots
from dltoolkit.report.pieces import Page, caption, escaped, figure, named, percent, section, table

ROWS = 30  # of the class table before the rest is folded away
MIX_UPS = 8
LONGEST_TEXT = 400  # characters of a mistaken text


def labels(page: Page) -> str:
    """What a label is worth."""
    if "learning_curve" not in page.plots:
        return ""
    chart = figure(page.plots["learning_curve"], "Accuracy against labels of each class", "chart wide")
    about = "Each dot is a run of its own with another seed, which chooses the examples; the lines join the means."
    return section("What labels are worth", f'<div class="scroll">{chart}</div>{caption(about)}')


def confusion(page: Page) -> str:
    """Which classes are taken for which: both matrices and the commonest mix-ups."""
    if "confusion" not in page.plots:
        return ""
    counts = np.array(page.test["confusion"])
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:MIX_UPS]
    rows = [
        (named(page.classes[i]), named(page.classes[j]), f"{wrong[i, j]:,}", percent(wrong[i, j] / counts[i].sum()))
        for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[i, j]
    ]
    wide = len(page.classes) > 12
    kind = "chart wide" if wide else "chart"
    charts = figure(page.plots["confusion"], "Confusion matrix, counts", kind)
    charts += figure(page.plots["confusion_normalised"], "Confusion matrix, per cent of each true class", kind)
    mix_ups = "<p>No answer on the test split was wrong.</p>"
    if rows:
        mix_ups = "<h3>Commonest mix-ups</h3>" + table(("Truth", "Predicted", "Times", "Of its class"), rows)
    return section("Confusion matrix", f'<div class="{"scroll" if wide else "charts"}">{charts}</div>{mix_ups}')


def per_class(page: Page) -> str:
    """Precision, recall and F1 of every class, the weakest first."""
    scores = page.test.get("per_class")
    if not scores:
        return ""
    ordered = sorted(enumerate(scores.items()), key=lambda numbered: numbered[1][1]["f1"])
    rows = [
        (
            named(name),
            percent(score["precision"]),
            percent(score["recall"]),
            f'<span class="bar" style="--share:{100 * score["f1"]:.1f}%">{percent(score["f1"])}</span>',
            f"{score['support']:,}",
        )
        for _, (name, score) in ordered
    ]
    columns = ["Class", "Precision", "Recall", "F1", "Support"]
    if any(plots.unspeakable(name) for name in scores):  # the charts call such a class by its number
        columns, rows = ["No.", *columns], [(f"#{i}", *row) for (i, _), row in zip(ordered, rows, strict=True)]
    about = "The weakest class first; support is the number of test examples of the class."
    return section("Class by class", table(columns, rows, most=ROWS) + caption(about))


def reliability(page: Page) -> str:
    """Whether 90 per cent sure means right nine times in ten."""
    if "reliability" not in page.plots:
        return ""
    about = (
        "Bars that end on the dashed line: the network is right as often as it claims to be. Below it, it is too sure."
    )
    if page.test.get("ece") is not None:
        about += f" The expected calibration error over 15 bins is {percent(page.test['ece'])}."
    chart = figure(page.plots["reliability"], "Reliability diagram", "chart")
    return section("Can its probabilities be trusted?", chart + caption(about))


def mistakes(page: Page) -> str:
    """The wrong answers that the network was surest of."""
    if not page.mistakes:
        return ""
    of_texts = any(mistake.text is not None for mistake in page.mistakes)
    cards = "".join(map(_card, page.mistakes))
    about = "Wrong answers on the test split, the most confident first: truth → answer. Some may be labelled wrongly."
    grid = f'<div class="cards{" texts" if of_texts else ""}">{cards}</div>'
    return section("Worst mistakes", caption(about) + grid)


def top_features(page: Page) -> str:
    """The words that speak for each class."""
    if not page.top_features:
        return ""
    own = page.info.get("model", {}).get("name") == "ngram"
    about = "What the network" if own else "What the linear baseline (the network itself cannot be read like this)"
    about += (
        " adds to the score of a class for a word or phrase; the bars are its weight, the figures the training texts"
    )
    tables = []
    for name, entries in page.top_features.items():
        most = max((word.weight for word in entries), default=1.0)
        rows = [
            (
                f'<span class="bar" style="--share:{100 * word.weight / most:.1f}%">{named(word.ngram)}</span>',
                f"{word.weight:.2f}",
                f"{word.texts:,}",
            )
            for word in entries
        ]
        tables.append(f"<div><h3>{named(name)}</h3>{table(['Word or phrase', 'Weight', 'Texts'], rows)}</div>")
    grid = f'<div class="charts">{"".join(tables)}</div>'
    return section("The words that weigh most", caption(about + " that hold it.") + grid)


def _card(mistake: Mistake) -> str:
    shown = ""
    if mistake.image is not None:
        small = max(mistake.image.shape[:2]) <= 64
        shown = figure(plots.thumbnail(mistake.image), "", "pixels" if small else "picture")
    if mistake.text is not None:
        text = mistake.text if len(mistake.text) <= LONGEST_TEXT else mistake.text[:LONGEST_TEXT] + "…"
        shown += f"<blockquote>{escaped(text)}</blockquote>"
    answer = f'{named(mistake.truth)} → <b class="wrong">{named(mistake.predicted)}</b> {percent(mistake.probability)}'
    return f"<figure>{shown}<figcaption>{answer}<small>{named(mistake.name)}</small></figcaption></figure>"
