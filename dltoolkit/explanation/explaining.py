"""Which explainer a run or an export has."""

from __future__ import annotations

from dltoolkit import explanation
from dltoolkit.answers import Answers
from dltoolkit.errors import UserError
from dltoolkit.explanation import language_explainer
from dltoolkit.explanation.explainer import Explainer


def explainer(run: Answers) -> Explainer | language_explainer.LanguageExplainer:
    """Return what explains the answers of a run or of an export.

    Raises:
        UserError: If nothing explains them.
    """
    if run.info["recipe"] == "image-gan":
        raise UserError(
            "The images of a GAN are answers to noise, which has no parts to explain: report.html of its run shows the "
            "nearest training image of each, which says whether they are copies."
        )
    if run.has_verb("stream_text"):
        return language_explainer.LanguageExplainer(run)
    if not run.has_verb("predictor"):
        raise UserError(f"A run of {run.info['recipe']} does not support this.")
    kind = run.verb("predictor")(run).noun
    if kind == "image":
        return explanation.image_explainer.ImageExplainer(run)
    if kind == "text":
        return explanation.text_explainer.TextExplainer(run)
    raise UserError(f"A run of {run.info['recipe']} that reads {kind}s cannot be explained.")
