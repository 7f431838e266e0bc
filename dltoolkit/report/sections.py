"""The values that the templates of a report display, computed from the contents of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit import config as configuration
from dltoolkit import display, progress
from dltoolkit.formatting import data_rows, metric_label
from dltoolkit.report import generation_scores, headline, plots
from dltoolkit.report.formatting import duration, json_value, metric_value, percent

if TYPE_CHECKING:
    from dltoolkit.report.contents import Contents

RECIPE_TITLES = {
    "image-classifier": "Image classification",
    "sentiment-analyzer": "Text classification",
    "image-gan": "Image generation (GAN)",
    "text-generator": "Text generation",
    "fine-tune": "Fine-tuning",
}
SAMPLES = {  # heading and explanation of a grid of images
    "augmented": (
        "Training images after augmentation",
        "Images as the network sees them in training. What is important for the class must still be visible.",
    ),
    "generated": ("Generated images", "Images of all classes, in the order of the classes."),
    "nearest": (
        "Generated images and the nearest training images",
        "Left in each pair a generated image, right the training image that is most like it in the features of a "
        "classifier. If the two are equal, the generator repeats what it has seen.",
    ),
}
MAX_WARNINGS = 10  # warnings that are shown unfolded
MAX_CLASS_ROWS = 30  # classes that are shown unfolded
MAX_CONFUSIONS = 8  # most frequent confusions that are listed
MAX_TEXT = 400  # characters of a text in the list of mistakes
MAX_FEATURE_CLASSES = 12  # classes whose top features are shown, so that two hundred do not fill the page


def context(run: Contents) -> dict[str, Any]:
    """Return the variables of the templates, besides the contents themselves."""
    recipe = str(run.info.get("recipe", "run"))
    class_scores = _class_scores(run)
    return {
        "title": RECIPE_TITLES.get(recipe, recipe),
        "note": headline.note(run),
        "lead": headline.lead(run),
        "score": headline.score(run),
        "tiles": headline.tiles(run),
        "warnings": [display.sentence(each) for each in run.info.get("data", {}).get("warnings") or []],
        "max_warnings": MAX_WARNINGS,
        "image_scores": generation_scores.image_scores(run),
        "text_scores": generation_scores.text_scores(run),
        "curve_notes": _curve_notes(run),
        "epoch_scores": _epoch_scores(run),
        "learning_curve": _learning_curve(run),
        "confusions": _confusions(run),
        "confusion_note": _confusion_note(run),
        "class_scores": class_scores,
        "max_class_rows": MAX_CLASS_ROWS,
        "numbered": any(plots.has_missing_glyphs(row["name"]) for row in class_scores),  # the charts show "#number"
        "calibration_note": _calibration_note(run),
        "features": _features(run, class_scores),
        "features_note": _features_note(run),
        "texts_mistaken": any(mistake.text is not None for mistake in run.mistakes),
        "max_text": MAX_TEXT,
        "samples": _samples(run),
        "facts": _facts(run),
        "plan": {str(label): value for label, value in (run.info.get("plan") or {}).get("summary") or []},
        "options": {
            key: "—" if value is None else json_value(value)
            for key, value in configuration.display(run.info.get("config", {})).items()
        },
        "commands": _commands(run),
    }


def _samples(run: Contents) -> dict[str, tuple[str, str]]:
    """Return the heading and the explanation of each grid of images."""
    titles = {
        key: SAMPLES.get(key, (key.replace("_", " ").capitalize(), "")) for key in run.samples if key in run.plots
    }
    if not run.info.get("conditional") and "generated" in titles:
        titles["generated"] = (titles["generated"][0], "")  # there is no order of classes
    return titles


def _curve_notes(run: Contents) -> str:
    notes = []
    if run.selected_probe:
        notes.append("No epoch is better on validation than the linear probe, whose weights are saved.")
    elif run.best:
        notes.append("The dashed line marks the best epoch on validation, whose weights are saved.")
    config = run.info.get("config", {})
    if config.get("augment"):
        notes.append("Training is measured on augmented examples, so validation may look better.")
    if config.get("label_smoothing"):
        notes.append("The losses include label smoothing.")
    return " ".join(notes)


def _epoch_scores(run: Contents) -> list[dict[str, str]]:
    """Return the scores of the only epoch, which are no curve; nothing if there are curves or no scores at all."""
    if len(run.history) != 1:
        return []
    row = run.history[0]
    names = dict.fromkeys(column.removeprefix("validation_") for column in row if column not in progress.NOT_METRICS)
    return [
        {
            "name": metric_label(name),
            "training": metric_value(name, row[name]) if name in row else "",
            "validation": metric_value(name, row[f"validation_{name}"]) if f"validation_{name}" in row else "",
        }
        for name in names
    ]


def _learning_curve(run: Contents) -> list[dict[str, Any]]:
    """Return the mean test accuracy of each method for each number of labels per class."""
    points = run.info.get("learning_curve") or []
    methods = {key: name for key, name in plots.METHODS.items() if any(key in point for point in points)}
    rows = []
    for labels in sorted({point["labels"] for point in points}):
        same = [point for point in points if point["labels"] == labels]
        accuracies = {name: [point[key] for point in same if key in point] for key, name in methods.items()}
        means = {name: percent(float(np.mean(values))) if values else "" for name, values in accuracies.items()}
        rows.append({"labels": f"{labels:.0f}", "runs": len(same), "accuracies": means})
    return rows


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


def _confusion_note(run: Contents) -> str:
    if len(run.confused) == len(run.labels):
        return ""
    return (
        f"The matrix shows the {len(run.confused)} of {len(run.labels)} classes that are confused most often. "
        "Percentages refer to all test examples of a class."
    )


def _class_scores(run: Contents) -> list[dict[str, Any]]:
    """Return precision, recall, F1 and support of every class, the lowest F1 first."""
    scores = run.test.get("per_class") or {}
    rows = [{"number": number, "name": name, **values} for number, (name, values) in enumerate(scores.items())]
    return sorted(rows, key=lambda row: row["f1"])


def _calibration_note(run: Contents) -> str:
    if run.reliability is None:
        return ""
    if "reliability" in run.plots:
        note = (
            "If a bar ends on the dashed line, the network is correct as often as its probability says; below the line "
            "it is overconfident."
        )
    else:
        used = int(np.argmax(run.reliability["count"]))
        confidence, accuracy = (percent(float(run.reliability[key][used])) for key in ("confidence", "accuracy"))
        note = f"All predictions have about the same probability, {confidence} on average, and {accuracy} are correct."
    if run.test.get("ece") is not None:
        note += f" The expected calibration error over 15 bins is {percent(run.test['ece'])}."
    return note


def _features(run: Contents, class_scores: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the top features of the classes, or of those with the lowest F1 if there are many."""
    if len(run.top_features) <= MAX_FEATURE_CLASSES:
        return dict(run.top_features)
    names = [row["name"] for row in class_scores if row["name"] in run.top_features] or list(run.top_features)
    return {name: run.top_features[name] for name in names[:MAX_FEATURE_CLASSES]}


