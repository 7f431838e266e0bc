"""The table of the exports of a run in its report, which is written again after each export."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dltoolkit.report import insertion, page

if TYPE_CHECKING:
    from dltoolkit.run import Run


def write(run: Run, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write the table into report.html; a run without a report, or with one of an older version, stays as it is.

    Args:
        run: The run.
        columns: Names of the columns.
        rows: Cells of each export.
    """
    table = page.environment().get_template("exports.html").render(columns=columns, rows=rows)
    insertion.insert(run, "exports", table)
