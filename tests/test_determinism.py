"""Equal commands give equal runs, wherever they run and in whatever order the files of the data were created."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import toy_texts, write_images, write_texts
from dltoolkit.recipes import image_classifier, sentiment_analyzer

import dltoolkit

IMAGES_PER_CLASS = 20
TRAIN = ["train", "image-classifier", "--data", "toys", "--model", "cnn", "--widths", "8", "--widths", "8"]
OPTIONS = ["--epochs", "2", "--batch-size", "8", "--precision", "float32", "--name", "run"]
FLOAT_ERROR = 1e-3  # tolerance after 12 steps in another order of summation; see docs/run_directory.md


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Make two folders with equal images and texts, whose files were created in opposite orders."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two") / "deeper"
    write_images(one / "toys", IMAGES_PER_CLASS, side=12)
    write_texts(one / "texts", toy_texts(40))
    for path in sorted((path for path in one.rglob("*.*")), reverse=True):
        (two / path.relative_to(one)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, two / path.relative_to(one))
    return one, two


@pytest.mark.parametrize(("recipe", "data"), [(image_classifier, "toys"), (sentiment_analyzer, "texts")])
def test_splits_do_not_depend_on_the_place_and_the_order_of_files(places, recipe, data):
    one, two = (recipe.build_data(recipe.Config(data=str(place / data))) for place in places)
    assert one.fingerprint == two.fingerprint
    assert one.relative_names() == two.relative_names()
    for name in ("labels", "train", "validation", "test"):
        assert getattr(one, name).tolist() == getattr(two, name).tolist(), name


def train(place: Path, *, cores: int | None = None) -> dltoolkit.Run:
    """Run the command in a folder, on this number of cores, and return its run."""
    out_dir = place / f"runs-{cores}"
    limit = cores and (lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores]))
    command = [sys.executable, "-m", "dltoolkit", *TRAIN, *OPTIONS, "--out-dir", str(out_dir)]
    done = subprocess.run(command, cwd=place, preexec_fn=limit, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dltoolkit.load(out_dir / "image-classifier" / "run")


@pytest.mark.slow
def test_training_depends_on_neither_the_place_nor_the_process(places):
    one, two = (train(place) for place in places)
    pairs = zip(one.model.get_weights(), two.model.get_weights(), strict=True)
    assert all((a == b).all() for a, b in pairs)
    texts = [(run.path / "metrics.json").read_text() for run in (one, two)]
    assert json.loads(texts[0]) == json.loads(texts[1])
    if hasattr(os, "sched_setaffinity"):
        slower = train(places[0], cores=1)
        for a, b in zip(one.model.get_weights(), slower.model.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, atol=FLOAT_ERROR)
        losses = [run.metrics["test"]["loss"] for run in (one, slower)]
        assert losses[0] == pytest.approx(losses[1], abs=FLOAT_ERROR)
