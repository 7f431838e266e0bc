"""Images that are not square: what cropping, letterboxing and stretching keep, and what is said about it."""

from pathlib import Path

import numpy as np
import pytest
from conftest import CLASSES, save_image, toy_image
from image_loading import load

from dltoolkit import memory
from dltoolkit.data.image import dataset
from dltoolkit.data.image.preprocessing import Preprocessing
from dltoolkit.data.options import ImageReadOptions
from dltoolkit.errors import UserError

pytestmark = pytest.mark.usefixtures("isolated_cache")


def wide_image(number: int) -> np.ndarray:
    """Return a dark image of 160x40 with a bright square at its left end."""
    image = np.full((40, 160, 3), 10 + number, np.uint8)
    image[4:36, :32] = 250
    return image


@pytest.fixture
def wide_folder(tmp_path) -> Path:
    for number in range(12):
        save_image(tmp_path / "wide" / CLASSES[number % 2] / f"{number}.png", wide_image(number))
    return tmp_path / "wide"


def test_load_letterboxes_images_that_cropping_would_cut(wide_folder):
    data = load(wide_folder)
    assert data.image_shape == (80, 80, 3)  # a square with as many pixels
    assert data.describe()["resize"] == {"mode": "letterbox", "pixels_used": 1.0}
    assert ("Images", "160x40, brought to 80x80 by letterbox; 100 % of the pixels used, color") in data.summary()
    first = data.images[0]
    assert (first[:30] == 0).all()  # black bars
    assert (first[50:] == 0).all()
    assert (first[34:46, 2:14] > 240).all()  # the square


@pytest.mark.parametrize(
    ("resize", "shape", "pixels_used", "bright"),
    [("crop", (40, 40, 3), 0.25, 0.0), ("stretch", (80, 80, 3), 1.0, 0.16), ("letterbox", (80, 80, 3), 1.0, 0.04)],
)
def test_load_resizes_as_requested(wide_folder, resize, shape, pixels_used, bright):
    data = load(wide_folder, ImageReadOptions(resize=resize))
    assert data.image_shape == shape
    assert data.describe()["resize"] == {"mode": resize, "pixels_used": pixels_used}
    assert (data.images > 200).mean() == pytest.approx(bright, abs=0.02)
    lost = any("lose more than half of their pixels by cropping" in warning for warning in data.warnings)
    assert lost is (resize == "crop")


def test_load_crops_images_that_lose_less_than_a_fifth(tmp_path):
    for number in range(12):
        pixels = toy_image(number % 2, number, side=20)
        save_image(tmp_path / CLASSES[number % 2] / f"{number}.png", pixels[:17])
    data = load(tmp_path)
    assert data.describe()["resize"] == {"mode": "crop", "pixels_used": 0.85}
    assert data.image_shape == (16, 16, 3)
    assert data.warnings == []


def test_load_says_which_images_show_little_after_resizing(make_folder):
    folder = make_folder(side=32)
    save_image(folder / CLASSES[0] / "dot.png", np.full((1, 1, 3), 9, np.uint8))
    save_image(folder / CLASSES[1] / "strip.png", np.random.default_rng(0).integers(0, 255, (3, 900, 3), np.uint8))
    save_image(folder / CLASSES[2] / "photo.jpg", np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8))
    data = load(folder)
    assert data.image_shape == (32, 32, 3)
    text = "\n".join(data.warnings)
    assert f"2 images are too small to show much and are enlarged to 32x32, such as {folder}/bars/dot.png (1x1)" in text
    assert f"1 image loses more than half of its pixels by cropping: {folder}/dots/strip.png (900x3)" in text
    assert f"1 image is reduced to 32x32, because most images are small: {folder}/plain/photo.jpg (400x300)" in text
    stretched = load(folder, ImageReadOptions(resize="stretch"))
    assert any("1 image is a strip, which stretch brings to 32x32" in warning for warning in stretched.warnings)
    assert dict(data.summary())["Images"].startswith("1x1 to 400x300, brought to 32x32 by crop; 96 % of the pixels")


def test_load_says_nothing_about_ordinary_images(make_folder):
    data = load(make_folder(side=20))
    assert data.warnings == []
    assert dict(data.summary())["Images"] == "20x20, color"


def test_read_and_labeled_resize_as_in_training(wide_folder):
    for mode in ("crop", "letterbox", "stretch"):
        data = load(wide_folder, ImageReadOptions(resize=mode))
        warnings = []
        images, _, names = dataset.labeled(str(wide_folder), CLASSES, data.preprocessing, warn=warnings.append)
        assert (images == data.images).all()
        remarks = []
        assert (dataset.read(names[0], data.preprocessing, warn=remarks.append) == data.images[0]).all()
        expected = ["is 160x40: cropping, as in training, leaves only 25 % of it"] if mode == "crop" else []
        assert remarks == expected
        assert [warning for warning in warnings if "cropping" in warning] == warnings[: len(expected)]


@pytest.mark.parametrize(
    ("resize", "size", "box", "original"),
    [
        ("crop", (160, 40), (0, 0, 8, 8), (60, 0, 100, 40)),
        ("crop", (40, 160), (2, 4, 8, 6), (10, 80, 40, 90)),
        ("stretch", (160, 40), (2, 4, 8, 6), (40, 20, 160, 30)),
        ("letterbox", (160, 40), (2, 3, 8, 5), (40, 0, 160, 40)),
        ("letterbox", (160, 40), (0, 0, 8, 3), None),  # in the bar at the top
        ("letterbox", (8, 8), (1, 2, 3, 4), (1, 2, 3, 4)),
        ("crop", (3, 3), (1, 1, 2, 2), (0, 0, 1, 1)),
    ],
)
def test_boxes_lead_back_to_the_pixels_of_the_image(resize, size, box, original):
    assert Preprocessing((8, 8, 3), resize).original_box(box, size) == original


def test_cached_images_keep_what_is_known_of_them(wide_folder, monkeypatch):
    monkeypatch.setattr(memory, "limit", lambda: 1000)
    read = ImageReadOptions(resize="crop")
    first, second = load(wide_folder, read), load(wide_folder, read)
    assert isinstance(second.images, np.memmap)
    assert second.describe() == first.describe()
    assert second.warnings == first.warnings
    assert load(wide_folder).image_shape == (80, 80, 3)  # another mode is not read from the same cache


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"image_shape": [8, 8]},
        {"image_shape": [8, 8, 2]},
        {"image_shape": [8, 10**9, 3]},
        {"image_shape": [8, 8, 3], "resize": {"mode": "tile"}},
        {"image_shape": [8, 8, 3], "resize": "crop"},
    ],
)
def test_from_dict_refuses_a_damaged_preprocessing(data):
    with pytest.raises(UserError, match="train a new run"):
        Preprocessing.from_dict(data)
