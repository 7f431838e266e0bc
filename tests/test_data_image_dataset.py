"""Splits, subsamples and fingerprints of labeled images, and images for a trained model."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import CLASSES, save_image, toy_image
from image_loading import error_of, load
from PIL import Image

from dltoolkit.data import labeled
from dltoolkit.data.image import dataset
from dltoolkit.data.image.preprocessing import Preprocessing
from dltoolkit.data.options import ImageReadOptions, SplitOptions
from dltoolkit.errors import UserError

pytestmark = pytest.mark.usefixtures("isolated_cache")


def contents(data: dataset.ImageSplits, split: str) -> set[bytes]:
    return {data.images[i].tobytes() for i in getattr(data, split)}


@pytest.fixture
def split_folder(make_folder) -> Path:
    make_folder("splits/train", 8)
    make_folder("splits/val", 3)
    return make_folder("splits/test", 4).parent


def test_load_keeps_predefined_splits(split_folder):
    data = load(split_folder)
    assert data.counts() == {"train": 24, "validation": 9, "test": 12}
    for split, folder in (("train", "train"), ("validation", "val"), ("test", "test")):
        assert {Path(data.names[i]).parts[-3] for i in getattr(data, split)} == {folder}


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_load_uses_a_single_held_out_split_as_test(split_folder, held_out):
    shutil.rmtree(split_folder / {"test": "val", "val": "test"}[held_out])
    data = load(split_folder)
    assert {Path(data.names[i]).parts[-3] for i in data.test} == {held_out}
    assert {Path(data.names[i]).parts[-3] for i in data.validation} == {"train"}
    assert data.counts()["train"] + data.counts()["validation"] == 24


def test_load_limits_the_default_held_out_splits(split_folder, monkeypatch):
    monkeypatch.setattr(labeled, "MAX_VALIDATION", 3)
    shutil.rmtree(split_folder / "val")
    assert load(split_folder).counts() == {"train": 21, "validation": 3, "test": 12}
    assert load(split_folder, split=SplitOptions(validation_fraction=0.25)).counts()["validation"] == 6
    shutil.rmtree(split_folder / "test")
    monkeypatch.setattr(labeled, "MAX_TEST", 6)
    monkeypatch.setattr(labeled, "MAX_VALIDATION", 12)
    assert load(split_folder).counts() == {"train": 18, "validation": 3, "test": 3}
    monkeypatch.setattr(labeled, "MAX_TEST", 3)
    counts = load(split_folder, split=SplitOptions(validation_fraction=0.25)).counts()
    assert counts == {"train": 15, "validation": 6, "test": 3}


def test_load_splits_a_train_folder_into_three(split_folder):
    shutil.rmtree(split_folder / "val")
    shutil.rmtree(split_folder / "test")
    assert load(split_folder).counts() == {"train": 18, "validation": 3, "test": 3}


def test_load_warns_of_images_in_validation_and_test(split_folder):
    shutil.copy(split_folder / "val" / "bars" / "000.png", split_folder / "test" / "bars" / "same.png")
    assert any("1 image of test is also in train or validation" in w for w in load(split_folder).warnings)


def test_load_keeps_duplicates_in_one_split_and_reports_them(make_folder):
    folder = make_folder("toys", 12)
    for i in range(8):
        shutil.copy(folder / CLASSES[0] / f"{i:03d}.png", folder / CLASSES[0] / f"copy{i}.png")
    for seed in range(5):
        data = load(folder, seed=seed)
        assert not contents(data, "train") & (contents(data, "test") | contents(data, "validation"))
        assert not contents(data, "validation") & contents(data, "test")
    assert "8 images repeat others exactly" in data.warnings[0]
    assert len(data.findings) == 8
    assert data.findings[0][1].startswith("same as ")


def test_load_warns_of_leaks_conflicts_and_imbalance(split_folder):
    shutil.copy(split_folder / "train" / "bars" / "000.png", split_folder / "test" / "bars" / "copy.png")
    shutil.copy(split_folder / "train" / "bars" / "001.png", split_folder / "train" / "dots" / "copy.png")
    shutil.rmtree(split_folder / "val" / "plain")
    for path in sorted((split_folder / "train" / "plain").iterdir())[1:]:
        path.unlink()
    for i in range(6):
        save_image(split_folder / "train" / "bars" / f"more{i}.png", toy_image(0, 700 + i))
    (split_folder / "train" / "bars" / "photo.heic").touch()
    text = " ".join(load(split_folder).warnings)
    assert "1 image of test is also in train" in text
    assert "1 image has more than one label" in text
    assert "14 training images of 'bars', 1 of 'plain'" in text
    assert "validation split has no image of plain" in text
    assert "photo.heic" in text


def test_load_limits_the_number_of_images(make_folder, split_folder):
    folder = make_folder("many", [40, 20, 10])
    data = load(folder, limit=35)
    assert len(data.images) == 35
    assert np.bincount(data.labels).tolist() == [20, 10, 5]
    assert set(data.names) < set(load(folder).names)
    assert load(folder, limit=35).names == data.names != load(folder, limit=35, seed=1).names
    moved = folder.rename(folder.with_name("moved"))
    assert load(moved, limit=35).fingerprint == data.fingerprint
    assert load(split_folder, limit=30).counts() == {"train": 15, "validation": 6, "test": 9}
    assert "at least 9" in error_of(moved, limit=5)
    assert len(load("digits", limit=100).images) == 100


def test_load_with_shots_keeps_the_held_out_splits(make_folder):
    folder = make_folder("toys", [20, 20, 8])
    full, few = load(folder), load(folder, split=SplitOptions(shots=5))
    assert np.bincount(few.labels[few.train]).tolist() == [5, 5, 5]
    assert set(few.train) < set(full.train)
    assert (few.test == full.test).all()
    assert (few.validation == full.validation).all()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".npz"])
def test_splits_and_fingerprint_do_not_depend_on_resizing(tmp_path, suffix):
    images = np.random.default_rng(0).integers(0, 256, (40, 300, 400, 3), dtype=np.uint8)
    images = images if suffix == ".jpg" else images[:, :30, :40]
    if suffix == ".npz":
        np.savez(tmp_path / "toys.npz", images=images, labels=np.arange(40) % 2)
    else:
        for i, image in enumerate(images):
            save_image(tmp_path / "toys" / "ab"[i % 2] / f"{i}{suffix}", image)
    data = str(tmp_path / ("toys.npz" if suffix == ".npz" else "toys"))
    options = {"default": {}, "small": {"image_size": 8}, "stretched": {"read": ImageReadOptions(resize="stretch")}}
    loaded = [load(data, **given) for given in options.values()]
    assert len({each.fingerprint for each in loaded}) == 1
    assert len({tuple(each.test) for each in loaded}) == len({tuple(each.validation) for each in loaded}) == 1
    assert len({each.images.tobytes() for each in loaded}) == 3


def test_images_that_are_equal_after_resizing_share_a_split(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    doubled = np.concatenate([images, np.roll(images, 1, axis=0)]).repeat(2, axis=1).repeat(2, axis=2)
    doubled[20:, 0, 0] ^= 1  # differs from its twin in its own size only
    np.savez(tmp_path / "toys.npz", images=doubled, labels=np.r_[np.arange(20) % 2, np.roll(np.arange(20) % 2, 1)])
    data = load(str(tmp_path / "toys.npz"), image_size=8)
    seen = {split: contents(data, split) for split in ("train", "validation", "test")}
    assert not seen["train"] & seen["test"] and not seen["train"] & seen["validation"]


def test_fingerprint_changes_with_content_label_and_class_name(make_folder):
    folder = make_folder()
    before = load(folder).fingerprint
    assert load(folder, seed=1).fingerprint == before
    path = folder / CLASSES[0] / "000.png"
    (folder / CLASSES[0]).rename(folder / "bar")
    assert load(folder).fingerprint != before
    (folder / "bar").rename(folder / CLASSES[0])
    assert load(folder).fingerprint == before
    save_image(path, 255 - np.asarray(Image.open(path)))
    assert load(folder).fingerprint != before


def test_labeled_warns_of_copies_of_training_data(make_folder, tmp_path):
    folder = make_folder("original", 6)
    shutil.copytree(folder, tmp_path / "copy")
    trained = dataset.load(str(folder))
    others = make_folder("others", 6)
    shutil.copy(trained.names[trained.train[0]], others / "bars" / "copy.png")
    expected = {"copy": f"{len(trained.train)} of 18 images are", "others": "1 of 19 images is"}
    for name, begin in expected.items():
        warnings = []
        options = {"warn": warnings.append, "trained": trained.train_hashes}
        dataset.labeled(str(tmp_path / name), trained.classes, trained.preprocessing, **options)
        assert [warning for warning in warnings if "training examples" in warning] == [
            f"{begin} among the training examples of the run, so the scores will be too optimistic."
        ]


def test_labeled_reads_images_for_a_trained_model(make_folder, split_folder):
    other = make_folder("other", 4, classes=["Plain", "bars"], side=20)
    pixels, labels, names = dataset.labeled(str(other), CLASSES, Preprocessing((16, 16, 1)))
    assert pixels.shape == (8, 16, 16, 1)
    assert labels.tolist() == [2] * 4 + [0] * 4
    assert Path(names[0]).parent.name == "Plain"
    assert len(dataset.labeled(str(split_folder), CLASSES, Preprocessing((16, 16, 3)))[1]) == 12
    assert len(dataset.labeled(str(split_folder), CLASSES, Preprocessing((16, 16, 3)), split="train")[1]) == 24
    shutil.rmtree(split_folder / "test")
    assert len(dataset.labeled(str(split_folder), CLASSES, Preprocessing((16, 16, 3)))[1]) == 9
    with pytest.raises(UserError, match=r"does not have the label 'dot' of .* Did you mean 'dots'\?.*bars, dots"):
        dataset.labeled(str(make_folder("wrong", 2, classes=["dot"])), CLASSES, Preprocessing((16, 16, 3)))


def test_labeled_accepts_a_single_class(make_folder):
    assert (
        len(dataset.labeled(str(make_folder("one", 2, classes=["dots"])), CLASSES, Preprocessing((16, 16, 3)))[1]) == 2
    )


def test_read_accepts_files_images_and_arrays(tmp_path):
    pixels = toy_image(0, 1)
    path = save_image(tmp_path / "a.png", pixels)
    for image in (path, str(path), pixels, pixels / 255, Image.open(path)):
        assert (dataset.read(image, Preprocessing((16, 16, 3))) == pixels).all()
    assert dataset.read(pixels[..., 0], Preprocessing((8, 8, 1))).shape == (8, 8, 1)
    (tmp_path / "b.png").write_text("no")
    for name, reason in (("b.png", "not an image that can be read"), ("c.png", "no such file")):
        with pytest.raises(UserError, match=f"^{reason}$"):
            dataset.read(tmp_path / name, Preprocessing((16, 16, 3)))
    with pytest.raises(UserError, match="shape"):
        dataset.read(np.zeros(5), Preprocessing((16, 16, 3)))


def test_read_returns_the_pixels_that_load_returns(make_folder):
    folder = make_folder(side=20)
    save_image(folder / CLASSES[0] / "wide.jpg", toy_image(0, 99, side=300)[:200])
    data = load(folder)
    for row in range(len(data.names)):
        assert (dataset.read(data.names[row], data.preprocessing) == data.images[row]).all()


def test_expand_yields_the_files_of_folders_and_patterns(image_folder, monkeypatch):
    monkeypatch.chdir(image_folder)
    (image_folder / "notes.txt").touch()
    (image_folder / "void").mkdir()

    def expand(*inputs):
        return list(dataset.expand(inputs))

    assert len(expand(".")) == 30
    unmatched = ["nowhere.png", "no*.jpg", "notes.txt"]
    assert expand("bars/*1.png", *unmatched) == ["bars/001.png", *unmatched]
    odd = save_image(image_folder / "odd[1].png", toy_image(0, 0))
    assert expand(str(odd)) == [str(odd)]
    pixels = np.zeros((4, 4))
    assert expand(pixels)[0] is pixels
    unchanged = ["", " ", "~nosuchuser.jpg", "x" * 5000, "a\0b"]
    assert expand(*unchanged) == unchanged
    assert [item.error for item in expand("https://example.com/a.png")] == ["a URL: download the file"]
    assert [item.error for item in expand("void")] == ["no image files in this folder"]
    (image_folder / "void" / "0000.parquet").touch()
    assert "tables such as void/0000.parquet are read by evaluate" in expand("void")[0].error


def test_balanced_weights_give_all_classes_the_same_total(make_folder):
    data = load(make_folder("toys", [20, 10, 10]))
    weights = data.balanced_weights()
    counts = np.bincount(data.labels[data.train])
    assert np.allclose(weights * counts, (weights * counts)[0])
    assert np.isclose((weights * counts).sum(), len(data.train))
