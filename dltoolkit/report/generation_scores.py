"""The scores of generators as a report explains them: those of GANs and those of language models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dltoolkit.evaluation.significance import Verdict
from dltoolkit.formatting import metric_label, percent
from dltoolkit.report.formatting import metric_value

if TYPE_CHECKING:
    from dltoolkit.report.contents import Contents

MEANINGS = {
    "gan_train_accuracy": "Accuracy on the real test images of a classifier trained on generated images alone, next to "
    "that of a classifier trained on real images. The closer the two are, the more the generated images are worth.",
    "gan_test_accuracy": "Generated images that a classifier trained on real images recognizes as their class.",
    "frechet_distance": "Distance between generated and real test images in the features of a small classifier of the "
    "same data; lower is better. Distances of other data sets or from papers are not comparable.",
    "kernel_distance": "Another distance of the same features, which does not depend on the number of images; about 0 "
    "if the two sets look alike.",
    "precision": "Generated images that lie among the real ones: how realistic they are.",
    "recall": "Real images that lie among the generated ones: how varied those are.",
    "density": "How densely real images surround a generated one; about 1 if they look alike.",
    "coverage": "Real test images with a generated image in their neighborhood: variety, less sensitive to outliers "
    "than recall.",
    "memorization_rate": "Generated images that are nearer to a training image than 99 % of the test images are; 1 % "
    "is expected, and much more means copies of training images.",
}
REAL_KEYS = {"gan_train_accuracy": "classifier_accuracy"}  # scores of real images that have another name
COPIES = 0.05  # memorization rate above which the headline warns
UNIGRAM = "unigram"  # the baseline of language models that ignores the context
LONGER = " Train longer, or check the learning rate."


def image_verdict(test: Mapping[str, Any], baselines: Mapping[str, Any]) -> Verdict:
    """Return one sentence about the quality of generated images, from their scores and those of real images."""
    real = _real(baselines)
    if "gan_train_accuracy" in test:
        accuracy = percent(test["gan_train_accuracy"])
        statement = f"Trained on generated images alone, a classifier recognizes {accuracy} of the real test images"
        explanation = "."
        if "classifier_accuracy" in real:
            explanation = f"; trained on real images, it recognizes {percent(real['classifier_accuracy'])}."
    else:
        statement = f"The generated images cover {percent(test.get('coverage', 0))} of the variety of the real ones"
        explanation = "."
        if "coverage" in real:
            explanation = f"; as many real training images cover {percent(real['coverage'])}."
    if test.get("memorization_rate", 0) > COPIES:
        explanation += f" {percent(test['memorization_rate'])} of them are nearly copies of training images."
    return Verdict(statement, explanation)


def image_scores(run: Contents) -> list[dict[str, str]]:
    """Return the scores of a GAN next to those of real training images, each with its meaning."""
    if "frechet_distance" not in run.test:
        return []
    real = _real(run.metrics.get("baseline") or {})
    names = [name for name in MEANINGS if name in run.test] + [name for name in run.test if name not in MEANINGS]
    return [
        {
            "name": metric_label(name),
            "value": metric_value(name, run.test[name]),
            "real": metric_value(name, real[key]) if (key := REAL_KEYS.get(name, name)) in real else "",
            "meaning": MEANINGS.get(name, ""),
        }
        for name in names
        if isinstance(run.test[name], int | float)
    ]


def text_verdict(test: Mapping[str, Any], baselines: Mapping[str, Any]) -> Verdict | None:
    """Return one sentence about a language model and the best of its baselines; None without a baseline.

    A model that is worse than the best baseline is also compared with the unigram model, which ignores the context.
    """
    bits = {name: scores["bits_per_character"] for name, scores in baselines.items() if "bits_per_character" in scores}
    own = test.get("bits_per_character")
    if own is None or not bits:
        return None
    name = min(bits, key=bits.get)
    explanation = f": {own:.3f} against {bits[name]:.3f} bits per character."
    if f"{own:.3f}" == f"{bits[name]:.3f}":
        return Verdict(f"The network predicts the text no better than the best baseline ({name})", explanation + LONGER)
    if own < bits[name]:
        fewer = percent(1 - own / bits[name])
        return Verdict(f"The network needs {fewer} fewer bits than the best baseline ({name})", explanation)
    if name != UNIGRAM and own > bits.get(UNIGRAM, own):
        explanation += f" It is also worse than the unigram model ({bits[UNIGRAM]:.3f}), which ignores the context."
    return Verdict(f"The network predicts the text worse than the best baseline ({name})", explanation + LONGER)


def text_scores(run: Contents) -> list[dict[str, Any]]:
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


def _real(baselines: Mapping[str, Any]) -> dict[str, float]:
    """Return the scores of real training images, measured like generated images."""
    return baselines.get("real_vs_real") or {}
