"""The files of an exported folder, and their check before anything reads them.

An export from somebody else is data: only regular files inside the folder are read, each must fit its description and
the SHA-256 in ``SHA256SUMS``, and a model file must be whole and without code.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

from dltoolkit import files, run_schema
from dltoolkit.errors import UserError

FORMAT = 1  # of export.json
DESCRIPTION, PREPROCESSING, LABELS, SUMS = "export.json", "preprocessing.json", "labels.json", "SHA256SUMS"
MODEL_FILES = {"onnx": "model.onnx", "litert": "model.tflite", "savedmodel": "1", "keras": "model.keras"}
KINDS = ("image-classifier", "text-classifier", "text-generator", "image-generator")
MAX_MODEL_BYTES = 1 << 33  # of all files together
MAX_STATE = 1 << 24  # numbers of the state of a language model before the first token
MAX_SHOWN = 6  # exports in a message
TENSOR = {"name": str, "dtype": str, "shape": run_schema.SHAPE}
EXPORT = {
    "format": int,
    "kind": set(KINDS),
    "runtime": set(MODEL_FILES),
    "quantize": str,
    "inputs": [TENSOR],
    "outputs": [TENSOR],
    "state": {str: str},
    "run": {"recipe": str, "name": (str, None), "fingerprint": (str, None), "model_sha256": str},
    "data": run_schema.RUN["data"],
    "bytes": run_schema.COUNT,
    "speed": {str: float},
    "passed": bool,
    "parity": {str: (float, str, None, [float])},
}
REQUIRED = ("format", "kind", "runtime", "quantize", "inputs", "outputs", "state", "run", "passed")
STEPS = {  # preprocessing.json, as far as this program reads it
    "image_shape": [run_schema.SIDE, run_schema.SIDE, run_schema.SIDE],
    "scale": run_schema.RUN["data"]["scale"],
    "resize": {"mode": str},
    "max_length": (run_schema.SIZE, None),
    "start_tokens": [run_schema.COUNT],
    "end_tokens": [run_schema.COUNT],
    **dict.fromkeys(("pretrained", "lowercase", "strip_accents"), bool),
    "context_length": run_schema.CONTEXT,
    "conditional": bool,
    "latent_dim": run_schema.SIDE,
    "state": {str: str},
    "empty_state": {str: [run_schema.COUNT]},
    "unknown_id": (run_schema.COUNT, None),
}


def is_export(path: Path) -> bool:
    """Return whether a folder is an export."""
    return os.path.isfile(path / DESCRIPTION)  # also if the name is too long for a path


def exports_near(path: Path) -> list[Path]:
    """Return the exports in a folder, or the one that a file belongs to."""
    if os.path.isfile(path):
        return [path.parent] if is_export(path.parent) else []
    return sorted(each.parent for each in path.glob(f"*/{DESCRIPTION}"))[:MAX_SHOWN]


def write_sums(folder: Path) -> None:
    """Write the SHA-256 of every file, as ``sha256sum --check SHA256SUMS`` reads it."""
    lines = [
        f"{files.sha256(path, follow_links=False)}  {path.relative_to(folder).as_posix()}\n"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != SUMS
    ]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what export.json and preprocessing.json of an export say, after all of its files are checked.

    Raises:
        UserError: If the folder is no export, a file is missing, damaged or too large, or the format is another one.
    """
    info = run_schema.read(folder / DESCRIPTION, EXPORT, required=REQUIRED)
    if info["format"] != FORMAT:
        raise UserError(
            f"{folder} has format {info['format']}, but this version reads only {FORMAT}: export the run again."
        )
    _check_sums(folder)
    steps = run_schema.read(folder / PREPROCESSING, STEPS)
    if sum(map(math.prod, steps.get("empty_state", {}).values())) > MAX_STATE:
        raise UserError(
            f"{folder / PREPROCESSING} is damaged: 'empty_state' has more than {MAX_STATE:,} numbers, so it was not "
            "read: export the run again."
        )
    return info, steps


def _check_sums(folder: Path) -> None:
    """Raise a UserError if a file of the folder is missing, changed, or not in the list of digests."""
    again = "copy the whole folder again, or export the run again"
    files.refuse_special_files(folder)
    try:
        lines = run_schema.read_text(folder / SUMS).splitlines()
        matches = [re.fullmatch("([0-9a-f]{64}) [ *](.+)", line, re.IGNORECASE) for line in lines]
        expected = {match[2]: match[1].lower() for match in matches}
        if len(expected) < len(lines):
            raise ValueError("a name twice")
    except (OSError, ValueError, TypeError):  # a line that does not match is a TypeError
        raise UserError(f"{folder / SUMS} is missing or damaged: {again}.") from None
    present = {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()
    }
    for name in sorted(expected.keys() | present):
        if name == SUMS:
            continue
        if name not in expected:
            raise UserError(f"{folder / name} is not a file of the export: move it out of the folder.")
        if name not in present:
            raise UserError(f"{name} is missing in {folder}: {again}.")
    if sum((folder / name).lstat().st_size for name in expected) > MAX_MODEL_BYTES:
        raise UserError(f"{folder} has more than {MAX_MODEL_BYTES >> 30} GiB, so it was not read.")
    for name, digest in expected.items():
        try:
            actual = files.sha256(folder / name, follow_links=False)
        except OSError as error:
            raise UserError(f"{folder / name} cannot be read: {error.strerror or error}.") from None
        if actual != digest:
            raise UserError(f"{folder / name} has changed since it was exported: {again}.")
