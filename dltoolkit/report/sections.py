"""The values that the templates of a report display, computed from the contents of a run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit.report import plots
from dltoolkit.report.formatting import duration, json_value, number, percent

if TYPE_CHECKING:
    from dltoolkit.report.contents import Contents

RECIPE_TITLES = {
    "image-classifier": "Image classification",
    "sentiment-analyzer": "Text classification",
    "image-gan": "Image generation (GAN)",
    "text-generator": "Text generation",
    "fine-tune": "Fine-tuning",
}
SAMPLE_TITLES = {
    "augmented": "Training images after augmentation",
    "generated": "Generated images",
    "compared": "Some generated images …",
    "nearest": "… and the training images nearest to them",
}
STATES = {
    "starting": "This run is being prepared.",
    "running": "This run is still training, or was killed while it trained.",
    "interrupted": "This run was interrupted; resume it to continue where it stopped.",
    "failed": "This run failed.",
}
BASELINES = {
    "linear_probe": "Linear probe on frozen features",
    "from_scratch": "Small network trained from scratch",
    "linear": "Linear model",
    "majority": "Majority class",
}
FRACTIONS = ("accuracy", "balanced_accuracy", "macro_precision", "macro_recall", "macro_f1", "ece")  # shown in percent
METRIC_NAMES = {"ece": "calibration error", "loss": "loss (nats)", "macro_f1": "macro F1"}
BEST_VALUES = {"validation_loss": "loss", "validation_kernel_distance": "kernel distance"}
MAX_WARNINGS = 10  # warnings that are shown unfolded
MAX_CLASS_ROWS = 30  # classes that are shown unfolded
MAX_CONFUSIONS = 8  # most frequent confusions that are listed
MAX_TEXT = 400  # characters of a text in the list of mistakes


def context(run: Contents) -> dict[str, Any]:
    """Return the variables of the templates, besides the contents themselves."""
    recipe = str(run.info.get("recipe", "run"))
    class_scores = _class_scores(run)
    return {
        "title": RECIPE_TITLES.get(recipe, recipe),
        "note": _note(run),
        "score": _score(run),
        "tiles": _tiles(run),
        "warnings": run.info.get("data", {}).get("warnings") or [],
        "max_warnings": MAX_WARNINGS,
        "text_scores": _text_scores(run),
        "curve_notes": _curve_notes(run),
        "confusions": _confusions(run),
        "class_scores": class_scores,
        "max_class_rows": MAX_CLASS_ROWS,
        "numbered": any(plots.has_missing_glyphs(row["name"]) for row in class_scores),  # the charts show "#number"
        "calibration_note": _calibration_note(run),
        "features_note": _features_note(run),
        "texts_mistaken": any(mistake.text is not None for mistake in run.mistakes),
        "max_text": MAX_TEXT,
        "sample_titles": {
            key: SAMPLE_TITLES.get(key, key.replace("_", " ").capitalize()) for key in run.samples if key in run.plots
        },
        "facts": _facts(run),
        "options": {
            key: "—" if value is None else json_value(value) for key, value in run.info.get("config", {}).items()
        },
        "commands": _commands(run),
    }


def _note(run: Contents) -> str:
    """Return the meaning of the state of an unfinished run, and the best score so far."""
    notes = [STATES.get(run.state, "")]
    if run.state == "failed":
        notes.append(str(run.info.get("error") or ""))
    if not run.test:
        notes.append(_best_so_far(run.best))
    return " ".join(filter(None, notes))


def _best_so_far(best: Mapping[str, float]) -> str:
    if not best:
        return "There are no scores yet."
    values = (f"{name} {best[key]:.4g}" for key, name in BEST_VALUES.items() if key in best)
    value = next(values, "")
    if "validation_accuracy" in best:
        value = f"accuracy {percent(best['validation_accuracy'])}"
    return f"There are no test scores yet; the best validation {value} was reached in epoch {best['epoch']:g}."


def _score(run: Contents) -> dict[str, Any] | None:
    """Return the accuracy of a classifier next to its baselines."""
    test, baselines = run.test, run.metrics.get("baseline") or {}
    if "accuracy" not in test:
        return None
    scores = {"This network": test} | {name: baselines.get(key) or {} for key, name in BASELINES.items()}
    linear = baselines.get("linear") or {}
    return {
        "examples": int(np.sum(test["confusion"])) if test.get("confusion") else None,
        "interval": test.get("accuracy_ci95"),
        "bars": [
            {"name": name, "accuracy": values["accuracy"], "interval": values.get("accuracy_ci95")}
            for name, values in scores.items()
            if "accuracy" in values
        ],
        "verdict": _verdict(test, linear),
        "linear_note": linear.get("note"),
    }


def _verdict(test: Mapping[str, Any], linear: Mapping[str, Any]) -> tuple[str, str] | None:
    """Compare the network with the linear model, as a bold beginning and the rest of a sentence."""
    if "accuracy" not in linear:
        return None
    (low, high), (linear_low, linear_high) = (
        scores.get("accuracy_ci95", [scores["accuracy"]] * 2) for scores in (test, linear)
    )
    if low > linear_high:
        if test["accuracy"] == 1:
            return "No mistakes", ", unlike the linear model."
        fewer = 1 - (1 - test["accuracy"]) / (1 - linear["accuracy"])
        return f"{percent(fewer, 0)} fewer mistakes", " than the linear model."
    if high < linear_low:
        return "Worse than the linear model:", " train longer, or check the data and the learning rate."
    return "Not clearly better than the linear model:", " the two intervals overlap."


def _tiles(run: Contents) -> dict[str, str]:
    """Return the single numbers among the test scores."""
    tiles = {
        METRIC_NAMES.get(key, key.replace("_", " ")): percent(value) if key in FRACTIONS else number(value)
        for key, value in run.test.items()
        if isinstance(value, int | float) and key != "accuracy"
    }
    real_vs_real = (run.metrics.get("baseline") or {}).get("real_vs_real") or {}
    tiles |= {f"real vs real: {key.replace('_', ' ')}": number(value) for key, value in real_vs_real.items()}
    validation = (run.metrics.get("validation") or {}).get("accuracy")
    if validation is not None:
        tiles["validation accuracy"] = percent(validation)
    return tiles


def _text_scores(run: Contents) -> list[dict[str, Any]]:
    """Return the scores of a language model and its baselines, the best first."""
    if "bits_per_character" not in run.test:
        return []
    scores = {"This network": run.test, **(run.metrics.get("baseline") or {})}
    most = max(score["bits_per_character"] for score in scores.values())
    return [
        {
            "name": name,
            "share": score["bits_per_character"] / most if most else 0.0,
            "bits": f"{score['bits_per_character']:.3f}",
            "loss": f"{score['loss']:.4f}" if "loss" in score else "",
            "perplexity": f"{score['perplexity']:.2f}" if "perplexity" in score else "",
        }
        for name, score in sorted(scores.items(), key=lambda entry: entry[1]["bits_per_character"])
    ]


def _curve_notes(run: Contents) -> str:
    notes = ["The dashed line marks the best epoch on validation, whose weights are saved."] if run.best else []
    config = run.info.get("config", {})
    if config.get("augment"):
        notes.append("Training is measured on augmented examples, so validation may look better.")
    if config.get("label_smoothing"):
        notes.append("The losses include label smoothing.")
    return " ".join(notes)


def _confusions(run: Contents) -> list[dict[str, Any]]:
    """Return the most frequent confusions of two classes."""
    if not run.test.get("confusion"):
        return []
    counts = np.array(run.test["confusion"])
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:MAX_CONFUSIONS]
    return [
        {
            "truth": run.labels[i],
            "predicted": run.labels[j],
            "count": int(wrong[i, j]),
            "share": wrong[i, j] / counts[i].sum(),
        }
        for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[i, j]
    ]


def _class_scores(run: Contents) -> list[dict[str, Any]]:
    """Return precision, recall, F1 and support of every class, the lowest F1 first."""
    scores = run.test.get("per_class") or {}
    rows = [{"number": number, "name": name, **values} for number, (name, values) in enumerate(scores.items())]
    return sorted(rows, key=lambda row: row["f1"])


def _calibration_note(run: Contents) -> str:
    note = (
        "If a bar ends on the dashed line, the network is correct as often as its probability says; below the line it "
        "is overconfident."
    )
    if run.test.get("ece") is not None:
        note += f" The expected calibration error over 15 bins is {percent(run.test['ece'])}."
    return note


def _features_note(run: Contents) -> str:
    is_ngram = run.info.get("model", {}).get("name") == "ngram"
    model = "the network" if is_ngram else "the linear baseline (the network itself has no such weights)"
    return (
        f"Words and phrases with the largest weights in {model}, for each class, and the number of training texts "
        "that contain them."
    )


def _facts(run: Contents) -> dict[str, Any]:
    """Return data, model, time and machine of the run."""
    info, config = run.info, run.info.get("config", {})
    data, time, splits = info.get("data", {}), info.get("time", {}), info.get("data", {}).get("splits") or {}
    return {
        "Data": data.get("source"),
        "Splits": " · ".join(f"{name} {json_value(count)}" for name, count in splits.items()),
        "Classes": json_value(len(run.labels) or None),
        "Fingerprint": data.get("fingerprint"),
        "Model": json_value(info.get("model")),
        "Plan": json_value(info.get("plan")),
        "Best epoch": f"{run.best['epoch']:g} of {run.history[-1]['epoch']:g}" if run.best else None,
        "Calibration": json_value(info.get("calibration")),
        "Training time": duration(time.get("train_seconds")),
        "Total time": duration(time.get("total_seconds")),
        "Peak memory": f"{info['peak_memory_mb']:,.0f} MB" if info.get("peak_memory_mb") else None,
        "Device": json_value(info.get("device")),
        "Machine": json_value(info.get("machine")),
        "Versions": json_value(info.get("versions")),
        "Seed": info.get("seed", config.get("seed")),
        "Created": info.get("created"),
    }


def _commands(run: Contents) -> dict[str, str]:
    """Return the commands that use this run."""
    path = shlex.quote(str(run.path))
    commands = {}
    if "accuracy" in run.test:
        images = "image_size" in run.info.get("config", {}) and run.info.get("task") != "text"
        example = "IMAGE.jpg FOLDER" if images else "'Some text.'"
        commands["Classify new inputs"] = f"dltoolkit predict {path} {example}"
        commands["Evaluate again, or on other labeled data"] = (
            f"dltoolkit evaluate {path}\ndltoolkit evaluate {path} --data FOLDER"
        )
    if "bits_per_character" in run.test:
        commands["Generate text"] = f"dltoolkit generate {path} --prompt 'Some beginning' --max-tokens 300"
        commands["Score another text"] = f"dltoolkit evaluate {path} --data TEXT.txt"
    if "frechet_distance" in run.test:
        commands["Generate images"] = f"dltoolkit generate {path} --count 64 --grid"
        commands["Evaluate again"] = f"dltoolkit evaluate {path}"
    if run.test:
        commands["Train longer"] = f"dltoolkit resume {path} --epochs N"
    else:
        commands["Continue training"] = f"dltoolkit resume {path}"
    commands["From Python"] = f"import dltoolkit\nrun = dltoolkit.load({str(run.path)!r})"
    return commands
