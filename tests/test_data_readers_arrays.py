"""Images and labels from .npz files and the bundled digits, in all shapes and types, and the refusal of wrong ones."""

import numpy as np
import pytest
from conftest import toy_images

from dltoolkit.data.image import dataset
from dltoolkit.data.readers import arrays
from dltoolkit.errors import UserError

pytestmark = pytest.mark.usefixtures("isolated_cache")


def refusal(path) -> str:
    with pytest.raises(UserError) as caught:
        dataset.load(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_digits_are_8_bit_images():
    ((images, labels),) = arrays.digits().values()
    assert images.shape == (1797, 8, 8, 1)
    assert images.dtype == np.uint8
    assert images.max() == 255
    assert labels.shape == (1797,)


def test_read_npz_keeps_predefined_splits(image_npz):
    splits = dataset.load(str(image_npz))
    assert splits.images.shape == (36, 8, 8, 1)
    assert splits.counts()["test"] == 9
    assert splits.classes == ["0", "1", "2"]
    assert splits.names[-1] == "toys/test[8]"


@pytest.mark.parametrize(
    "change",
    [
        lambda x, y: {"images": x, "labels": y},
        lambda x, y: {"x": x[..., 0], "y": y[:, None]},
        lambda x, y: {"x": x / 255.0, "y": y.astype(float)},
        lambda x, y: {"x": x.astype(np.uint16) * 257, "y": y},
        lambda x, y: {"x": x.astype(np.float32), "y": np.eye(3)[y]},
        lambda x, y: {"train_images": x, "train_labels": np.array(["0", "1", "2"])[y]},
    ],
)
def test_read_npz_accepts_usual_keys_shapes_and_types(tmp_path, change):
    x, y = toy_images(6, side=8, channels=1)
    np.savez(tmp_path / "a.npz", **change(x, y))
    splits = dataset.load(str(tmp_path / "a.npz"))
    assert (splits.images == x).all()
    assert (splits.labels == y).all()
    assert splits.classes == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, y: {"pictures": x, "y": y}, "contains pictures, y"),
        (lambda x, y: {"x": x.reshape(18, -1), "y": y}, "has the shape (18, 64)"),
        (lambda x, y: {"x": x.transpose(0, 3, 1, 2).repeat(3, 1), "y": y}, "move the channels last"),
        (lambda x, y: {"x": x[:9], "y": y}, "9 images but 18 labels"),
        (
            lambda x, y: {"x_train": x, "y_train": y, "x_test": x[:2], "y_test": y[:1]},
            "2 test images but 1 test labels",
        ),
        (lambda x, y: {"x": x / 100.0 - 1, "y": y}, "values from"),
        (lambda x, y: {"x": np.where(x == x.max(), np.inf, x), "y": y}, "not finite"),
        (lambda x, y: {"x": x, "y": y + 0.5}, "fractional labels"),
        (lambda x, y: {"x": x.astype(object), "y": y}, "Python objects"),
        (lambda x, y: {"x_test": x, "y_test": y}, "none for train"),
        (lambda x, y: {"x": x[:0], "y": y[:0]}, "is empty"),
    ],
)
def test_read_npz_refuses_wrong_contents(tmp_path, change, words):
    np.savez(tmp_path / "a.npz", **change(*toy_images(6, side=8, channels=1)))
    assert words in refusal(tmp_path / "a.npz")


def test_read_npz_refuses_other_files(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 not really")
    assert "not a readable .npz" in refusal(tmp_path / "a.npz")
    with open(tmp_path / "b.npz", "wb") as file:
        np.save(file, np.zeros(3))
    assert "numpy.savez" in refusal(tmp_path / "b.npz")


def test_to_pixels_allows_floats_that_overshoot_one(tmp_path):
    x, y = toy_images(6, side=8, channels=1)
    np.savez(tmp_path / "a.npz", x=np.where(x == x.max(), 1.004, x / 255.0), y=y)
    assert (dataset.load(str(tmp_path / "a.npz")).images == np.where(x == x.max(), 255, x)).all()


def test_to_pixels_makes_transparent_pixels_white(tmp_path):
    x, y = toy_images(4, side=8)
    alpha = np.where(np.arange(8) < 4, 255, 0).astype(np.uint8)
    np.savez(tmp_path / "a.npz", x=np.concatenate([x, np.broadcast_to(alpha[:, None], (12, 8, 8, 1))], -1), y=y)
    images = dataset.load(str(tmp_path / "a.npz")).images
    assert (images[:, :, :4] == x[:, :, :4]).all()
    assert (images[:, :, 4:] == 255).all()
