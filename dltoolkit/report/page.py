"""report.html: one self-contained page about a run, readable on a phone, in light and in dark, without a network.

The page is a list of sections, each a function from what is known of the run to HTML, or to "" when it has nothing
to say; a recipe of another kind adds functions to ``SECTIONS``. Whatever a user may have named is escaped.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit.report import class_sections
from dltoolkit.report.pieces import (
    Page,
    caption,
    duration,
    escaped,
    figure,
    named,
    pairs,
    percent,
    section,
    table,
    words,
)
from dltoolkit.report.style import CSS

if TYPE_CHECKING:
    from dltoolkit.evaluation.classification import Mistake
    from dltoolkit.evaluation.ngram_baseline import NgramWeight
    from dltoolkit.run import Run

SAMPLE_TITLES = {
    "augmented": "What the model saw after augmentation",
    "generated": "What it draws",
    "drawn": "Some of these…",
    "nearest": "…and the training pictures that are most like them",
}
STATES = {
    "starting": "This run is being prepared.",
    "running": "This run is still training, or was killed while it did.",
    "interrupted": "This run was interrupted; it can go on where it stopped.",
    "failed": "This run failed.",
}
SHARES = ("accuracy", "macro_precision", "macro_recall", "macro_f1", "ece")  # metrics that are shown as per cent
WORDING = {"ece": "calibration error", "loss": "loss (nats)", "macro_f1": "macro F1"}
SO_FAR = {"validation_loss": "loss", "validation_kernel_distance": "kernel distance"}
WARNINGS = 10  # before the rest is folded away


def write(
    run: Run,
    *,
    mistakes: Sequence[Mistake] = (),
    samples: Mapping[str, np.ndarray] | None = None,
    reliability: Mapping[str, Any] | None = None,
    top_features: Mapping[str, Sequence[NgramWeight]] | None = None,
    texts: Mapping[str, str] | None = None,
) -> None:
    """Write plots/*.png and report.html of a run, whatever state it is in.

    Args:
        run: gives path, info (run.json), metrics (metrics.json) and history (history.csv), and writes the files.
        mistakes: the worst ones, worst first.
        samples: pages of pictures, uint8 (n, height, width, channels), by the name of their file in plots/; see
            ``SAMPLE_TITLES`` for how they are headed.
        reliability: what ``metrics.reliability`` returned.
        top_features: for each class the words that speak for it most, the most telling first.
        texts: what a text generator wrote after each epoch, by name, in order.
    """
    shown = {
        "samples": samples or {},
        "reliability": reliability,
        "top_features": top_features or {},
        "texts": texts or {},
    }
    page = Page(run.path, run.info, run.metrics, run.history, tuple(mistakes), **shown)
    for name, png in page.plots.items():
        run.write(f"plots/{name}.png", png)
    run.write("report.html", render(page))


def render(page: Page) -> str:
    """Return the whole page as HTML."""
    title = f"{page.info.get('name', page.path.name)} · {page.info.get('recipe', 'run')}"
    body = "\n".join(filter(None, (part(page) for part in SECTIONS)))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{escaped(title)}</title>
<style>{CSS}</style>
</head>
<body><main>
{body}
</main></body>
</html>
"""


def headline(page: Page) -> str:
    """The name, the state, and what the network is worth beside the baselines."""
    state = escaped(page.state)
    recipe, name = escaped(page.info.get("recipe", "run")), named(page.info.get("name", page.path.name))
    top = f'<div class="eyebrow">{recipe}<span class="state {state}">{state}</span></div><h1>{name}</h1>'
    notes = [STATES.get(page.state, "")]
    if page.state == "failed" and page.info.get("error"):
        notes.append(str(page.info["error"]))
    if not page.test:
        notes.append(_so_far(page.best))
    note = " ".join(filter(None, notes))
    score = _score(page) if "accuracy" in page.test else ""
    return f"<header>{top}{f'<p class=note>{escaped(note)}</p>' if note else ''}{score}{_tiles(page)}</header>"


def warnings(page: Page) -> str:
    """What the scan of the data found odd."""
    lines = [f"<li>{escaped(warning)}</li>" for warning in page.info.get("data", {}).get("warnings") or []]
    if not lines:
        return ""
    content = f"<ul>{''.join(lines[:WARNINGS])}</ul>"
    if len(lines) > WARNINGS:
        rest = f"<ul>{''.join(lines[WARNINGS:])}</ul>"
        content += f"<details><summary>{len(lines) - WARNINGS} more</summary>{rest}</details>"
    return section("About the data", content, "warnings")


def curves(page: Page) -> str:
    """Loss and the like over the epochs."""
    if "curves" not in page.plots:
        return ""
    notes = ["The dashed line marks the epoch that was kept, chosen by validation."] if page.best else []
    config = page.info.get("config", {})
    if config.get("augment"):
        notes.append("Training is measured on augmented examples, so validation may well look better.")
    if config.get("label_smoothing"):
        notes.append("These losses include label smoothing.")
    chart = figure(page.plots["curves"], "Learning curves", "chart wide")
    return section("Learning curves", f'<div class="scroll">{chart}</div>{caption(" ".join(notes))}')


def foretold(page: Page) -> str:
    """How much a language model needs to know to write the text down, beside models without a network."""
    if "bits_per_character" not in page.test:
        return ""
    scores = {"This network": page.test, **(page.metrics.get("baseline") or {})}
    most = max(score["bits_per_character"] for score in scores.values())
    rows = [
        (
            f'<span class="bar" style="--share:{100 * score["bits_per_character"] / most:.1f}%">{escaped(name)}</span>',
            f"{score['bits_per_character']:.3f}",
            f"{score['loss']:.4f}" if "loss" in score else "",
            f"{score['perplexity']:.2f}" if "perplexity" in score else "",
        )
        for name, score in sorted(scores.items(), key=lambda named: named[1]["bits_per_character"])
    ]
    about = "The fewer bits a character takes, the better the text was foretold. Loss and perplexity are per token."
    columns = ("Model", "Bits a character", "Loss (nats)", "Perplexity")
    return section("How well it foretells the text", table(columns, rows) + caption(about))


def written(page: Page) -> str:
    """What a text generator wrote, the last first."""
    if not page.texts:
        return ""
    *before, last = (f"<h3>{escaped(name)}</h3><pre>{escaped(text)}</pre>" for name, text in page.texts.items())
    content = last
    if before:
        content += f"<details><summary>{len(before)} earlier</summary>{''.join(reversed(before))}</details>"
    return section("What it writes", content)


def samples(page: Page) -> str:
    """Pages of pictures that the recipe chose to show."""
    titles = {
        key: SAMPLE_TITLES.get(key, key.replace("_", " ").capitalize()) for key in page.samples if key in page.plots
    }
    return "\n".join(section(title, figure(page.plots[key], title, "sheet")) for key, title in titles.items())


def facts(page: Page) -> str:
    """What was trained on what, with what, for how long; every option folded away."""
    info, config = page.info, page.info.get("config", {})
    data, time, splits = info.get("data", {}), info.get("time", {}), info.get("data", {}).get("splits") or {}
    rows = {
        "Data": data.get("source"),
        "Splits": " · ".join(f"{name} {words(count)}" for name, count in splits.items()),
        "Classes": words(len(page.classes) or None),
        "Fingerprint": data.get("fingerprint"),
        "Model": words(info.get("model")),
        "Plan": words(info.get("plan")),
        "Kept epoch": f"{page.best['epoch']:g} of {page.history[-1]['epoch']:g}" if page.best else None,
        "Calibration": words(info.get("calibration")),
        "Training time": duration(time.get("train_seconds")),
        "Whole command": duration(time.get("total_seconds")),
        "Peak memory": f"{info['peak_memory_mb']:,.0f} MB" if info.get("peak_memory_mb") else None,
        "Device": words(info.get("device")),
        "Machine": words(info.get("machine")),
        "Versions": words(info.get("versions")),
        "Seed": info.get("seed", config.get("seed")),
        "Begun": info.get("created"),
    }
    command = f"<pre>{escaped(info['command'])}</pre>" if info.get("command") else ""
    options = pairs({key: "—" if value is None else words(value) for key, value in config.items()})
    folded = f"<details><summary>Every option as used</summary>{options}</details>" if config else ""
    return section("What was trained", command + pairs(rows) + folded)


def usage(page: Page) -> str:
    """The commands that do something with this run."""
    path = shlex.quote(str(page.path))
    commands = {}
    if page.test and "accuracy" in page.test:
        pictures = "image_size" in page.info.get("config", {}) and page.info.get("kind") != "texts"
        example = "PICTURE.jpg FOLDER" if pictures else "'Some text.'"
        commands["Answer new inputs"] = f"dltoolkit predict {path} {example}"
        commands["Measure it again, or on other labelled data"] = (
            f"dltoolkit evaluate {path}\ndltoolkit evaluate {path} --data FOLDER"
        )
    if page.test and "chosen" in page.info:
        commands["Let it write"] = f"dltoolkit generate {path} --prompt 'Some beginning' --max-tokens 300"
        commands["Score another text"] = f"dltoolkit evaluate {path} --data TEXT.txt"
    if "frechet_distance" in page.test:
        commands["Let it draw"] = f"dltoolkit generate {path} --count 64 --grid"
        commands["Measure it again"] = f"dltoolkit evaluate {path}"
    commands["Train further" if page.test else "Go on training"] = f"dltoolkit resume {path}" + (
        " --epochs N" if page.test else ""
    )
    commands["From Python"] = f"import dltoolkit\nrun = dltoolkit.load({str(page.path)!r})"
    lines = (f"<h3>{title}</h3><pre>{escaped(command)}</pre>" for title, command in commands.items())
    return section("How to use this run", "".join(lines))


SECTIONS: list[Callable[[Page], str]] = [
    headline,
    warnings,
    foretold,
    written,
    class_sections.labels,
    curves,
    class_sections.confusion,
    class_sections.per_class,
    class_sections.reliability,
    class_sections.top_features,
    class_sections.mistakes,
    samples,
    facts,
    usage,
]


def _score(page: Page) -> str:
    """The accuracy in large figures, and as a bar beside the baselines' bars."""
    test, baselines = page.test, page.metrics.get("baseline") or {}
    of = f" on {np.sum(test['confusion']):,} examples that it never saw before" if test.get("confusion") else ""
    ends = test.get("accuracy_ci95")
    within = f"95 % interval: {percent(ends[0])} to {percent(ends[1])} (the ticks on its bar)" if ends else ""
    bars = _bar("This network", test, "ours")
    names = {
        "probe": "A head on frozen features",
        "scratch": "A small network from scratch",
        "linear": "Linear model",
        "majority": "Always the commonest class",
    }
    for key, name in names.items():
        if "accuracy" in (baselines.get(key) or {}):
            bars += _bar(name, baselines[key])
    return (
        f'<div class="score"><div><div class="big">{percent(test["accuracy"])}</div>'
        f"<p><b>test accuracy</b>{of}</p>{caption(within)}</div>"
        f"<div>{bars}{_verdict(test, baselines.get('linear') or {})}</div></div>"
    )


def _bar(name: str, scores: Mapping[str, Any], kind: str = "") -> str:
    share, ends = 100 * scores["accuracy"], scores.get("accuracy_ci95")
    whisker = f'<i style="left:{100 * ends[0]:.2f}%;width:{100 * (ends[1] - ends[0]):.2f}%"></i>' if ends else ""
    track = f'<div class="track"><span style="width:{share:.2f}%"></span>{whisker}</div>'
    return f'<div class="row {kind}"><div><span>{name}</span><b>{percent(scores["accuracy"])}</b></div>{track}</div>'


def _verdict(test: Mapping[str, Any], linear: Mapping[str, Any]) -> str:
    """What the network is worth beside a linear model, in a sentence that heeds both intervals."""
    if "accuracy" not in linear:
        return ""
    ours, theirs = ([scores["accuracy"]] * 2 for scores in (test, linear))
    (low, high), (linear_low, linear_high) = test.get("accuracy_ci95", ours), linear.get("accuracy_ci95", theirs)
    if low > linear_high:
        fewer = 1 - (1 - test["accuracy"]) / (1 - linear["accuracy"])
        verdict = f"<b>{percent(fewer, 0)} fewer mistakes</b> than the linear model."
        if test["accuracy"] == 1:
            verdict = "<b>No mistake at all</b>, unlike the linear model."
    elif high < linear_low:
        verdict = "<b>Worse than the linear model:</b> train longer, or look for what went wrong."
    else:
        verdict = "<b>Not clearly better than the linear model:</b> the two intervals overlap."
    note = f'<br><span class="faint">Linear model: {escaped(linear["note"])}.</span>' if linear.get("note") else ""
    return f'<p class="verdict">{verdict}{note}</p>'


def _tiles(page: Page) -> str:
    """The single numbers among the test scores, whatever the recipe calls them."""
    tiles = [
        (WORDING.get(key, key.replace("_", " ")), percent(value) if key in SHARES else _number(value))
        for key, value in page.test.items()
        if isinstance(value, int | float) and key != "accuracy"
    ]
    validation = (page.metrics.get("validation") or {}).get("accuracy")
    if validation is not None:
        tiles.append(("validation accuracy", percent(validation)))
    content = "".join(f"<div><b>{value}</b><span>{escaped(name)}</span></div>" for name, value in tiles)
    return f'<div class="tiles">{content}</div>' if content else ""


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _so_far(best: Mapping[str, float]) -> str:
    """How a run without test scores stands."""
    if not best:
        return "There are no scores yet."
    figures = (f"{name} {best[key]:.4g}" for key, name in SO_FAR.items() if key in best)
    score = next(figures, "")
    if "validation_accuracy" in best:
        score = f"accuracy {percent(best['validation_accuracy'])}"
    return f"There are no test scores yet; the best validation {score} was reached in epoch {best['epoch']:g}."
