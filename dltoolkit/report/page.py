"""report.html: one self-contained page about a run, for phone and desktop, in light and dark, without a network.

The page is rendered from the templates in ``templates/``, with the values that ``sections`` computes. Jinja escapes
everything that comes from a run.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from dltoolkit import display, progress
from dltoolkit.report import formatting, image_grids, plots, sections
from dltoolkit.report.contents import Contents, Samples

if TYPE_CHECKING:
    from dltoolkit.evaluation.classification import Mistake
    from dltoolkit.evaluation.ngram_baseline import NgramWeight
    from dltoolkit.run import Run

TEMPLATES = Path(__file__).parent / "templates"


@progress.phase("Writing the report")
def write(
    run: Run,
    *,
    mistakes: Sequence[Mistake] = (),
    samples: Mapping[str, Samples] | None = None,
    reliability: Mapping[str, Any] | None = None,
    ranking: Mapping[str, Any] | None = None,
    top_features: Mapping[str, Sequence[NgramWeight]] | None = None,
    texts: Mapping[str, str] | None = None,
) -> None:
    """Write plots/*.png and report.html of a run in any state.

    Args:
        run: Run with path, info (run.json), metrics (metrics.json) and history (history.csv), which writes the files.
        mistakes: Worst mistakes, the most confident first.
        samples: Images uint8 (n, height, width, channels) that are shown in a grid, or two such arrays that are shown
            in pairs, by the name of their file in plots/; their headings are those of ``sections.SAMPLES``.
        reliability: Result of ``metrics.reliability``.
        ranking: Result of ``ranking.curves``.
        top_features: N-grams with the largest weights of each class, in descending order.
        texts: Generated text after each epoch, by name, in order.
    """
    contents = Contents(
        run.path,
        run.info,
        run.metrics,
        run.history,
        tuple(mistakes),
        samples=samples or {},
        reliability=reliability,
        ranking=ranking,
        top_features=top_features or {},
        texts=texts or {},
    )
    for name, png in contents.plots.items():
        run.write(f"plots/{name}.png", png)
    run.write("report.html", render(contents))


def render(contents: Contents) -> str:
    """Return the page as HTML, in which the control characters of names and texts are visible."""
    html = environment().get_template("report.html").render(run=contents, **sections.context(contents))
    return display.visible(html, keep="\n\t")


@functools.cache
def environment() -> jinja2.Environment:
    """Return the template environment, which keeps the compiled templates."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": formatting.percent,
        "base64": lambda png: base64.b64encode(png).decode(),
        "chart_width": plots.display_width,
        "thumbnail": image_grids.thumbnail,
    }
    return environment
