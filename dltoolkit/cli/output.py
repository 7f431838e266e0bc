"""What the verbs print on stdout: tables for people, JSON and CSV for programs."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dltoolkit import recipe
from dltoolkit.errors import UserError

DATA_FORMS = [
    ["FOLDER", "class folders, with or without train, validation and test folders around them"],
    ["FILE", ".csv, .tsv, .jsonl or .parquet with a column of paths or texts and one of labels, or .npz arrays"],
    ["keras:NAME", "a data set that Keras downloads: mnist, fashion_mnist, cifar10, cifar100"],
    ["NAME, tfds:NAME/CONFIG", "a TensorFlow data set, such as fashion_mnist"],
]

if TYPE_CHECKING:
    import numpy as np

    from dltoolkit.evaluation.prediction import Prediction
    from dltoolkit.run import Run


def as_json(value: Any) -> None:
    """Print a value as indented JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def training_summary(run: Run) -> None:
    """Print what a training came to, where it is the chief's: the score, the baselines, and what to do next."""
    if not run.writes:
        return
    metrics = run.metrics
    for part in ("test", "validation"):
        if "accuracy" in metrics.get(part, {}):
            low, high = (100 * bound for bound in metrics[part]["accuracy_ci95"])
            values = metrics[part]
            click.echo(
                f"{part + ' accuracy':20}{percent(values['accuracy'])}  (95 % interval {low:.1f} to {high:.1f} %)  "
                f"macro F1 {values['macro_f1']:.3f}"
            )
        elif "bits_per_character" in metrics.get(part, {}):
            click.echo(
                f"{part:20}" + "{bits_per_character:.3f} bits a character  loss {loss:.4f}".format(**metrics[part])
            )
        elif "frechet_distance" in metrics.get(part, {}):
            values = metrics[part]
            for key, wording in (("gan_train", "taught by generated pictures"), ("probe", "taught by real ones")):
                if f"{key}_accuracy" in values:
                    click.echo(f"{wording:30}{percent(values[f'{key}_accuracy'])} {part} accuracy of a classifier")
            for name in ("frechet", "kernel"):
                ours, floor = values[f"{name}_distance"], values[f"{name}_distance_floor"]
                click.echo(f"{name + ' distance':30}{ours:.4f}  (real training pictures: {floor:.4f})")
    for name, values in metrics.get("baseline", {}).items():
        bits = values.get("bits_per_character")
        shown = percent(values["accuracy"]) if bits is None else f"{bits:.3f} bits a character"
        click.echo(f"{name + ' baseline':20}{shown}")
    from dltoolkit.progress import duration

    times = run.info.get("time", {})
    if "train_seconds" in times:
        click.echo(f"{'time':20}{duration(times['train_seconds'])} training, {duration(times['total_seconds'])} in all")
    click.echo(f"{'run':20}{run.path}")
    click.echo(f"{'report':20}{run.path / 'report.html'}")
    if hasattr(run.recipe, "predict"):
        use = "predict {} INPUT..."
    else:
        use = "generate {} --prompt TEXT" if hasattr(run.recipe, "stream") else "generate {} --count 64 --grid"
    click.echo(f"{'use it':20}dltoolkit {use.format(run.path)}")


def measures(measured: dict[str, Any]) -> None:
    """Print one evaluation: the overall figures and a row for each class."""
    single = {key: value for key, value in measured.items() if isinstance(value, (int, float))}
    rows = [[key.replace("_", " "), f"{value:.4f}"] for key, value in single.items()]
    if "accuracy_ci95" in measured:
        rows.insert(2, ["accuracy 95 % interval", "{:.4f} to {:.4f}".format(*measured["accuracy_ci95"])])
    table([], rows)
    if "per_class" in measured:
        click.echo()
        columns = ["precision", "recall", "f1"]
        table(
            ["class", *columns, "support"],
            [
                [label, *(f"{values[column]:.3f}" for column in columns), str(values["support"])]
                for label, values in measured["per_class"].items()
            ],
        )


