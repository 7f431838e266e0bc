"""The same training on one device, on two logical CPUs, and by two and three workers: the same weights and answers.

One process, or one group of them, trains all five recipes; see five_recipes.py.
"""

import csv
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import five_recipes
import numpy as np
import pytest
from conftest import toy_images, toy_texts

import dltoolkit
from dltoolkit.training.distribute import launch

RECIPES = ("image-classifier", "sentiment-analyzer", "text-generator", "fine-tune", "image-gan")
WAYS = ("two", "workers-2", "workers-3")
SCRIPT = str(Path(__file__).parent / "five_recipes.py")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with the runs of all ways, in folders of their names; one for all processes of a parallel test run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "ways"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            train_all(folder)
            (folder / "done").touch()
    return folder


def train_all(folder: Path) -> None:
    images, labels = toy_images(56, side=8, channels=1)
    np.savez(folder / "pictures.npz", images=images, labels=labels)
    with open(folder / "reviews.csv", "w", newline="") as file:
        csv.writer(file).writerows([("label", "text"), *toy_texts(170)])
    (folder / "book.txt").write_text(" ".join(text for _, text in toy_texts(150, seed=3)))
    alone = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    sharing = {**alone, **dict.fromkeys(launch.THREADS, "1")}  # or they take each other's time to say that they live
    for way in ("one", *WAYS):
        count = int(way[-1]) if way.startswith("workers") else 1
        device = "cpu:2" if way == "two" else "cpu"
        addresses = [f"localhost:{port}" for port in launch.free_ports(count)]
        processes = []
        for index in range(count):
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            words = [sys.executable, SCRIPT, str(folder), str(folder / way), device]
            processes.append(
                subprocess.Popen(
                    words,
                    env={**(sharing if count > 1 else alone), "TF_CONFIG": json.dumps(task)},
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        said = [process.communicate(timeout=600)[1] for process in processes]
        assert not any(process.returncode for process in processes), "\n".join([way, *said])


def run_of(trained: Path, way: str, recipe: str) -> dltoolkit.Run:
    return dltoolkit.load(trained / way / recipe / "run")


def newest_checkpoint(run: dltoolkit.Run) -> dict[str, np.ndarray]:
    with np.load(max((run.path / "checkpoint").glob("step-*.npz"))) as file:
        return {name: file[name] for name in file.files if name != "state"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_weights_and_metrics_are_those_of_one_device(trained, recipe, way):
    one, other = (run_of(trained, each, recipe) for each in ("one", way))
    assert one.history[-1]["step"] == other.history[-1]["step"] == five_recipes.STEPS
    assert other.info["device"]["replicas"] == int(way[-1]) if way != "two" else 2
    ours, theirs = newest_checkpoint(one), newest_checkpoint(other)
    assert ours.keys() == theirs.keys()
    for name in ours:
        if name.startswith(("model", "best")):
            np.testing.assert_allclose(ours[name], theirs[name], atol=1e-5, err_msg=name)
    for row, same in zip(one.history, other.history, strict=True):
        for name in row.keys() - {"seconds"}:
            assert row[name] == pytest.approx(same[name], abs=1e-4, rel=1e-4), name
    for name, value in one.metrics["test"].items():
        if isinstance(value, float):
            assert other.metrics["test"][name] == pytest.approx(value, abs=1e-3), name


@pytest.mark.parametrize("recipe", ["image-classifier", "sentiment-analyzer", "fine-tune"])
def test_answers_are_those_of_one_device(trained, recipe):
    pictures, texts = toy_images(5, side=8, channels=1)[0], [text for _, text in toy_texts(12, seed=9)]
    inputs = texts if recipe == "sentiment-analyzer" else list(pictures)
    expected = run_of(trained, "one", recipe).predict(inputs)
    for way in WAYS:
        for answer, given in zip(expected, run_of(trained, way, recipe).predict(inputs), strict=True):
            assert given.label == answer.label
            assert given.probability == pytest.approx(answer.probability, abs=1e-4)


def test_what_is_written_and_drawn_is_that_of_one_device(trained):
    ones = [run_of(trained, "one", recipe) for recipe in ("text-generator", "image-gan")]
    for way in WAYS:
        writer, artist = (run_of(trained, way, run.path.parent.name) for run in ones)
        assert writer.generate("the ", max_tokens=20, temperature=0) == ones[0].generate(
            "the ", max_tokens=20, temperature=0
        )
        apart = np.abs(artist.generate(count=4).astype(int) - ones[1].generate(count=4))
        assert apart.max() <= 1


def test_evaluate_gives_what_training_wrote_down(trained):
    for way in WAYS:
        run = run_of(trained, way, "image-classifier")
        assert run.evaluate()["loss"] == pytest.approx(run.metrics["test"]["loss"], abs=1e-6)


def test_only_the_chief_writes(trained):
    for recipe in RECIPES:
        files = {way: written(trained / way / recipe) for way in ("one", *WAYS)}
        assert all(files[way] == files["one"] for way in WAYS), recipe


def written(folder: Path) -> set[Path]:
    """The files of a recipe's runs, but for the checkpoints, of which the clock decides how many there are."""
    return {path.relative_to(folder) for path in folder.rglob("*") if path.parent.name != "checkpoint"}
