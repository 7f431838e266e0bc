"""Parts of report.html that are written after the rest of the page, between two marks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dltoolkit import display

if TYPE_CHECKING:
    from dltoolkit.run import Run


def has_place(run: Run, name: str) -> bool:
    """Return whether the report of a run has the marks of a part; that of an older version has not."""
    return _split(run, name) is not None


def insert(run: Run, name: str, html: str) -> None:
    """Write a part into the report of a run in place of the earlier one; a report without its marks stays as it is.

    Args:
        run: The run.
        name: Name of the part in its marks, ``<!-- name -->`` and ``<!-- end of name -->``.
        html: The part.
    """
    if parts := _split(run, name):
        before, after = parts
        run.write("report.html", f"{before}{display.visible(html, keep=chr(10))}{after}")


def _split(run: Run, name: str) -> tuple[str, str] | None:
    """Return the report up to a part, and from its end on, with the marks; None without a report or without marks."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    path = run.path / "report.html"
    page = path.read_text(encoding="utf-8") if path.exists() else ""
    before, begin_mark, rest = page.partition(begin)
    _, end_mark, after = rest.partition(end)
    return (before + begin, end + after) if begin_mark and end_mark else None