def predictions(answers: Iterable[Prediction], form: str) -> bool:
    """Print predictions as table, json, jsonl or csv; return whether any input could not be answered."""
    failed = False

    def watched() -> Iterable[Prediction]:
        nonlocal failed
        for answer in answers:
            failed = failed or answer.error is not None
            yield answer

    if form == "json":
        as_json([answer.to_dict() for answer in watched()])
    elif form == "jsonl":
        for answer in watched():
            sys.stdout.write(json.dumps(answer.to_dict(), ensure_ascii=False) + "\n")
            sys.stdout.flush()
    elif form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["input", "label", "probability", "top", "error"])
        for answer in watched():
            top = " ".join(f"{item['label']}={item['probability']:.4f}" for item in answer.top)
            writer.writerow([answer.input, answer.label, answer.probability, top, answer.error])
            sys.stdout.flush()
    else:
        rows = []
        for answer in watched():
            if answer.error is not None:
                rows.append([answer.input, "-", "-", answer.error])
                continue
            others = "  ".join(f"{item['label']} {percent(item['probability'])}" for item in answer.top[1:])
            rows.append([answer.input, answer.label, percent(answer.probability), others])
        table(["input", "label", "probability", "next"], rows)
    return failed


def continuation(prompt: str, pieces: Iterable[Sequence[str]]) -> None:
    """Print a prompt, and what continues it as it is drawn."""
    sys.stdout.write(prompt)
    for (piece,) in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")


def continuations(prompts: Sequence[str], texts: Sequence[str], form: str) -> None:
    """Print prompts with what continues them, one after the other, as text or json."""
    if form == "json":
        as_json([{"prompt": prompt, "text": text} for prompt, text in zip(prompts, texts, strict=True)])
        return
    for number, (prompt, text) in enumerate(zip(prompts, texts, strict=True), start=1):
        click.echo(f"--- {number} of {len(prompts)}\n{prompt}{text}")


def pictures(drawn: np.ndarray, folder: str, *, grid: bool, animated: bool) -> None:
    """Write pictures, uint8 (n, height, width, channels), to a folder as PNGs, and print where they are."""
    from dltoolkit.report import plots

    path, digits = Path(folder).expanduser(), max(4, len(str(len(drawn))))
    pages = {}
    if grid:
        pages["grid.png"] = plots.page(drawn, most=len(drawn))
    if animated:
        pages["way.gif"] = plots.animation([plots.page(drawn[[i]]) for i in range(len(drawn))], most=len(drawn))

    def write(number: int) -> None:
        with open(f"{beside}/{number + 1:0{digits}}.png", "wb", buffering=0) as file:
            file.write(plots.png(drawn[number]))

    with _filling(path) as beside, ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(write, range(len(drawn))))
        for name, content in pages.items():
            (beside / name).write_bytes(content)
    click.echo(f"{len(drawn)} pictures in {path}" + (f", with {' and '.join(pages)}" if pages else ""))


