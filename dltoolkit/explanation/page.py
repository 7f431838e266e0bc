"""A page with explanations, for phone and desktop, in light and dark, without a network and without scripts."""

from __future__ import annotations

import base64
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from dltoolkit import display
from dltoolkit.explanation import methods, overlay
from dltoolkit.report import image_grids
from dltoolkit.report import page as report_page

TEMPLATES = Path(__file__).parent / "templates"


def render(explanations: Sequence[Any], *, title: str = "") -> str:
    """Return a page with each :class:`Explanation`, in which control characters are visible.

    Args:
        explanations: The explanations; all of one method.
        title: The run, as its user names it.
    """
    explained = [each for each in explanations if each.error is None]
    classes = {name for each in explained for name in (each.label, each.truth) if name is not None}
    html = (
        _environment()
        .get_template("explanations.html")
        .render(
            title=title,
            cards=[_card(each) for each in explained],
            errors=[each for each in explanations if each.error is not None],
            method=methods.METHODS[explained[0].method] if explained else None,
            faithfulness=explained[0].faithfulness if explained else None,
            classes=sorted(classes),
            has_truth=any(each.truth is not None for each in explained),
        )
    )
    return display.visible(html, keep="\n\t")


def _card(explanation: Any) -> dict[str, Any]:
    """Return what the template shows of an explanation."""
    return {"explanation": explanation, "images": _images(explanation) if explanation.kind == "image" else {}}


def _images(explanation: Any) -> dict[str, str]:
    """Return the image, the map of the class and that of the runner-up as base64 of PNGs; the maps share a scale."""
    maps = [each for each in (explanation.values, explanation.runner_up_values) if each is not None]
    scale = overlay.strongest(*maps)
    pngs = [image_grids.png(explanation.image), *(overlay.png(explanation.image, each, scale) for each in maps)]
    return dict(zip(("image", "label", "runner_up"), (base64.b64encode(png).decode() for png in pngs), strict=False))


@functools.cache
def _environment() -> jinja2.Environment:
    """Return the template environment of the report with the templates of this folder."""
    loader = jinja2.FileSystemLoader([TEMPLATES, report_page.TEMPLATES])
    return report_page.environment().overlay(loader=loader)
