"""Small real files for the tests: separable toy images and texts as folders, tables and arrays."""

import contextlib
import csv
import os
import socket
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dltoolkit import cli

CLASSES = ("bars", "dots", "plain")


def run_command(capfd, *words: str) -> tuple[int, str, str]:
    """Run the command line in this process; return its exit code, stdout and stderr."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    out, err = capfd.readouterr()
    return stop.value.code, out, err


@contextlib.contextmanager
def silence(capfd: pytest.CaptureFixture) -> Iterator[None]:
    """Assert that the block warns of nothing and prints nothing but the line that says what is evaluated."""
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield
    out, err = capfd.readouterr()
    assert out == ""
    assert [line for line in err.splitlines() if not line.startswith("Evaluating ")] == []


def same_metrics(actual: Any, expected: Any) -> bool:
    """Return whether two metrics are equal, with floats equal to 1e-5, which the instructions of a processor decide."""
    if isinstance(expected, dict):
        return actual.keys() == expected.keys() and all(same_metrics(actual[name], expected[name]) for name in expected)
    return actual == (pytest.approx(expected, rel=1e-5, abs=1e-6) if isinstance(expected, float) else expected)


def toy_image(label: int, number: int, *, side: int = 16, channels: int = 3) -> np.ndarray:
    """Return image ``number`` of a class, uint8 (side, side, channels): bars, dots or plain, with random noise.

    The classes differ in texture and brightness. No two images are equal.
    """
    rows, columns = np.mgrid[:side, :side]
    pattern = (rows % 4 < 2, (rows % 4 < 2) & (columns % 4 < 2), np.zeros((side, side), bool))[label % 3]
    tint = np.array([230, 120 + 40 * (label // 3), 60])[:channels]
    noise = np.random.default_rng(1000 * label + number).integers(0, 30, (side, side, channels))
    return (pattern[..., None] * tint // 2 + 40 * (label + 1) + noise).clip(0, 255).astype(np.uint8)


def toy_images(per_class: int = 10, *, side: int = 16, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 (3 * per_class, side, side, channels) and int labels, class after class."""
    labels = np.repeat(np.arange(len(CLASSES)), per_class)
    images = [toy_image(label, i % per_class, side=side, channels=channels) for i, label in enumerate(labels)]
    return np.stack(images), labels


def save_image(path: Path, pixels: np.ndarray, **options) -> Path:
    """Write uint8 (h, w, 1) or (h, w, 3) as an image file and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path, **options)
    return path


def make_special(path: Path, kind: str) -> Path:
    """Make a pipe, a socket, or a link to a device."""
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as server:
            folder = os.open(path.parent, os.O_RDONLY)
            server.bind(f"/proc/self/fd/{folder}/{path.name}")  # the name of a socket has at most 107 bytes
            os.close(folder)
    else:
        path.symlink_to("/dev/zero")
    return path


def write_images(folder: Path, per_class: int, *, side: int) -> Path:
    """Write a folder with ``per_class`` color images in each class folder, and return it."""
    for label, name in enumerate(CLASSES):
        for number in range(per_class):
            save_image(folder / name / f"{number}.png", toy_image(label, number, side=side))
    return folder


@pytest.fixture(autouse=True)
def reset_dtype_policy() -> None:
    """Reset the dtype policy, so that the precision of one test does not affect the next."""
    if "keras" in sys.modules:
        sys.modules["keras"].config.set_dtype_policy("float32")


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes a folder of class folders with PNG images, all different within a test."""
    made = {"next": 0}

    def make(
        name: str = "toys",
        per_class: int | Sequence[int] = 10,
        *,
        classes: Sequence[str] = CLASSES,
        side: int = 16,
        channels: int = 3,
    ) -> Path:
        counts = [per_class] * len(classes) if isinstance(per_class, int) else per_class
        for label, (folder, count) in enumerate(zip(classes, counts, strict=True)):
            (tmp_path / name / folder).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = toy_image(label, made["next"], side=side, channels=channels)
                save_image(tmp_path / name / folder / f"{i:03d}.png", pixels)
                made["next"] += 1
        return tmp_path / name

    return make


