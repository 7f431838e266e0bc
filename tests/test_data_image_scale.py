"""One scale for the values of a whole data set, whatever stores them, in training and afterwards."""

import json

import numpy as np
import pytest
from conftest import CLASSES, save_image, toy_image
from deep_images import png_16, save_values
from image_loading import error_of, load

from dltoolkit.data.image import dataset
from dltoolkit.data.image.preprocessing import Preprocessing
from dltoolkit.data.image.scale import NOT_FINITE, Scale, ValueStatistics
from dltoolkit.data.options import ImageReadOptions

pytestmark = pytest.mark.usefixtures("isolated_cache")
PER_CLASS = 6


def counts() -> np.ndarray:
    """Return 18 images (n, 12, 12) of 12 bits, class after class; the whole range is used, but not by every image."""
    rng = np.random.default_rng(0)
    levels = np.repeat([200, 1500, 3000], PER_CLASS)[:, None, None]  # dark, medium and bright images
    images = levels + rng.integers(0, 1000, (3 * PER_CLASS, 12, 12))
    images[0, 0, 0], images[-1, 0, 0] = 0, 4095
    return images


def write(folder, images: np.ndarray, suffix: str):
    for number, values in enumerate(images):
        save_values(folder / CLASSES[number // PER_CLASS] / f"{number:02d}{suffix}", values)
    return folder


def store(tmp_path, form: str):
    """Write the images in a form, and return the value of --data."""
    values, labels = counts(), np.repeat(CLASSES, PER_CLASS)
    if form.startswith("npz-"):
        np.savez(tmp_path / "a.npz", x=values.astype(form.removeprefix("npz-")), y=labels)
        return tmp_path / "a.npz"
    suffix, dtype = {
        "png": (".png", np.uint16),
        "tiff": (".tif", np.uint16),
        "int32-tiff": (".tif", np.int32),
        "float-tiff": (".tif", np.float32),
    }[form]
    return write(tmp_path / "files", values.astype(dtype), suffix)


@pytest.mark.parametrize("form", ["png", "tiff", "int32-tiff", "float-tiff", "npz-uint16", "npz-int64", "npz-float32"])
def test_load_scales_12_bits_alike_in_all_forms(tmp_path, form):
    data = load(store(tmp_path, form))
    assert data.preprocessing.scale == Scale(0, 4095, 0, 4095)
    assert (data.images[..., 0] == np.round(counts() / 4095 * 255)).all()
    assert data.describe()["scale"] == {
        "low": 0,
        "high": 4095,
        "minimum": 0,
        "maximum": 4095,
        "mixed": False,
        "levels": 61,
    }
    assert ("Values", "0 to 4095; 0 becomes black and 4095 white") in data.summary()


def test_load_scales_color_of_16_bits(tmp_path):
    color = np.stack([counts(), 4095 - counts(), counts() // 2], axis=-1).astype(np.uint16)
    for number, values in enumerate(color):
        path = tmp_path / CLASSES[number // PER_CLASS] / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png_16(values))
    data = load(tmp_path)
    assert data.image_shape == (12, 12, 3)
    assert (data.images == np.round(color / 4095 * 255)).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1], (0, 1)),
        ([0.0, 1.005], (0, 1)),  # a few values above 1, as after resizing
        ([0.0, 1.4], (0, 1.4)),
        ([1.05, 1.45], (1.05, 1.45)),
        ([-1.0, 0.9], (-1, 1)),
        ([0, 200], (0, 255)),
        ([3, 700], (0, 1023)),
        ([0, 20000], (0, 65535)),
        ([0, 16], (0, 16)),  # 17 levels, as in the digits of scikit-learn: few of the usual range
        ([1940, 2060], (1940, 2060)),  # faint structures on a high offset
        ([-1000.5, 3000], (-1000.5, 3000)),
        ([0, 1e6], (0, 1e6)),
        ([7, 7], (0, 7)),
    ],
)
def test_scale_is_the_usual_range_that_the_values_fill(values, expected):
    statistics = ValueStatistics(1)
    statistics.add(0, np.linspace(values[0], values[-1], 5000).astype(np.asarray(values).dtype))
    scale = statistics.scale()
    assert (scale.low, scale.high) == expected
    assert bool(scale.warnings()) is (values in ([7, 7], [0.0, 1.005]))  # all images are black, some values are clipped
    low, high = expected
    assert scale.to_pixels(np.array([low, high])).tolist() == [0, 255]


def test_scale_distinguishes_values_on_a_very_high_offset():
    values = 10**9 + np.arange(256)
    assert Scale(1e9, 1e9 + 255, 1e9, 1e9 + 255).to_pixels(values).tolist() == list(range(256))


def test_load_clips_a_few_outliers_and_says_so(tmp_path):
    images = counts() // 20  # 0 to 204
    images[3, 5, 5] = 65535  # a hot pixel
    data = load(write(tmp_path, images.astype(np.uint16), ".png"))
    assert data.preprocessing.scale.high <= 255
    assert data.images[3].max() == 255
    assert np.median(data.images[-1]) > 100
    assert any("are clipped: all values are 0 to 65535" in warning for warning in data.warnings)


def test_load_says_that_one_image_makes_all_others_dark(tmp_path):
    images = counts()
    images[7] *= 16
    warnings = load(write(tmp_path, images.astype(np.uint16), ".png")).warnings
    expected = "Half of the images span at most 3 of the 256 levels of the scale from 0 to 65535, which models hardly"
    assert any(warning.startswith(expected) for warning in warnings)
    np.savez(tmp_path / "a.npz", x=images, y=np.repeat(CLASSES, PER_CLASS))
    assert any(warning.startswith(expected) for warning in load(tmp_path / "a.npz").warnings)


def test_load_says_that_depths_are_mixed_and_leaves_8_bits_unchanged(tmp_path):
    write(tmp_path, counts()[:17].astype(np.uint16), ".png")
    pixels = toy_image(0, 1, side=12, channels=1)
    save_image(tmp_path / CLASSES[2] / "99.png", pixels)
    data = load(tmp_path)
    assert data.preprocessing.scale.mixed
    assert (data.images[-1] == pixels).all()
    assert any("Some images have 8 bits per channel and others more" in warning for warning in data.warnings)


def test_load_reads_splits_of_different_types(tmp_path):
    images, labels = counts(), np.repeat(np.arange(3), PER_CLASS)
    wide = (images / 4095).astype(np.float32)
    np.savez(
        tmp_path / "a.npz", x_train=wide, y_train=labels, x_test=(wide * 255).round().astype(np.uint8), y_test=labels
    )
    data = load(tmp_path / "a.npz")
    assert np.abs(data.images[:18].astype(int) - data.images[18:]).max() <= 1


def test_load_refuses_splits_that_no_scale_fits(tmp_path):
    images, labels = counts().astype(np.uint16), np.repeat(np.arange(3), PER_CLASS)
    unit = images / 4095
    unit[0, 0, 0] = np.nan
    np.savez(tmp_path / "a.npz", x_train=images, y_train=labels, x_test=unit, y_test=labels)
    message = error_of(tmp_path / "a.npz")
    assert message.startswith("The test images of ")
    assert "have values up to 1 (float64), but the train images up to 4095 (uint16): store both" in message


def test_load_keeps_8_bits_and_the_old_run_files(image_folder):
    data = load(image_folder)
    assert data.describe()["scale"] == {"low": 0, "high": 255}
    assert Preprocessing.from_dict({"image_shape": [16, 16, 3]}) == data.preprocessing


def test_load_says_that_8_bit_images_are_nearly_black(tmp_path):
    images, labels = (counts() % 2).astype(np.uint8), np.repeat(CLASSES, PER_CLASS)
    np.savez(tmp_path / "a.npz", x=images, y=labels)
    assert any("All pixels are between 0 and 1 of 255" in warning for warning in load(tmp_path / "a.npz").warnings)
    np.savez(tmp_path / "b.npz", x=images > 0, y=labels)
    assert np.unique(load(tmp_path / "b.npz").images).tolist() == [0, 255]


def test_load_names_images_with_values_that_are_not_finite(tmp_path):
    images = counts().astype(np.float32)
    images[4, 2, 2] = np.nan
    folder = write(tmp_path / "files", images, ".tif")
    assert "04.tif (values that are not finite (NaN or infinity))" in error_of(folder)
    skip = ImageReadOptions(skip_invalid=True)
    assert len(load(folder, skip).images) == 17
    images[[4, 9], 0, 0] = np.nan, np.inf
    np.savez(tmp_path / "a.npz", x=images, y=np.repeat(CLASSES, PER_CLASS))
    expected = [("a[4]", NOT_FINITE), ("a[9]", NOT_FINITE)]
    message = error_of(tmp_path / "a.npz")
    assert "2 of 18 images cannot be used: a[4] (values that" in message
    assert "a[9] (values that" in message
    data = load(tmp_path / "a.npz", skip)
    assert data.findings == expected
    assert (data.images[..., 0] == np.round(np.delete(counts(), [4, 9], axis=0) / 4095 * 255)).all()
    for trained in (data.preprocessing, Preprocessing((12, 12, 1)), Preprocessing((6, 6, 1), scale=Scale(0, 9, 0, 9))):
        pixels, _, names = dataset.labeled(str(tmp_path / "a.npz"), CLASSES, trained, skip)
        assert (len(pixels), "a[4]" in names, "a[3]" in names) == (16, False, True)


def test_labeled_and_read_use_the_scale_of_training(tmp_path):
    trained = load(store(tmp_path, "npz-uint16"))
    preprocessing = Preprocessing.from_dict(json.loads(json.dumps(trained.describe())))
    assert preprocessing == trained.preprocessing
    dark = counts()[:PER_CLASS].astype(np.uint16)
    for number, values in enumerate(dark):
        save_values(tmp_path / "dark" / CLASSES[0] / f"{number}.png", values)
    images, _, names = dataset.labeled(str(tmp_path / "dark"), CLASSES, preprocessing)
    assert (images == trained.images[:PER_CLASS]).all()
    remarks = []
    for source in (names[2], dark[2], dark[2].astype(np.float32)):
        assert (dataset.read(source, preprocessing, warn=remarks.append) == trained.images[2]).all()
    assert remarks == []


def remark_of(values: np.ndarray, scale: Scale) -> str | None:
    remarks = [None]
    dataset.read(values, Preprocessing((*values.shape[:2], 1), scale=scale), warn=remarks.append)
    return remarks[-1]


def test_read_says_which_values_leave_the_scale_of_training():
    trained, square = Scale(0, 4095, 10, 4000), np.full((4, 4), 100)
    assert remark_of(square.astype(np.uint16), trained) is None
    assert "has values from 100 to 5000" in remark_of(np.where(np.eye(4) > 0, 5000, square).astype(np.uint16), trained)
    assert "has 8 bits per channel" in remark_of(square.astype(np.uint8), trained)
    assert "becomes nearly black" in remark_of(square / 255.0, trained)
    assert remark_of(square.astype(np.uint8), Scale(0, 1, 0.1, 0.9)) is None
    assert "trained on 8-bit images: 1023 is taken as white" in remark_of((10 * square).astype(np.uint16), Scale())
    assert remark_of((400 * square).astype(np.uint16), Scale()) is None
    guessed = "has values up to 1, but the model was trained on 8-bit images: 1 is taken as white"
    assert remark_of(np.eye(4), Scale()) == guessed
    for same in (np.eye(4, dtype=np.uint16), np.zeros((4, 4)), 1.0 * square, np.eye(4, dtype=bool)):
        assert remark_of(same, Scale()) is None
    assert remark_of(np.eye(4), Scale(0, 1, 0, 1)) is None


def test_labeled_warns_of_values_outside_the_scale_and_of_other_depths(tmp_path):
    folder = write(tmp_path / "files", counts().astype(np.uint16), ".png")
    warnings = []
    shape = (12, 12, 1)
    dataset.labeled(str(folder), CLASSES, Preprocessing(shape, scale=Scale(0, 1023, 0, 1023)), warn=warnings.append)
    assert len(warnings) == 1
    assert "the model was trained on values from 0 to 1023" in warnings[0]
    assert "(18 images have such remarks)" in warnings[0]
    images, *_ = dataset.labeled(str(folder), CLASSES, Preprocessing(shape), warn=warnings.append)
    assert "The model was trained on images of 8 bits per channel, these have 0 to 4095" in warnings[1]
    assert (images[..., 0] == np.round(counts() / 4095 * 255)).all()


def test_models_of_8_bits_take_deep_images_in_their_usual_range(tmp_path):
    faint = 1940 + counts() // 40
    faint[5] //= 4  # would have 10 bits on its own
    folder = write(tmp_path / "files", faint.astype(np.uint16), ".png")
    images, _, names = dataset.labeled(str(folder), CLASSES, Preprocessing((12, 12, 1)))
    assert (images[..., 0] == np.round(faint / 4095 * 255)).all()
    assert (dataset.read(names[0], Preprocessing((12, 12, 1))) == images[0]).all()


@pytest.mark.parametrize("scale", [{"low": 1, "high": 1}, {"low": "0", "high": 2}, {"low": 0, "high": float("inf")}, 3])
def test_from_dict_refuses_a_damaged_scale(scale):
    from dltoolkit.errors import UserError

    with pytest.raises(UserError, match="train a new run"):
        Preprocessing.from_dict({"image_shape": [8, 8, 1], "scale": scale})
