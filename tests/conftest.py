"""Tiny real files for the tests: separable toy pictures as PNG folders, tables and arrays."""

import csv
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CLASSES = ("bars", "dots", "plain")


def toy_picture(label: int, number: int, *, side: int = 16, channels: int = 3) -> np.ndarray:
    """Return picture ``number`` of a class, uint8 (side, side, channels): bars, dots or plain, each with its noise.

    The classes are told apart by texture and brightness; no two pictures are equal.
    """
    rows, columns = np.mgrid[:side, :side]
    pattern = (rows % 4 < 2, (rows % 4 < 2) & (columns % 4 < 2), np.zeros((side, side), bool))[label % 3]
    tint = np.array([230, 120 + 40 * (label // 3), 60])[:channels]
    noise = np.random.default_rng(1000 * label + number).integers(0, 30, (side, side, channels))
    return (pattern[..., None] * tint // 2 + 40 * (label + 1) + noise).clip(0, 255).astype(np.uint8)


def toy_pictures(per_class: int = 10, *, side: int = 16, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 (3 * per_class, side, side, channels) and int labels, class after class."""
    labels = np.repeat(np.arange(len(CLASSES)), per_class)
    pictures = [toy_picture(label, i % per_class, side=side, channels=channels) for i, label in enumerate(labels)]
    return np.stack(pictures), labels


def save_picture(path: Path, pixels: np.ndarray, **options) -> Path:
    """Write uint8 (h, w, 1) or (h, w, 3) as a picture file and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path, **options)
    return path


def write_pictures(folder: Path, per_class: int, *, side: int) -> Path:
    """Write a folder of class folders with so many colour pictures each, and return it."""
    for label, name in enumerate(CLASSES):
        for number in range(per_class):
            save_picture(folder / name / f"{number}.png", toy_picture(label, number, side=side))
    return folder


@pytest.fixture(autouse=True)
def usual_number_format() -> None:
    """What a run before set, such as bfloat16 on a processor that has it, is not the next test's."""
    if "keras" in sys.modules:
        sys.modules["keras"].config.set_dtype_policy("float32")


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes a folder of class folders with PNG pictures, no two of a test equal."""
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
                pixels = toy_picture(label, made["next"], side=side, channels=channels)
                save_picture(tmp_path / name / folder / f"{i:03d}.png", pixels)
                made["next"] += 1
        return tmp_path / name

    return make


@pytest.fixture
def picture_folder(make_folder: Callable[..., Path]) -> Path:
    """Three class folders of ten 16x16 colour PNGs."""
    return make_folder()


@pytest.fixture
def picture_table(make_folder: Callable[..., Path]) -> Path:
    """A CSV with the columns file and label, its pictures in a folder beside it."""
    folder = make_folder("table/pictures")
    path = folder.parent / "labels.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label"])
        for picture in sorted(folder.rglob("*.png")):
            writer.writerow([picture.relative_to(folder.parent), picture.parent.name])
    return path


@pytest.fixture
def picture_npz(tmp_path: Path) -> Path:
    """An .npz with x_train, y_train, x_test, y_test: grey 8x8 pictures, whole-number labels."""
    images, labels = toy_pictures(12, side=8, channels=1)
    test = np.arange(len(labels)) % 4 == 0
    path = tmp_path / "toys.npz"
    np.savez(path, x_train=images[~test], y_train=labels[~test], x_test=images[test], y_test=labels[test])
    return path


GOOD = ["lovely", "superb", "delightful", "charming", "brilliant", "graceful", "warm", "witty"]
BAD = ["dreadful", "tedious", "clumsy", "shabby", "dismal", "bland", "rude", "broken"]
NEUTRAL = ["the", "film", "hotel", "soup", "story", "room", "waiter", "plot", "ending", "price", "chair", "day", "town"]


def toy_texts(count: int, *, classes: Sequence[str] = ("bad", "good"), seed: int = 0) -> list[tuple[str, str]]:
    """Return (label, text) of ``count`` different short texts, class by class in turn; their words tell the class."""
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
    """Write texts as class folders of .txt files."""
    for i, (label, text) in enumerate(texts):
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / f"{i:03d}.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def text_table(tmp_path: Path) -> Path:
    """A CSV of sixty texts with the columns text and label."""
    path = tmp_path / "reviews.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("label", "text"), *toy_texts(60)])
    return path


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep decoded pictures away from the real cache folder."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "dltoolkit"


@pytest.fixture
def ordinary_user(tmp_path: Path) -> Iterator[None]:
    """Run the test without the right to read and write everything, which root has."""
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