@contextlib.contextmanager
def _filling(folder: Path) -> Iterator[Path]:
    """Yield a folder to write files to, and put all of them into ``folder`` when the block ends well.

    Raises:
        UserError: if the disk is full or the folder cannot be written; nothing half-written stays.
    """
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        beside.mkdir(parents=True, exist_ok=True)
        yield beside
        if not folder.exists():
            beside.rename(folder)
        for file in beside.iterdir() if beside.exists() else ():
            file.replace(folder / file.name)
    except OSError as error:
        raise UserError(f"Cannot write pictures to {folder}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def run(found: Run) -> None:
    """Print what a run is, what it was trained on and how good it is."""
    info = found.info
    data, metrics = info.get("data", {}), found.metrics
    rows = [
        ["run", str(found.path)],
        ["state", info["state"] + (f": {info['error']}" if info.get("error") else "")],
        ["command", info.get("command", "")],
        ["data", data.get("source", "")],
        ["splits", ", ".join(f"{part} {count}" for part, count in data.get("splits", {}).items())],
        ["classes", _shortened(data.get("classes", []))],
        ["model", "{name}, {parameters:,} parameters".format(**info["model"]) if "model" in info else ""],
        ["device", "{kind} × {replicas}, {precision}".format(**info["device"]) if "device" in info else ""],
        ["epochs", str(len(found.history))],
    ]
    for part in ("validation", "test"):
        rows += [[f"{part} {key}".replace("_", " "), value] for key, value in _figures(metrics.get(part, {})).items()]
    rows += [[f"{name} baseline", percent(values["accuracy"])] for name, values in metrics.get("baseline", {}).items()]
    rows.append(["report", str(found.path / "report.html")])
    table([], [row for row in rows if row[1]])


def recipes() -> None:
    """Print the recipes with their first docstring lines."""
    table(["recipe", "what it does"], [[name, recipe.summary(path)] for name, path in recipe.names().items()])


def data_sets() -> None:
    """Print what --data takes."""
    from dltoolkit.data.readers import source

    click.echo()
    rows = [[name, text] for name, text in source.bundled().items()]
    table(["data", "what it is (the first need no download)"], [*rows, *DATA_FORMS])


def backbones() -> None:
    """Print the networks that fine-tune can go on from by name."""
    from dltoolkit.models.pretrained import architectures

    rows = [[name, f"{one.millions:g} million", f"{one.side}x{one.side}"] for name, one in architectures.KNOWN.items()]
    table(["backbone", "parameters", "pictures"], rows)


def runs(found: Sequence[Run], out_dir: str) -> None:
    """Print the runs there are, oldest first."""
    click.echo()
    if not found:
        click.echo(f"No runs in {out_dir} yet.")
        return
    rows = []
    for one in found:
        figures = _figures(one.metrics.get("test", {}))
        rows.append(
            [f"{one.path.parent.name}/{one.path.name}", one.info["state"], _first(figures), one.info.get("created", "")]
        )
    table(["run", "state", "test", "created"], rows)


def comparison(found: Sequence[Run]) -> None:
    """Print runs side by side: their scores, and the options in which they differ."""
    names = [one.path.name for one in found]
    options = list(dict.fromkeys(key for one in found for key in one.info["config"]))
    rows = [["state", *(one.info["state"] for one in found)]]
    figures = [_figures(one.metrics.get("test", {})) for one in found]
    for key in dict.fromkeys(key for each in figures for key in each):
        rows.append([f"test {key}".replace("_", " "), *(each.get(key, "") for each in figures)])
    rows.append(["train seconds", *(str(one.info.get("time", {}).get("train_seconds", "")) for one in found)])
    rows.append(["parameters", *(f"{one.info.get('model', {}).get('parameters', 0):,}" for one in found)])
    for key in options:
        values = [str(one.info["config"].get(key)) for one in found]
        if len(set(values)) > 1 and key != "name":
            rows.append([key, *values])
    table(["", *names], rows)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in aligned columns, without frames, so that cut and awk can read them."""
    lines = [list(header), *rows] if header else list(rows)
    if not lines:
        return
    widths = [max(len(str(line[i])) for line in lines) for i in range(len(lines[0]))]
    for number, line in enumerate(lines):
        cells = [str(cell).ljust(width) for cell, width in zip(line, widths, strict=True)]
        text = "  ".join(cells).rstrip()
        click.echo(click.style(text, bold=True) if header and number == 0 else text)


def percent(share: float) -> str:
    """Write a share of one as a percentage."""
    return f"{100 * share:.1f} %"


def _figures(metrics: dict[str, Any]) -> dict[str, str]:
    keys = ("accuracy", "macro_f1", "loss", "bits_per_character", "perplexity", "frechet_distance", "coverage")
    return {
        key: percent(metrics[key]) if key == "accuracy" else f"{metrics[key]:.4f}" for key in keys if key in metrics
    }


def _first(figures: dict[str, str]) -> str:
    return next((f"{key.replace('_', ' ')} {value}" for key, value in figures.items()), "")


def _shortened(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f", … ({len(names)} in all)" if len(names) > most else "")