def _features_note(run: Contents) -> str:
    is_ngram = run.info.get("model", {}).get("name") == "ngram"
    model = "the network" if is_ngram else "the linear baseline (the network itself has no such weights)"
    many = len(run.top_features) > MAX_FEATURE_CLASSES
    few = f" Shown are the {MAX_FEATURE_CLASSES} classes with the lowest F1." if many else ""
    prefixes = any(feature.ngram.endswith("*") for top in run.top_features.values() for feature in top)
    few += " An asterisk stands for any end of a word." if prefixes else ""
    return (
        f"Words and phrases with the largest weights in {model}, for each class, and the number of training texts "
        f"that contain them.{few}"
    )


def _facts(run: Contents) -> dict[str, Any]:
    """Return data, model, time and machine of the run."""
    info, config = run.info, run.info.get("config", {})
    data, time, plan = info.get("data", {}), info.get("time", {}), info.get("plan") or {}
    best = f"{run.best['epoch']:g} of {run.history[-1]['epoch']:g}" if run.best else None
    probe = "linear probe (no epoch of fine-tuning)" if run.selected_probe else None
    return {
        **{label.capitalize(): value for label, value in data_rows(data)},
        "Fingerprint": data.get("fingerprint"),
        "Model": json_value(info.get("model")),
        "Plan": json_value({key: value for key, value in plan.items() if key != "summary"}),
        "Selected": probe,
        "Best epoch of fine-tuning" if "selected" in info else "Best epoch": best,
        "Selected by": metric_label(run.monitor) if run.monitor and not probe else None,
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
    file = run.info.get("recipe_file")  # if the recipe is a file of your own
    path = display.quote(run.path) + (f" --recipe {display.quote(file)}" if file else "")
    commands = {}
    if "accuracy" in run.test:
        images = "image_size" in run.info.get("config", {}) and run.info.get("task") != "text"
        example = "IMAGE.jpg FOLDER" if images else "'Some text.'"
        commands["Classify new inputs"] = f"dltoolkit predict {path} {example}"
        commands["Explain answers"] = f"dltoolkit explain {path} {example}"
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
    module = ", recipe=module" if file else ""
    commands["From Python"] = f"import dltoolkit\nrun = dltoolkit.load({str(run.path)!r}{module})"
    return commands
