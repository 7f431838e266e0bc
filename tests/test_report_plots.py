"""The plots and image grids of a report."""

import io
import warnings

import matplotlib
import numpy as np
from PIL import Image

from dltoolkit.evaluation.classification import Mistake
from dltoolkit.report import image_grids, plots

NAMES = ["<b>bold</b>", "quo\"te & 's", "猫", "🐱🐶", "$\\frac{$", "cost: $5", "tab\t1\n"]
HISTORY = [{"epoch": epoch, "loss": 2 / epoch, "validation_loss": 2.1 / epoch, "seconds": 1.0} for epoch in (1, 2, 3)]


def gray(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"))


def test_plots_of_names_that_the_font_lacks_warn_of_nothing(capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.confusion(np.eye(len(NAMES), dtype=int), NAMES)
        plots.mistakes([Mistake(name, name, name, 0.5, np.zeros((4, 4, 1), np.uint8)) for name in NAMES], NAMES)
    assert capfd.readouterr() == ("", "")


def test_tick_label_is_short_and_replaces_characters_that_the_font_lacks():
    assert plots.tick_label("猫", 3) == "#3"
    assert plots.tick_label("wild 猫", 3) == "wild #3"
    assert plots.tick_label("猫") == "…"
    assert plots.tick_label("a  b\n") == "a b"
    assert plots.tick_label("x" * 50) == "x" * 21 + "…"


def test_curves_ignore_and_restore_the_settings_of_the_user():
    plain = plots.curves(HISTORY, 2)
    with matplotlib.rc_context({"font.size": 30, "axes.titleweight": "bold", "figure.dpi": 20}):
        assert plots.curves(HISTORY, 2) == plain
        assert matplotlib.rcParams["font.size"] == 30


def test_image_grid_shows_every_pixel_of_small_images():
    images = np.zeros((3, 8, 8, 3), np.uint8)
    images[1] = (255, 0, 0)
    images[2] = (0, 0, 255)
    grid = np.asarray(Image.open(io.BytesIO(image_grids.image_grid(images))))
    assert grid.shape == (96, 3 * 96 + 2 * 4, 4)
    assert grid[48, 48].tolist() == [0, 0, 0, 255]
    assert grid[48, 100 + 48].tolist() == [255, 0, 0, 255]
    assert grid[48, 200 + 48].tolist() == [0, 0, 255, 255]
    assert grid[48, 98, 3] == 0  # transparent between two images


def test_paired_grid_shows_each_image_next_to_its_partner():
    left, right = np.full((5, 32, 32, 1), 10, np.uint8), np.full((5, 32, 32, 1), 200, np.uint8)
    grid = np.asarray(Image.open(io.BytesIO(image_grids.paired_grid(left, right))))
    assert grid.shape == (2 * 96 + 20, 4 * (2 * 96 + 2) + 3 * 20, 4)
    assert grid[48, 48, 0] == 10
    assert grid[48, 98 + 48, 0] == 200
    assert grid[48, 2 * 96 + 2 + 10, 3] == 0  # transparent between two pairs
    assert grid[96 + 20 + 48, 48, 0] == 10  # the fifth pair, in the second row


def test_image_grid_and_thumbnail_shrink_large_images():
    large = np.full((2, 300, 200, 3), 7, np.uint8)
    assert Image.open(io.BytesIO(image_grids.image_grid(large))).height == 144
    assert Image.open(io.BytesIO(image_grids.thumbnail(large[0]))).size == (107, 160)


def test_animation_selects_evenly_spaced_frames():
    pngs = [image_grids.png(np.full((4, 6, 3), level, np.uint8)) for level in range(0, 200, 2)]
    with Image.open(io.BytesIO(image_grids.animation(pngs, max_frames=5))) as gif:
        assert gif.n_frames == 5
        assert gif.size == (6, 4)
        levels = []
        for frame in range(5):
            gif.seek(frame)
            levels.append(int(np.asarray(gif.convert("L")).mean().round()))
    assert levels[0] == 0
    assert levels[-1] == 198
    assert levels == sorted(levels)


def test_png_keeps_the_pixels():
    for channels in (1, 3, 4):
        image = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)
        pixels = np.asarray(Image.open(io.BytesIO(image_grids.png(image))))
        assert (pixels == image.squeeze()).all()


def test_display_width_is_100_pixels_per_inch():
    assert plots.display_width(plots.learning_curve([{"labels": 5, "linear": 0.5}])) == 720


def test_confusion_colors_the_cells():
    plain, normalized = (plots.confusion([[9, 1], [0, 90]], ["a", "b"], normalize=flag) for flag in (False, True))
    assert plain != normalized
    dark = gray(plain) < 80  # the cell of 90
    assert 0.05 < dark.mean() < 0.5
    assert dark[dark.shape[0] // 2 :, dark.shape[1] // 2 :].mean() > dark[: dark.shape[0] // 2].mean()
