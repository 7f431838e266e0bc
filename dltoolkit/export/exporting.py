"""Export of a run: conversion, the other files of the folder, the comparison with the run, and the speed."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dltoolkit import export, files, progress, report
from dltoolkit.errors import ExportRefused, UserError, did_you_mean
from dltoolkit.export import card, exported, folder, parts, speed

if TYPE_CHECKING:
    from dltoolkit.export.parts import Parts
    from dltoolkit.run import Run

FORMATS = tuple(folder.MODEL_FILES)
QUANTIZATIONS = ("none", "float16", "int8")
PACKAGES = {"onnx": ("onnx", "tf2onnx", "onnxruntime"), "litert": ("ai_edge_litert",)}  # of the extra export


def export_run(
    run: Run,
    runtime: str = "onnx",
    *,
    quantize: str = "none",
    out: str | Path | None = None,
    keep_anyway: bool = False,
    data: Any = None,
) -> tuple[Path, dict[str, Any]]:
    """Write a folder that another runtime answers from, after it has answered the test split as the run does.

    Args:
        run: A finished run.
        runtime: ``onnx``, ``litert``, ``savedmodel`` or ``keras``.
        quantize: ``none``, ``float16`` or ``int8``.
        out: The folder, which must not exist (default: ``exports/FORMAT`` in the run).
        keep_anyway: Whether to keep a file that answers otherwise, with the figures in its card.
        data: Where the data of the run are now, as ``Config(data=…)`` takes them, if they have moved.

    Returns:
        The folder, and the contents of its export.json.

    Raises:
        ExportRefused: If the file does not answer as the run does.
        UserError: If the run has not finished, its data are missing or have changed, the format does not exist or
            lacks an operation, a package is missing, or the folder exists.
    """
    _check(run, runtime, quantize)
    path = files.user_path(out) if out else run.path / exported.EXPORTS / default_name(runtime, quantize)
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} exists already: give another --out, or move it away.")
    made = parts.of_run(run, quantize, parts.Source(run, data))
    with _new_folder(path) as partial:
        info = _write(run, made, runtime, quantize, partial)
        compared = export.parity.Parity({}, [])
        if runtime != "keras":  # whose file is that of the run
            compared = made.compare(exported.Export(partial, info, made.steps))
        if compared.failures and not keep_anyway:
            raise ExportRefused(
                f"The {card.RUNTIMES[runtime]} file does not answer as the run does, so it was deleted: "
                f"{'; '.join(compared.failures)}. --keep-anyway keeps it."
            )
        info |= {"passed": not compared.failures, "failures": compared.failures, "parity": compared.figures}
        info["speed"] = _speed(info, partial)
        _write_json(partial / folder.DESCRIPTION, info)
        card.write_card(partial, info, run.info, *made.example[2:])
        folder.write_sums(partial)
    _report(run)
    return path, info


def _report(run: Run) -> None:
    """Write the exports in the directory of a run into its report."""
    rows = []
    for each in sorted((run.path / exported.EXPORTS).glob(f"*/{folder.DESCRIPTION}")):
        with contextlib.suppress(UserError):  # a damaged export is no reason to lose the new one
            rows.append(card.row(folder.read(each.parent)[0]))
    if rows:
        try:
            report.exports.write(run, card.COLUMNS, rows)
        except (files.WriteError, OSError, UnicodeError) as error:  # a disk that is read-only, a damaged report
            progress.warn(f"The table of the exports is not in the report: {error}")


def speed_of_run(run: Run) -> dict[str, Any]:
    """Return the ``speed`` of the run itself, in Keras, for the table of exports."""
    graph = export.graphs.of_run(run, None)
    inputs = [_describe(name, spec) for name, spec in graph.specs.items()]
    with progress.phase("Measuring the speed of Keras"):
        max_length = run.info.get("max_length") or run.info.get("resolved", {}).get("context_length")
        return {"speed": speed.of_graph(graph, inputs, max_length)}


def default_name(runtime: str, quantize: str) -> str:
    """Return the name of an export in the folder of its run."""
    return runtime if quantize == "none" else f"{runtime}-{quantize}"


def _check(run: Run, runtime: str, quantize: str) -> None:
    if runtime not in FORMATS:
        raise UserError(
            f"There is no format '{runtime}'; use one of {', '.join(FORMATS)}.{did_you_mean(runtime, FORMATS)}"
        )
    if quantize not in QUANTIZATIONS:
        near = did_you_mean(quantize, QUANTIZATIONS)
        raise UserError(f"There is no quantization '{quantize}'; use {', '.join(QUANTIZATIONS)}.{near}")
    if quantize != "none" and runtime not in PACKAGES:
        raise UserError(f"--quantize has no effect with --format={runtime}: leave it out, or use onnx or litert.")
    if missing := [name for name in PACKAGES.get(runtime, ()) if importlib.util.find_spec(name) is None]:
        raise UserError(f"An export to {runtime} needs {' and '.join(missing)}: pip install 'dltoolkit[export]'.")
    if runtime == "keras" and run.has_verb("stream_text"):
        raise UserError(
            "A language model keeps layers of dltoolkit, which Keras alone cannot open: export it to onnx, litert or "
            "savedmodel."
        )
    if run.info["state"] != "finished":
        raise UserError(
            f"{run.path} has not finished (its state is '{run.info['state']}'): resume it with: {run.resume_command}"
        )


def _write(run: Run, made: Parts, runtime: str, quantize: str, path: Path) -> dict[str, Any]:
    """Write the model file and what belongs to it, and return the contents of export.json."""
    file = path / folder.MODEL_FILES[runtime]
    with progress.phase(f"Converting the model to {card.RUNTIMES[runtime]}"):
        graph, quantized = _convert(run, made, runtime, quantize, file)
    outputs = graph.function.structured_outputs
    info = {
        "format": folder.FORMAT,
        "kind": made.kind,
        "runtime": runtime,
        "quantize": quantized,
        "bytes": _size(file),
        "inputs": [_describe(name, spec) for name, spec in graph.specs.items()],
        "outputs": [_describe(name, tensor) for name, tensor in outputs.items()],
        "state": graph.state,
        "run": {
            "recipe": run.info["recipe"],
            "name": run.info.get("name"),
            "fingerprint": run.info["data"].get("fingerprint"),
            "model_sha256": files.sha256(run.model_path, follow_links=False),
        },
        "data": {
            key: run.info["data"][key]
            for key in ("image_shape", "scale", "resize", "columns")
            if key in run.info["data"]
        },
        "passed": False,
        "failures": [],
        "parity": {},
        "speed": {},
    }
    _write_json(path / folder.PREPROCESSING, made.steps)
    if run.labels:
        _write_json(path / folder.LABELS, run.labels)
    if made.encoder:
        made.encoder.save(path)
    _write_json(path / folder.DESCRIPTION, info)
    if runtime in card.LOADS:
        card.write_example(path, info, made.example[0], **made.example[1])
    if runtime == "onnx":
        card.write_triton(path, info)
    return info


def _convert(run: Run, made: Parts, runtime: str, quantize: str, file: Path) -> tuple[export.graphs.Graph, str]:
    """Write the model file for any number of inputs per call, or for one if the format cannot do more."""
    if runtime == "keras":
        shutil.copyfile(run.model_path, file)
        return export.graphs.of_run(run, None), "none"
    for batch in (None, 1):
        graph = export.graphs.of_run(run, batch)
        try:
            return graph, export.quantization.convert(graph, runtime, quantize, file, made.representative)
        except UserError:
            if batch or runtime != "litert":
                raise
    raise AssertionError  # the loop returns or raises


def _speed(info: dict[str, Any], path: Path) -> dict[str, float]:
    if info["runtime"] in exported.OTHERS:
        return {}
    with progress.phase("Measuring the speed"):
        folder.write_sums(path)
        return {name: round(value, 4) for name, value in speed.measure(path).items()}


def _describe(name: str, tensor: Any) -> dict[str, Any]:
    return {"name": name, "dtype": tensor.dtype.name, "shape": list(tensor.shape)}


def _size(path: Path) -> int:
    return (
        sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else path.stat().st_size
    )


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that is renamed to ``path`` if the block succeeds, and is deleted otherwise.

    What a killed export left there is deleted first.

    Raises:
        FolderInUse: If another export to the same path is running.
        UserError: If the folder cannot be written.
    """
    workspace = path.with_name(f".{path.name}{files.PARTIAL_MARK}")
    if kind := files.special_kind(workspace, follow_links=False):
        raise UserError(f"Cannot write {workspace}: it is {kind}.")
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        with files.exclusive_lock(workspace):
            partial = workspace / "export"
            try:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                yield partial
                partial.rename(path)
            finally:
                shutil.rmtree(workspace, ignore_errors=True)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror or error}.") from error
