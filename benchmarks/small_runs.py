"""Small data, a small run of each recipe, and what is the same in two runs."""

import csv
import dataclasses
import io
import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

PICTURES, TEXTS = 24, 120  # of each of three classes, and in all
UNLIKE = {"checkpoint", "tensorboard"}  # folders in runs that depend on how fast they were


@dataclasses.dataclass
class Case:
    """A small run of a recipe.

    Attributes:
        words: what `dltoolkit train` is told.
        next: the recipe that goes on from its run.
        whole: the directory of the run that nothing happens to.
        seconds: of processor time that it took.
        writes: how many files it wrote.
    """

    recipe: str
    words: list[str]
    next: str = ""
    whole: Path = Path()
    seconds: float = 0.0
    writes: int = 0


def differences(whole: Path, other: Path, tolerance: float = 0.0) -> list[str]:
    """What is not the same in two runs but times and checkpoints."""
    files, others = ({str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()} for run in (whole, other))
    ours, theirs = ({name for name in names if not {*Path(name).parts} & UNLIKE} for names in (files, others))
    found = [f"{name} is missing" for name in ours - theirs] + [f"{name} is left over" for name in theirs - ours]
    found += ["no checkpoint"] if not any(name.startswith("checkpoint/") for name in others) else []
    for name in sorted(ours & theirs):
        if name.endswith(("report.html", "run.json")) or "plots/" in name:
            continue  # they say how long it took
        if not same(*(content(run / name) for run in (whole, other)), tolerance):
            found.append(f"{name} differs")
    if json.loads((other / "run.json").read_text())["state"] != "finished":
        found.append("it is not finished")
    return found


def same(one: object, two: object, tolerance: float) -> bool:
    """Whether two contents are equal, or their numbers nearly so."""
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key], tolerance) for key in one)
    if isinstance(one, list):
        return len(one) == len(two) and all(same(a, b, tolerance) for a, b in zip(one, two, strict=True))
    if isinstance(one, float | np.ndarray):
        return bool(np.allclose(one, two, tolerance, tolerance))
    return one == two


def content(path: Path) -> object:
    """What a file says, without times."""
    if path.name == "history.csv":
        return [{k: float(v) for k, v in row.items() if k != "seconds"} for row in csv.DictReader(path.open())]
    if path.name == "metrics.json":
        return json.loads(path.read_text())
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as file, h5py.File(io.BytesIO(file.read("model.weights.h5"))) as weights:
            arrays = {}

            def keep(name: str, item: h5py.Dataset | h5py.Group) -> None:
                if isinstance(item, h5py.Dataset):
                    arrays[name] = item[()]

            weights.visititems(keep)
            return arrays
    return path.read_bytes()


def small_runs(folder: Path) -> list[Case]:
    """Write small data, and return a small run of each recipe."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("bars", "dots", "plain")):
        (folder / "pictures" / name).mkdir(parents=True)
        for number in range(PICTURES):
            pixels = rng.integers(0, 120, (12, 12, 3)) + 45 * label
            pixels[:: label + 2] += 60
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "pictures" / name / f"{number}.png")
    words = {"bad": ["dreadful", "tedious", "shabby"], "good": ["lovely", "superb", "warm"]}
    plain = ["the", "film", "hotel", "soup", "story", "room", "waiter", "plot", "ending", "price", "chair", "day"]
    rows = []
    for number in range(TEXTS):
        label = ("bad", "good")[number % 2]
        said = [*rng.choice(plain, rng.integers(3, 12)), rng.choice(words[label]), str(number)]
        rows.append((label, " ".join(said)))
    with (folder / "texts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("label", "text"), *rows])
    (folder / "text.txt").write_text("".join(f"{text}.\n" for _, text in rows * 3))
    pictures = ["--data", str(folder / "pictures"), "--batch-size", "8"]
    texts = ["--data", str(folder / "texts.csv"), "--batch-size", "8"]
    backbone = folder.parent / "whole" / "image-classifier" / "whole"
    return [
        Case(
            "image-classifier",
            [*pictures, "--model", "cnn", "--widths", "8", "--widths", "16", "--epochs", "6"],
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
        Case("image-gan", [*pictures, "--width", "8", "--epochs", "2"]),
        Case(
            "fine-tune",
            [*pictures, "--backbone", str(backbone), "--epochs", "3", "--augment-copies", "2", "--learning-curve", "4"],
        ),
    ]
