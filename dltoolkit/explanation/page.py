"""A page with explanations, for phone and desktop, in light and dark, without a network and without scripts."""

from __future__ import annotations

import base64
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from dltoolkit import display
from dltoolkit.explanation import language_markup, methods, overlay, text_markup
from dltoolkit.formatting import percent
from dltoolkit.report import image_grids
from dltoolkit.report import page as report_page

MIRRORED = 0.01  # of the strongest value, up to which the map of the runner-up is that of the class with another sign
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
            method=methods.METHODS.get((explained[0].kind, explained[0].method)) if explained else None,
            faithfulness=explained[0].faithfulness if explained else None,
            kind=explained[0].kind if explained else "",
            classes=sorted(classes),
            has_truth=any(each.truth is not None for each in explained),
        )
    )
    return display.visible(html, keep="\n\t")


def render_section(explanations: Sequence[Any], class_maps: Sequence[Any]) -> str:
    """Return the section of a report with explained examples, wrong ones first, and maps of classes.

    Args:
        explanations: Each a :class:`Explanation` of one method.
        class_maps: Each a :class:`ClassMap`.
    """
    first = explanations[0] if explanations else None
    html = (
        _environment()
        .get_template("report_section.html")
        .render(
            wrong=[_card(each) for each in explanations if not each.is_right],
            right=[_card(each) for each in explanations if each.is_right],
            method=methods.METHODS[first.kind, first.method] if first else None,
            faithfulness=first.faithfulness if first else None,
            kind=first.kind if first else "",
            maps=[
                {"map": each, "png": base64.b64encode(overlay.png(each.mean_image, each.values)).decode()}
                for each in class_maps
            ],
            warnings=[warning_of(each) for each in class_maps if each.region],
        )
    )
    return display.visible(html, keep="\n\t")


def warning_of(class_map: Any) -> str:
    """Return a sentence about a class whose map lies in one corner or border."""
    return (
        f"{percent(class_map.share, 0)} of what speaks for the class {class_map.label} in its test images lies at "
        f"{class_map.region}: look whether these images carry a mark there, such as a watermark, which others lack."
    )


def _card(explanation: Any) -> dict[str, Any]:
    """Return what the template shows of an explanation."""
    card = {"explanation": explanation, "images": {}, "text": {}}
    if explanation.kind == "image":
        card["images"] = _images(explanation)
    if explanation.kind == "text":
        card["text"] = text_markup.describe(explanation)
    if explanation.kind == "language":
        card["text"] = language_markup.describe(explanation)
    return card


def _images(explanation: Any) -> dict[str, str]:
    """Return the image, the map of the class and that of the runner-up as base64 of PNGs; the maps share a scale."""
    maps, other = [explanation.values], explanation.runner_up_values
    if other is not None and np.abs(other + maps[0]).max() > MIRRORED * np.abs(maps[0]).max():
        maps.append(other)  # of two classes, what speaks for one speaks against the other
    scale = overlay.strongest(*maps)
    pngs = [image_grids.png(explanation.image), *(overlay.png(explanation.image, each, scale) for each in maps)]
    encoded = [base64.b64encode(png).decode() for png in pngs]
    return dict(zip(("image", "label", "runner_up"), [*encoded, ""], strict=False))


@functools.cache
def _environment() -> jinja2.Environment:
    """Return the template environment of the report with the templates of this folder."""
    loader = jinja2.FileSystemLoader([TEMPLATES, report_page.TEMPLATES])
    return report_page.environment().overlay(loader=loader)
