"""Tests that training on two replicas, or on two or three workers, gives the results of one device.

One process, or one group of processes, trains all recipes that are tested on the same devices; see five_recipes.py.
By default, only a classifier with batch normalization and a text generator are trained; the slow tests train all
recipes on all devices.
"""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import filelock
import five_recipes
import numpy as np
import pytest
from conftest import toy_images, toy_texts

import dltoolkit
from dltoolkit.training.distribute import launch

SCRIPT = str(Path(five_recipes.__file__))
DEVICES = ("two", "workers-2", "workers-3")
FAST = {  # the recipes that are trained by default, by devices
    "one": ["image-classifier", "text-generator"],
    "two": ["image-classifier"],
    "workers-2": ["image-classifier", "text-generator"],
    "workers-3": [],
}
SLOW = {devices: [name for name in five_recipes.RECIPES if name not in FAST[devices]] for devices in FAST}
# Two float32 sums of the same numbers in different orders differ by about 1e-7 relatively. In 20 steps of SGD, such
# differences grow to about 1e-6 in the weights, which are of order one.
WEIGHT_TOLERANCE, METRIC_TOLERANCE = 1e-5, 2e-4


class Trainer:
    """Trains each group of recipes on each kind of devices once, even in a parallel test session.

    Args:
        folder: The folder of the data and of the runs: a folder for each kind of devices.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        with filelock.FileLock(folder / "lock"):
            if not (folder / "book.txt").exists():
                images, labels = toy_images(56, side=8, channels=1)
                np.savez(folder / "images.npz", images=images, labels=labels)
                with open(folder / "reviews.csv", "w", newline="") as file:
                    csv.writer(file).writerows([("label", "text"), *toy_texts(170)])
                (folder / "book.txt").write_text(" ".join(text for _, text in toy_texts(150, seed=3)))

    def run(self, devices: str, recipe: str) -> dltoolkit.Run:
        """Return the run of a recipe, after training its group if that has not happened."""
        group = FAST if recipe in FAST[devices] else SLOW
        if group is SLOW:
            self.run("one", "image-classifier")  # the backbone of fine-tune
        with filelock.FileLock(self.folder / "lock"):
            if not (self.folder / devices / group[devices][-1] / "run" / "report.html").exists():
                self._train(devices, group[devices])
        return dltoolkit.load(self.folder / devices / recipe / "run")

    def _train(self, devices: str, recipes: list[str]) -> None:
        workers = int(devices[-1]) if devices.startswith("workers") else 1
        addresses = [f"localhost:{port}" for port in launch.free_ports(workers)]
        environment = {**os.environ, "XDG_CACHE_HOME": str(self.folder / "cache")}
        if workers > 1:  # otherwise the threads of one worker delay the heartbeat of another
            environment |= dict.fromkeys(launch.THREAD_VARIABLES, "1")
        command = [sys.executable, SCRIPT, str(self.folder), str(self.folder / devices)]
        command += ["cpu:2" if devices == "two" else "cpu", *recipes]
        processes = []
        for index in range(workers):
            tf_config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            environment["TF_CONFIG"] = json.dumps(tf_config)
            processes.append(subprocess.Popen(command, env=dict(environment), stderr=subprocess.PIPE, text=True))
        errors = [process.communicate(timeout=600)[1] for process in processes]
        assert not any(process.returncode for process in processes), "\n".join([devices, *errors])


@pytest.fixture(scope="module")
def trainer(tmp_path_factory) -> Trainer:
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "distribution"
    folder.mkdir(exist_ok=True)
    return Trainer(folder)


def cases(recipes: tuple[str, ...] = tuple(five_recipes.RECIPES)) -> Iterator:
    """Yield pairs of a recipe and devices, marked as slow if they are not trained by default."""
    for recipe in recipes:
        for devices in DEVICES:
            marks = () if recipe in FAST[devices] else pytest.mark.slow
            yield pytest.param(recipe, devices, marks=marks, id=f"{recipe}-{devices}")


def newest_checkpoint(run: dltoolkit.Run) -> dict[str, np.ndarray]:
    with np.load(max((run.path / "checkpoint").glob("step-*.npz"))) as file:
        return {name: file[name] for name in file.files if name != "state"}


@pytest.mark.parametrize(("recipe", "devices"), cases())
def test_weights_and_metrics_equal_those_of_one_device(trainer, recipe, devices):
    one, other = trainer.run("one", recipe), trainer.run(devices, recipe)
    assert one.history[-1]["step"] == other.history[-1]["step"] == five_recipes.STEPS
    assert other.info["device"]["replicas"] == (2 if devices == "two" else int(devices[-1]))
    expected, actual = newest_checkpoint(one), newest_checkpoint(other)
    assert expected.keys() == actual.keys()
    for name in expected:
        if name.startswith(("model", "best")):
            np.testing.assert_allclose(expected[name], actual[name], atol=WEIGHT_TOLERANCE, err_msg=name)
    for row, other_row in zip(one.history, other.history, strict=True):
        for name in row.keys() - {"seconds"}:
            assert row[name] == pytest.approx(other_row[name], abs=METRIC_TOLERANCE, rel=METRIC_TOLERANCE), name
    for name, value in one.metrics["test"].items():
        if isinstance(value, float):
            assert other.metrics["test"][name] == pytest.approx(value, abs=10 * METRIC_TOLERANCE), name


@pytest.mark.parametrize(("recipe", "devices"), cases(("image-classifier", "sentiment-analyzer", "fine-tune")))
def test_predictions_equal_those_of_one_device(trainer, recipe, devices):
    images, texts = toy_images(5, side=8, channels=1)[0], [text for _, text in toy_texts(12, seed=9)]
    inputs = texts if recipe == "sentiment-analyzer" else list(images)
    one, other = trainer.run("one", recipe), trainer.run(devices, recipe)
    for expected, actual in zip(one.predict(inputs), other.predict(inputs), strict=True):
        assert actual.probability == pytest.approx(expected.probability, abs=METRIC_TOLERANCE)


@pytest.mark.parametrize(("recipe", "devices"), cases(("text-generator",)))
def test_generated_text_equals_that_of_one_device(trainer, recipe, devices):
    options = {"max_tokens": 20, "temperature": 0}
    one, other = trainer.run("one", recipe), trainer.run(devices, recipe)
    assert one.generate("the ", **options) == other.generate("the ", **options)


@pytest.mark.parametrize(("recipe", "devices"), cases(("image-gan",)))
def test_generated_images_equal_those_of_one_device(trainer, recipe, devices):
    images = [trainer.run(each, recipe).generate(count=4).astype(int) for each in ("one", devices)]
    assert np.abs(images[0] - images[1]).max() <= 1, "one gray level, by rounding"


@pytest.mark.parametrize(("recipe", "devices"), cases(("image-classifier",)))
def test_evaluate_equals_the_metrics_of_training(trainer, recipe, devices):
    run = trainer.run(devices, recipe)
    assert run.evaluate()["loss"] == pytest.approx(run.metrics["test"]["loss"], abs=1e-5)


@pytest.mark.parametrize(("recipe", "devices"), cases())
def test_only_the_chief_writes_files(trainer, recipe, devices):
    assert files(trainer.run(devices, recipe)) == files(trainer.run("one", recipe))


def files(run: dltoolkit.Run) -> set[Path]:
    """Return the files of a recipe's runs, except checkpoints, whose number depends on the time."""
    folder = run.path.parent
    return {path.relative_to(folder) for path in folder.rglob("*") if path.parent.name != "checkpoint"}
