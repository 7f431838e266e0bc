"""The table of the exports of a run in its report, which is written again after each export."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dltoolkit import display
from dltoolkit.report import page

if TYPE_CHECKING:
    from dltoolkit.run import Run

BEGIN, END = "<!-- exports -->", "<!-- end of exports -->"  # marks in report.html between which the table stands


def write(run: Run, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write the table into report.html; a run without a report, or with one of an older version, stays as it is.

    Args:
        run: The run.
        columns: Names of the columns.
        rows: Cells of each export.
    """
    path = run.path / "report.html"
    html = path.read_text(encoding="utf-8") if path.exists() else ""
    before, begin, rest = html.partition(BEGIN)
    _, end, after = rest.partition(END)
    if begin and end:
        table = page.environment().get_template("exports.html").render(columns=columns, rows=rows)
        run.write("report.html", f"{before}{BEGIN}{display.visible(table, keep=chr(10))}{END}{after}")
