"""Small datasets, small runs of all recipes, and a comparison of two runs."""

import csv
import dataclasses
import io
import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

IMAGES_PER_CLASS, TEXTS = 24, 120  # numbers of examples that train in seconds
# Files and folders of a run that depend on its speed, or that only a lock needs
IGNORED = {"checkpoint", "tensorboard", ".lock"}


@dataclasses.dataclass
class Case:
    """A small run of a recipe.

    Attributes:
        recipe: Name of the recipe.
        arguments: Arguments of `dltoolkit train`.
        next: The recipe that fine-tunes the model of this run.
        uninterrupted: Directory of the uninterrupted run.
        seconds: Processor time of the uninterrupted run.
        writes: Number of files that it wrote.
    """

    recipe: str
    arguments: list[str]
    next: str = ""
    uninterrupted: Path = Path()
    seconds: float = 0.0
    writes: int = 0


def differences(run: Path, other: Path, tolerance: float = 0.0) -> list[str]:
    """Return the differences between two runs, apart from times and checkpoints."""
    all_files = [{str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()} for path in (run, other)]
    files, other_files = ({name for name in names if not {*Path(name).parts} & IGNORED} for names in all_files)
    problems = [f"{name} is missing" for name in files - other_files]
    problems += [f"{name} is unexpected" for name in other_files - files]
    problems += ["no checkpoint"] if not any(name.startswith("checkpoint/") for name in all_files[1]) else []
    for name in sorted(files & other_files):
        if name.endswith(("report.html", "run.json")) or "plots/" in name:
            continue  # they contain times
        if not close(*(content(path / name) for path in (run, other)), tolerance):
            problems.append(f"{name} differs")
    if json.loads((other / "run.json").read_text())["state"] != "finished":
        problems.append("it is not finished")
    return problems


def close(a: object, b: object, tolerance: float) -> bool:
    """Return whether two contents are equal, with a tolerance for floats."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key], tolerance) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(close(*pair, tolerance) for pair in zip(a, b, strict=True))
    if isinstance(a, float | np.ndarray):
        return bool(np.allclose(a, b, tolerance, tolerance))
    return a == b


def content(path: Path) -> object:
    """Return the content of a file without times."""
    if path.name == "history.csv":
        return [{k: float(v) for k, v in row.items() if k != "seconds"} for row in csv.DictReader(path.open())]
    if path.name == "metrics.json":
        return json.loads(path.read_text())
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as file, h5py.File(io.BytesIO(file.read("model.weights.h5"))) as weights:
            arrays = {}

            def collect(name: str, item: h5py.Dataset | h5py.Group) -> None:
                if isinstance(item, h5py.Dataset):
                    arrays[name] = item[()]

            weights.visititems(collect)
            return arrays
    return path.read_bytes()


def small_runs(folder: Path) -> list[Case]:
    """Write small datasets to a folder, and return a small run of each recipe."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("bars", "dots", "plain")):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(IMAGES_PER_CLASS):
            pixels = rng.integers(0, 120, (12, 12, 3)) + 45 * label
            pixels[:: label + 2] += 60
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "images" / name / f"{number}.png")
    words = {"bad": ["dreadful", "tedious", "shabby"], "good": ["lovely", "superb", "warm"]}
    plain = ["the", "film", "hotel", "soup", "story", "room", "waiter", "plot", "ending", "price", "chair", "day"]
    rows = []
    for number in range(TEXTS):
        label = ("bad", "good")[number % 2]
        text = [*rng.choice(plain, rng.integers(3, 12)), rng.choice(words[label]), str(number)]
        rows.append((label, " ".join(text)))
    with (folder / "texts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("label", "text"), *rows])
    (folder / "text.txt").write_text("".join(f"{text}.\n" for _, text in rows * 3))
    images = ["--data", str(folder / "images"), "--batch-size", "8"]
    texts = ["--data", str(folder / "texts.csv"), "--batch-size", "8"]
    backbone = folder.parent / "uninterrupted" / "image-classifier" / "uninterrupted"
    return [
        Case(
            "image-classifier",
            [*images, "--model", "cnn", "--widths", "8", "--widths", "16", "--epochs", "6"],
            next="fine-tune",
        ),
        Case(
            "sentiment-analyzer",
            [*texts, "--model", "lstm", "--units", "8", "--embedding-dim", "8", "--dropout", "0.2", "--epochs", "6"],
        ),
        Case(
            "text-generator",
            [
                *(
                    "--data",
                    str(folder / "text.txt"),
                    "--layers",
                    "1",
                    "--embedding-dim",
                    "32",
                    "--context-length",
                    "16",
                ),
                *("--batch-size", "8", "--steps", "80", "--dropout", "0.1", "--sample-tokens", "20"),
            ],
        ),
        Case("image-gan", [*images, "--width", "8", "--epochs", "2"]),
        Case(
            "fine-tune",
            [*images, "--backbone", str(backbone), "--epochs", "3", "--augment-copies", "2", "--learning-curve", "4"],
        ),
    ]
