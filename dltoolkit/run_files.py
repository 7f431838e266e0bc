"""The files of a run directory: JSON, tables and text, each written to a new file that then replaces the old one."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dltoolkit import cluster, files
from dltoolkit.errors import UserError


class RunFiles:
    """A run directory and the contents of its run.json.

    Attributes:
        path: The directory.
        info: The contents of run.json (see docs/run_directory.md).
        writes: Whether this process may change the directory. Of several workers that train together, only the chief
            may.
    """

    def __init__(self, path: Path, info: dict[str, Any]):
        self.path, self.info = path, info
        self.writes = cluster.is_chief()

    def update(self, **fields: Any) -> None:
        """Change fields of run.json. A dictionary is merged into the previous one."""
        for name, value in fields.items():
            old = self.info.get(name)
            self.info[name] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
        self.write_json("run.json", self.info)

    def write(self, name: str, content: bytes | str) -> Path:
        """Write a file of the run atomically, so that readers never see an incomplete file."""
        path = self.path / name
        if not self.writes:
            return path
        with files.atomic_write(path) as partial:
            partial.write_bytes(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)
        return path

    def write_json(self, name: str, content: Any) -> Path:
        """Write a JSON file of the run, indented for readability."""
        return self.write(name, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def write_rows(self, name: str, rows: Sequence[dict[str, Any]]) -> Path:
        """Write a CSV file of the run from dictionaries with equal keys."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return self.write(name, text.getvalue())

    @property
    def metrics(self) -> dict[str, Any]:
        """The contents of metrics.json; empty before the run was evaluated."""
        return self._read_json("metrics.json") if (self.path / "metrics.json").exists() else {}

    @property
    def history(self) -> list[dict[str, float]]:
        """The rows of history.csv as numbers, one row per epoch."""
        path = self.path / "history.csv"
        if not path.exists():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        try:
            return [{name: float(value) for name, value in row.items() if value != ""} for row in rows]
        except (TypeError, ValueError):
            raise UserError(f"{path} is damaged; resume the run to write it again.") from None

    def _read_json(self, name: str) -> dict[str, Any]:
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (ValueError, OSError):
            effect = ", and the run cannot be used without it" if name == "run.json" else ""
            raise UserError(f"{self.path / name} is damaged or cannot be read{effect}.") from None
