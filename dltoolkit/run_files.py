"""The files of a run directory: JSON, tables and text, each written to a new file that then replaces the old one."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dltoolkit import cluster, files, run_schema
from dltoolkit.errors import UserError

FORMAT = 2  # version of the layout of a run directory; raised if older versions of this package cannot read the new one
WHOLE = ("epoch", "step")  # columns of history.csv that hold whole numbers

# Files that give the inputs and outputs of the model their meaning
PARTS = ("labels.json", "vocabulary.txt", "vocabulary.json", "tokenizer.json")


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
        content = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
        if len(content) > (limit := run_schema.max_bytes(path)):
            raise UserError(f"{path} would have more than {limit >> 20} MiB: use fewer classes, or shorter names.")
        with files.atomic_write(path) as partial:
            partial.write_bytes(content)
        return path

    def write_json(self, name: str, content: Any) -> Path:
        """Write a JSON file of the run, indented for readability."""
        return self.write(name, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def write_rows(self, name: str, rows: Sequence[dict[str, Any]]) -> Path:
        """Write a CSV file of the run from dictionaries with equal keys."""
        lines: list[str] = []
        # csv puts cells with characters of the line end into quotes, so this one has a carriage return, too
        target = SimpleNamespace(write=lambda line: lines.append(line.removesuffix("\r\n") + "\n"))
        writer = csv.DictWriter(target, fieldnames=list(rows[0]), lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(rows)
        return self.write(name, "".join(lines))

    @property
    def metrics(self) -> dict[str, Any]:
        """The contents of metrics.json; empty before the run was evaluated."""
        path = self.path / "metrics.json"
        return run_schema.read(path, run_schema.METRICS) if os.path.lexists(path) else {}

    @property
    def history(self) -> list[dict[str, float]]:
        """The rows of history.csv as numbers, one row per epoch."""
        path = self.path / "history.csv"
        if not os.path.lexists(path):
            return []
        try:
            rows = list(csv.DictReader(io.StringIO(run_schema.read_text(path), newline="")))
            history = [{name: float(value) for name, value in row.items() if value != ""} for row in rows]
            numbers = [row[name] for row in history for name in WHOLE if name in row]
            is_valid = all(number.is_integer() and 0 <= number < run_schema.MAX_NUMBER for number in numbers)
        except (OSError, TypeError, ValueError, csv.Error):
            is_valid = False
        if not is_valid:
            raise UserError(f"{path} is damaged; resume the run to write it again.")
        return [run_schema.Fields(row, path, "") for row in history]

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 digests of the files that give the inputs and outputs of the model their meaning."""
        paths = {name: self.path / name for name in PARTS if (self.path / name).exists()}
        return {name: files.sha256(path) for name, path in paths.items()}

    def check_parts(self) -> None:
        """Raise a UserError if a file of a finished run that belongs to its model is not the one it finished with."""
        if self.info["state"] != "finished" or "files" not in self.info:
            return
        expected, actual = self.info["files"], self.digests()
        if changed := [name for name in PARTS if expected.get(name) != actual.get(name)]:
            raise UserError(
                f"{self.path / changed[0]} has changed since the run finished, so it no longer fits the model: restore "
                "it, or train a new run."
            )

    def reload(self) -> None:
        """Read run.json again.

        Raises:
            UserError: If it is damaged, the run has another format than this version reads, or the directory holds
                links or special files.
        """
        files.refuse_special_files(self.path)
        path = self.path / "run.json"
        info = run_schema.load(path, required=run_schema.RUN_REQUIRED)
        number = info.get("format")
        if type(number) is not int or number != FORMAT:
            actual = f"format {str(number)[:20]}" if "format" in info else "no format number"
            raise UserError(f"{self.path} has {actual}, but this version reads only format {FORMAT}: train a new run.")
        self.info = run_schema.fitting(info, run_schema.RUN, path)