@pytest.fixture
def image_folder(make_folder: Callable[..., Path]) -> Path:
    """Make three class folders of ten 16x16 color PNG files."""
    return make_folder()


@pytest.fixture
def image_table(make_folder: Callable[..., Path]) -> Path:
    """Make a CSV file with the columns file and label, and its images in a folder next to it."""
    folder = make_folder("table/images")
    path = folder.parent / "labels.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label"])
        for image in sorted(folder.rglob("*.png")):
            writer.writerow([image.relative_to(folder.parent), image.parent.name])
    return path


@pytest.fixture
def image_npz(tmp_path: Path) -> Path:
    """Make an .npz file with x_train, y_train, x_test, y_test: grayscale 8x8 images and integer labels."""
    images, labels = toy_images(12, side=8, channels=1)
    test = np.arange(len(labels)) % 4 == 0
    path = tmp_path / "toys.npz"
    np.savez(path, x_train=images[~test], y_train=labels[~test], x_test=images[test], y_test=labels[test])
    return path


GOOD = ["lovely", "superb", "delightful", "charming", "brilliant", "graceful", "warm", "witty"]
BAD = ["dreadful", "tedious", "clumsy", "shabby", "dismal", "bland", "rude", "broken"]
NEUTRAL = ["the", "film", "hotel", "soup", "story", "room", "waiter", "plot", "ending", "price", "chair", "day", "town"]


def toy_texts(count: int, *, classes: Sequence[str] = ("bad", "good"), seed: int = 0) -> list[tuple[str, str]]:
    """Return (label, text) pairs of ``count`` different short texts; one word of each text depends on its class."""
    rng = np.random.default_rng(seed)
    words = {name: (BAD, GOOD, NEUTRAL)[i] for i, name in enumerate(classes)}
    texts = []
    for i in range(count):
        label = classes[i % len(classes)]
        plain = rng.choice(NEUTRAL, rng.integers(3, 14)).tolist()
        plain.insert(int(rng.integers(len(plain))), str(rng.choice(words[label])))
        texts.append((label, f"{' '.join(plain)} {i}."))
    return texts


def write_texts(folder: Path, texts: Sequence[tuple[str, str]]) -> Path:
    """Write texts as class folders of .txt files and return the folder."""
    for i, (label, text) in enumerate(texts):
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / f"{i:03d}.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def text_table(tmp_path: Path) -> Path:
    """Make a CSV file of sixty texts with the columns label and text."""
    path = tmp_path / "reviews.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("label", "text"), *toy_texts(60)])
    return path


@pytest.fixture(scope="session")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make two class folders of images with one informative patch each."""
    import toy_explanations

    return toy_explanations.write_images(tmp_path_factory.mktemp("patches") / "patches", 40)


@pytest.fixture(scope="session")
def patches_run(patches: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Make a finished run of image-classifier whose network looks for the patches; tests that change it copy it."""
    import toy_explanations

    model = toy_explanations.matched_network()
    return toy_explanations.finished_run(patches, tmp_path_factory.mktemp("runs"), model)


@pytest.fixture
def isolated_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use a temporary cache folder instead of the real one."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "dltoolkit"


@pytest.fixture
def unprivileged_user(tmp_path: Path) -> Iterator[None]:
    """Run the test as a user who cannot read and write every file, if it was started by root."""
    if os.geteuid():
        yield
        return
    nobody, closed = 65534, [folder for folder in (tmp_path, *tmp_path.parents) if not folder.stat().st_mode & 1]
    for folder in closed:
        folder.chmod(0o711)
    os.seteuid(nobody)
    yield
    os.seteuid(0)
    for folder in closed:
        folder.chmod(0o700)
