"""Pictures from every source, the scan before training, and honest parts."""

import csv
import json
import os
import platform
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import CLASSES, save_image, toy_image, toy_images
from PIL import Image

from dltoolkit.data import disk_cache as store
from dltoolkit.data import labeled
from dltoolkit.data.image import dataset as images
from dltoolkit.data.options import ImageReadOptions, SplitOptions
from dltoolkit.errors import UserError

pytestmark = pytest.mark.usefixtures("isolated_cache")
SKIP_INVALID = ImageReadOptions(skip_invalid=True)


def load(data, read=ImageReadOptions(), split=SplitOptions(), **options) -> images.ImageSplits:
    return images.load(str(data), read, split, **options)


def refused(data, *read, **options) -> str:
    with pytest.raises(UserError) as caught:
        load(data, *read, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def contents(data: images.ImageSplits, part: str) -> set[bytes]:
    return {data.images[i].tobytes() for i in getattr(data, part)}


def test_bundled_digits():
    data = load("digits", seed=0)
    assert data.images.shape == (1797, 8, 8, 1)
    assert data.images.dtype == np.uint8
    assert data.images.max() == 255
    assert data.labels.dtype == np.int32
    assert data.classes == list("0123456789")
    assert data.counts() == {"train": 1259, "validation": 269, "test": 269}
    assert data.image_shape == (8, 8, 1)
    assert data.names[3] == "digits[3]"
    assert (data.source, data.name, data.warnings) == ("digits", "digits", [])


def test_class_folders(image_folder):
    data = load(image_folder)
    assert data.images.shape == (30, 16, 16, 3)
    assert data.classes == list(CLASSES)
    assert data.counts() == {"train": 18, "validation": 6, "test": 6}
    for part in ("train", "validation", "test"):
        assert len(np.unique(data.labels[getattr(data, part)])) == 3
    for row in (0, 17):
        assert Path(data.names[row]).parent.name == data.classes[data.labels[row]]
        assert (data.images[row] == np.asarray(Image.open(data.names[row]))).all()


def test_grey_pictures_have_one_channel(make_folder):
    folder = make_folder(channels=1)
    assert load(folder).image_shape == (16, 16, 1)
    save_image(folder / CLASSES[2] / "zz.png", toy_image(0, 99))  # the last one is coloured
    assert load(folder).image_shape == (16, 16, 3)


def test_sizes(make_folder):
    folder = make_folder(side=20)
    assert load(folder).image_shape == (20, 20, 3)
    assert load(folder, image_size=12).image_shape == (12, 12, 3)
    save_image(folder / CLASSES[2] / "zz.png", toy_image(2, 99, side=40)[:, :30])
    data = load(folder)
    assert data.image_shape == (24, 24, 3)
    assert len(data.images) == 31
    assert data.images[-1].std() > 0


def test_pictures_of_all_types_in_subfolders(make_folder):
    folder = make_folder()
    for i, suffix in enumerate(["jpg", "JPEG", "bmp", "gif", "webp", "tif", "tiff"]):
        save_image(folder / CLASSES[0] / "more" / f"{i}.{suffix}", toy_image(0, 500 + i))
    data = load(folder)
    assert len(data.images) == 37
    assert (data.labels == 0).sum() == 17


@pytest.fixture
def split_folder(make_folder) -> Path:
    make_folder("own/train", 8)
    make_folder("own/val", 3)
    return make_folder("own/test", 4).parent


def test_given_splits_are_kept(split_folder):
    data = load(split_folder)
    assert data.counts() == {"train": 24, "validation": 9, "test": 12}
    for part, folder in (("train", "train"), ("validation", "val"), ("test", "test")):
        assert {Path(data.names[i]).parts[-3] for i in getattr(data, part)} == {folder}


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_the_only_held_out_part_is_the_test(split_folder, held_out):
    shutil.rmtree(split_folder / {"test": "val", "val": "test"}[held_out])
    data = load(split_folder)
    assert {Path(data.names[i]).parts[-3] for i in data.test} == {held_out}
    assert {Path(data.names[i]).parts[-3] for i in data.validation} == {"train"}
    assert data.counts()["train"] + data.counts()["validation"] == 24


def test_large_sets_hold_out_no_more_than_it_takes(split_folder, monkeypatch):
    monkeypatch.setattr(labeled, "MOST_VALIDATED", 3)
    shutil.rmtree(split_folder / "val")
    assert load(split_folder).counts() == {"train": 21, "validation": 3, "test": 12}
    assert load(split_folder, split=SplitOptions(validation_fraction=0.25)).counts()["validation"] == 6
    shutil.rmtree(split_folder / "test")
    monkeypatch.setattr(labeled, "MOST_TESTED", 6)
    monkeypatch.setattr(labeled, "MOST_VALIDATED", 12)
    assert load(split_folder).counts() == {"train": 18, "validation": 3, "test": 3}
    monkeypatch.setattr(labeled, "MOST_TESTED", 3)
    counts = load(split_folder, split=SplitOptions(validation_fraction=0.25)).counts()
    assert counts == {"train": 15, "validation": 6, "test": 3}


def test_train_alone_is_split_three_ways(split_folder):
    shutil.rmtree(split_folder / "val")
    shutil.rmtree(split_folder / "test")
    assert load(split_folder).counts() == {"train": 18, "validation": 3, "test": 3}


def test_wrong_folders(make_folder, tmp_path):
    assert "plain has no pictures" in refused(make_folder("empty", [5, 5, 0]))
    assert "one class, 'cat'" in refused(make_folder("one", 5, classes=["cat"]))
    assert "'dots' has only 1 picture" in refused(make_folder("few", [5, 1, 5]))
    assert "no class folders" in refused(make_folder("flat", 5, classes=["."]))
    (tmp_path / "texts" / "good").mkdir(parents=True)
    (tmp_path / "texts" / "good" / "1.txt").write_text("good")
    assert "No pictures" in refused(tmp_path / "texts")
    make_folder("lost/train", 5, classes=["cat", "dog"])
    make_folder("lost/test", 2)
    assert "'bars' is only in test" in refused(tmp_path / "lost")


def spoil(folder: Path) -> list[str]:
    """Add five unreadable files to the first class and return their names."""
    (folder / CLASSES[0] / "text.jpg").write_text("this is not a picture")
    (folder / CLASSES[0] / "void.png").touch()
    whole = save_image(folder / "whole.jpg", toy_image(0, 999, side=64))
    (folder / CLASSES[0] / "half.jpg").write_bytes(whole.read_bytes()[:500])
    whole.unlink()
    (folder / CLASSES[0] / "gone.gif").symlink_to(folder / "nowhere")
    (folder / CLASSES[0] / "noise.tif").write_bytes(bytes(range(200)))
    return ["text.jpg", "void.png", "half.jpg", "gone.gif", "noise.tif"]


def test_classes_one_level_deeper_are_noticed(make_folder):
    make_folder("deep/seg_train", 3)
    make_folder("deep/seg_test", 3)
    message = refused(make_folder("deep/seg_pred", 3).parent)
    assert "hold the same folders (bars, dots, plain, …)" in message
    with_subfolders = make_folder("fine")
    for name in CLASSES:
        save_image(with_subfolders / name / "old" / "a.png", toy_image(CLASSES.index(name), 700))
    assert len(load(with_subfolders).images) == 33


def test_pictures_in_validation_and_test_are_pointed_out(split_folder):
    shutil.copy(split_folder / "val" / "bars" / "000.png", split_folder / "test" / "bars" / "same.png")
    assert any("1 picture of test is also in train or validation" in w for w in load(split_folder).warnings)


def test_unreadable_pictures_are_named_and_can_be_skipped(image_folder):
    names = spoil(image_folder)
    message = refused(image_folder)
    assert message.startswith("5 of 35 pictures cannot be used")
    assert "--skip-invalid" in message
    for name, reason in zip(names, ["not a picture", "an empty file", "cut off", "no such file", ""], strict=True):
        assert f"{name} ({reason}" in message
    data = load(image_folder, SKIP_INVALID)
    assert len(data.images) == len(data.labels) == len(data.names) == 30
    assert "5 pictures were left out" in data.warnings[0]
    assert {Path(name).name for name, _ in data.findings} == set(names)
    for row in range(30):
        assert (data.images[row] == np.asarray(Image.open(data.names[row]))).all()


def test_many_unreadable_pictures_are_all_listed_in_a_file(image_folder, isolated_cache):
    for i in range(7):
        (image_folder / CLASSES[1] / f"bad{i}.png").touch()
    message = refused(image_folder)
    assert message.count("an empty file") == 5
    listed = next(isolated_cache.glob("*-unreadable.txt"))
    assert str(listed) in message
    assert len(listed.read_text().splitlines()) == 7


def test_skipping_must_leave_enough(make_folder):
    folder = make_folder("toys", [5, 3, 5])
    (folder / CLASSES[1] / "000.png").write_bytes(b"")
    assert "'dots' has only 2 pictures" in refused(folder, SKIP_INVALID)
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    assert refused(folder, SKIP_INVALID).startswith("None of the 13 pictures can be used")


def test_copies_are_named_and_never_cross_the_split(make_folder):
    folder = make_folder("toys", 12)
    for i in range(8):
        shutil.copy(folder / CLASSES[0] / f"{i:03d}.png", folder / CLASSES[0] / f"copy{i}.png")
    for seed in range(5):
        data = load(folder, seed=seed)
        assert not contents(data, "train") & (contents(data, "test") | contents(data, "validation"))
        assert not contents(data, "validation") & contents(data, "test")
    assert "8 pictures repeat others exactly" in data.warnings[0]
    assert len(data.findings) == 8
    assert data.findings[0][1].startswith("same as ")


def test_warnings(split_folder):
    shutil.copy(split_folder / "train" / "bars" / "000.png", split_folder / "test" / "bars" / "copy.png")
    shutil.copy(split_folder / "train" / "bars" / "001.png", split_folder / "train" / "dots" / "copy.png")
    shutil.rmtree(split_folder / "val" / "plain")
    for path in sorted((split_folder / "train" / "plain").iterdir())[1:]:
        path.unlink()
    for i in range(6):
        save_image(split_folder / "train" / "bars" / f"more{i}.png", toy_image(0, 700 + i))
    (split_folder / "train" / "bars" / "photo.heic").touch()
    text = " ".join(load(split_folder).warnings)
    assert "1 picture of test is also in train" in text
    assert "1 picture appears under more than one label" in text
    assert "14 training pictures of 'bars', 1 of 'plain'" in text
    assert "validation part has no picture of plain" in text
    assert "photo.heic" in text


def test_table(image_table):
    data = load(image_table)
    assert data.images.shape == (30, 16, 16, 3)
    assert data.classes == list(CLASSES)
    assert Path(data.names[0]).parent.name == data.classes[data.labels[0]]
    assert load(image_table.parent).fingerprint == data.fingerprint  # the folder that holds just this table


def test_tables_of_other_forms(image_table):
    rows = list(csv.reader(image_table.open()))[1:]
    without = image_table.with_name("without.csv")
    without.write_text("".join(f"{label},{file}\n" for file, label in rows))
    lines = image_table.with_name("rows.jsonl")
    lines.write_text("".join(json.dumps({"pic": file, "animal": label}) + "\n" for file, label in rows))
    expected = load(image_table).fingerprint
    assert load(without).fingerprint == expected
    assert load(lines, ImageReadOptions(image_column="pic", label_column="animal")).fingerprint == expected
    assert "its columns are: pic, animal" in refused(lines)
    assert "Its columns are: pic, animal" in refused(lines, ImageReadOptions(image_column="picture"))


def test_parquet_with_pictures_inside(image_table):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = list(csv.reader(image_table.open()))[1:]
    cells = [{"bytes": (image_table.parent / file).read_bytes(), "path": file} for file, _ in rows]
    table = pyarrow.table({"image": cells, "label": [CLASSES.index(label) for _, label in rows]})
    path = image_table.with_name("inside.parquet")
    parquet.write_table(table, path)
    data = load(path)
    assert data.classes == ["0", "1", "2"]
    assert (data.images == load(image_table).images).all()


def test_tables_by_split_and_their_mistakes(image_table):
    rows = list(csv.reader(image_table.open()))[1:]
    image_table.unlink()
    for name, part in (("train", rows[::2]), ("test", rows[1::2])):
        lines = "".join(f"{file},{label}\n" for file, label in part)
        image_table.with_name(f"{name}.csv").write_text(f"file,label\n{lines}")
    assert load(image_table.parent).counts()["test"] == 15
    with image_table.with_name("train.csv").open("a") as file:
        file.write("pictures/nowhere.png,bars\n")
    assert "nowhere.png (no such file)" in refused(image_table.parent)
    with image_table.with_name("train.csv").open("a") as file:
        file.write("pictures/nowhere.png, \n")
    assert "nothing in the column 'label'" in refused(image_table.parent)


def test_npz(image_npz):
    data = load(image_npz)
    assert data.images.shape == (36, 8, 8, 1)
    assert data.counts()["test"] == 9
    assert data.classes == ["0", "1", "2"]
    assert data.names[-1] == "toys/test[8]"


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
def test_npz_forms(tmp_path, change):
    x, y = toy_images(6, side=8, channels=1)
    np.savez(tmp_path / "a.npz", **change(x, y))
    data = load(tmp_path / "a.npz")
    assert (data.images == x).all()
    assert (data.labels == y).all()
    assert data.classes == ["0", "1", "2"]


def test_floats_that_overshoot_one_a_little_are_still_floats_of_one(tmp_path):
    x, y = toy_images(6, side=8, channels=1)
    np.savez(tmp_path / "a.npz", x=np.where(x == x.max(), 1.004, x / 255.0), y=y)
    assert (load(tmp_path / "a.npz").images == np.where(x == x.max(), 255, x)).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, y: {"pictures": x, "y": y}, "holds pictures, y"),
        (lambda x, y: {"x": x.reshape(18, -1), "y": y}, "has the shape (18, 64)"),
        (lambda x, y: {"x": x.transpose(0, 3, 1, 2).repeat(3, 1), "y": y}, "move the channels last"),
        (lambda x, y: {"x": x[:9], "y": y}, "9 pictures but 18 labels"),
        (lambda x, y: {"x": x / 100.0 - 1, "y": y}, "values from"),
        (lambda x, y: {"x": x / 0.0, "y": y}, "not numbers"),
        (lambda x, y: {"x": x, "y": y + 0.5}, "not whole numbers"),
        (lambda x, y: {"x": x.astype(object), "y": y}, "Python objects"),
        (lambda x, y: {"x_test": x, "y_test": y}, "none for train"),
        (lambda x, y: {"x": x[:0], "y": y[:0]}, "is empty"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_npz_mistakes(tmp_path, change, words):
    np.savez(tmp_path / "a.npz", **change(*toy_images(6, side=8, channels=1)))
    assert words in refused(tmp_path / "a.npz")


def test_a_file_that_is_no_npz(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 not really")
    assert "not a readable .npz" in refused(tmp_path / "a.npz")
    with open(tmp_path / "b.npz", "wb") as file:
        np.save(file, np.zeros(3))
    assert "numpy.savez" in refused(tmp_path / "b.npz")
    (tmp_path / "c.txt").write_text("hello")
    assert "holds text" in refused(tmp_path / "c.txt")


def test_transparent_arrays_are_put_on_white(tmp_path):
    x, y = toy_images(4, side=8)
    alpha = np.where(np.arange(8) < 4, 255, 0).astype(np.uint8)
    np.savez(tmp_path / "a.npz", x=np.concatenate([x, np.broadcast_to(alpha[:, None], (12, 8, 8, 1))], -1), y=y)
    data = load(tmp_path / "a.npz")
    assert (data.images[:, :, :4] == x[:, :, :4]).all()
    assert (data.images[:, :, 4:] == 255).all()


def test_limit(make_folder, split_folder):
    folder = make_folder("many", [40, 20, 10])
    data = load(folder, limit=35)
    assert len(data.images) == 35
    assert np.bincount(data.labels).tolist() == [20, 10, 5]
    assert set(data.names) < set(load(folder).names)
    assert load(folder, limit=35).names == data.names != load(folder, limit=35, seed=1).names
    moved = folder.rename(folder.with_name("moved"))
    assert load(moved, limit=35).fingerprint == data.fingerprint
    assert load(split_folder, limit=30).counts() == {"train": 15, "validation": 6, "test": 9}
    assert "at least 9" in refused(moved, limit=5)
    assert len(load("digits", limit=100).images) == 100


def test_labels_per_class_leaves_the_held_out_parts_alone(make_folder):
    folder = make_folder("toys", [20, 20, 8])
    full, few = load(folder), load(folder, split=SplitOptions(shots=5))
    assert np.bincount(few.labels[few.train]).tolist() == [5, 5, 5]
    assert set(few.train) < set(full.train)
    assert (few.test == full.test).all()
    assert (few.validation == full.validation).all()


def test_fingerprint_changes_with_content_label_and_class_name(make_folder):
    folder = make_folder()
    before = load(folder).fingerprint
    assert load(folder, seed=1).fingerprint == before
    assert load(folder, image_size=8).fingerprint != before
    picture = folder / CLASSES[0] / "000.png"
    (folder / CLASSES[0]).rename(folder / "bar")
    assert load(folder).fingerprint != before
    (folder / "bar").rename(folder / CLASSES[0])
    assert load(folder).fingerprint == before
    save_image(picture, 255 - np.asarray(Image.open(picture)))
    assert load(folder).fingerprint != before


def test_pictures_that_do_not_fit_in_memory_are_kept_on_disk(make_folder, isolated_cache, monkeypatch):
    folder = make_folder()
    spoil(folder)
    expected = load(folder, SKIP_INVALID)
    assert not list(isolated_cache.glob("*.array"))
    monkeypatch.setattr(store, "memory_limit", lambda: 1000)
    data = load(folder, SKIP_INVALID)
    assert isinstance(data.images, np.memmap)
    assert (data.images == expected.images).all()
    assert data.fingerprint == expected.fingerprint
    assert sorted(path.suffix for path in isolated_cache.iterdir()) == [".array", ".json"]

    written = next(isolated_cache.glob("*.array"))
    stamp = written.stat().st_mtime_ns
    again = load(folder, SKIP_INVALID)
    assert (again.images == expected.images).all()
    assert again.warnings == data.warnings
    assert written.stat().st_mtime_ns == stamp  # found, not made anew
    assert "5 of 35" in refused(folder)

    picture = folder / CLASSES[0] / "000.png"
    save_image(picture, 255 - np.asarray(Image.open(picture)))
    changed = load(folder, SKIP_INVALID)
    assert (changed.images[0] == 255 - expected.images[0]).all()
    assert (changed.images[1:] == expected.images[1:]).all()
    assert not list(isolated_cache.glob("*unfinished*"))


def test_a_full_disk_leaves_nothing_behind(make_folder, isolated_cache, monkeypatch):
    import resource

    folder = make_folder()
    monkeypatch.setattr(store, "memory_limit", lambda: 1000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))  # no file may grow larger than this
    try:
        message = refused(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "XDG_CACHE_HOME" in message
    assert not list(isolated_cache.iterdir())


def test_room_on_disk_is_taken_at_once_and_given_back(make_folder, isolated_cache, monkeypatch):
    file = store.KeptArray(isolated_cache, "a")
    file.create((1000, 32, 32, 1), "decoded pictures")
    assert next(isolated_cache.iterdir()).stat().st_blocks * 512 >= 1000 * 32 * 32
    file.discard()
    monkeypatch.setattr(store, "memory_limit", lambda: 1000)
    folder = make_folder()
    (folder / CLASSES[0] / "void.png").touch()
    refused(folder)
    assert not list(isolated_cache.iterdir())


def test_a_mended_picture_is_read_again(make_folder, isolated_cache, monkeypatch):
    monkeypatch.setattr(store, "memory_limit", lambda: 1000)
    folder = make_folder()
    picture = folder / CLASSES[0] / "000.png"
    content, times = picture.read_bytes(), (picture.stat().st_atime_ns, picture.stat().st_mtime_ns)
    picture.write_bytes(b"x" * len(content))
    os.utime(picture, ns=times)
    assert len(load(folder, SKIP_INVALID).images) == 29
    picture.write_bytes(content)
    os.utime(picture, ns=times)
    assert len(load(folder).images) == 30


def test_what_may_not_be_read_is_named(make_folder, request):
    folder = make_folder()
    picture = folder / CLASSES[0] / "000.png"
    picture.chmod(0)
    request.getfixturevalue("unprivileged_user")
    message = refused(folder)
    assert f"1 of 30 pictures cannot be used: {picture}" in message
    assert "ermission" in message
    assert len(load(folder, SKIP_INVALID).images) == 29


def test_a_folder_that_may_not_be_read_is_named(make_folder, request):
    closed = make_folder() / CLASSES[1]
    closed.chmod(0)
    request.getfixturevalue("unprivileged_user")
    message = refused(closed.parent)
    assert str(closed) in message
    assert "ermission" in message


def test_decoded_pictures_that_no_run_has_used_for_a_month_are_removed(make_folder, isolated_cache, monkeypatch):
    monkeypatch.setattr(store, "memory_limit", lambda: 1000)
    old, used, new = make_folder("old"), make_folder("used"), make_folder("new")
    load(old), load(used)
    for facts in isolated_cache.glob("*.json"):
        os.utime(facts, (0, 0))
    load(used)
    load(new)
    assert sorted(path.name.partition("-")[0] for path in isolated_cache.iterdir()) == ["new", "new", "used", "used"]


def test_what_a_killed_process_left_is_removed(make_folder, isolated_cache, monkeypatch):
    isolated_cache.mkdir()
    (isolated_cache / f"toys-1234.unfinished-{platform.node()}-999999999-0a1b").touch()
    monkeypatch.setattr(store, "memory_limit", lambda: 1000)
    load(make_folder())
    assert not list(isolated_cache.glob("*unfinished*"))


def test_memory_limit_is_plausible():
    assert store.GIGABYTE <= store.memory_limit() < 2**45
    assert store.available_memory() > 2**26


def test_labelled_data_for_a_trained_model(make_folder, split_folder):
    other = make_folder("other", 4, classes=["Plain", "bars"], side=20)
    pixels, labels, names = images.labeled(str(other), CLASSES, (16, 16, 1))
    assert pixels.shape == (8, 16, 16, 1)
    assert labels.tolist() == [2] * 4 + [0] * 4
    assert Path(names[0]).parent.name == "Plain"
    assert len(images.labeled(str(split_folder), CLASSES, (16, 16, 3))[1]) == 12
    assert len(images.labeled(str(split_folder), CLASSES, (16, 16, 3), part="train")[1]) == 24
    shutil.rmtree(split_folder / "test")
    assert len(images.labeled(str(split_folder), CLASSES, (16, 16, 3))[1]) == 9
    with pytest.raises(
        UserError, match=r"label 'dot' in .* is unknown to the model. Did you mean 'dots'\?.*bars, dots"
    ):
        images.labeled(str(make_folder("wrong", 2, classes=["dot"])), CLASSES, (16, 16, 3))


def test_one_class_of_labelled_data_will_do(make_folder):
    assert len(images.labeled(str(make_folder("one", 2, classes=["dots"])), CLASSES, (16, 16, 3))[1]) == 2


def test_read(tmp_path):
    pixels = toy_image(0, 1)
    path = save_image(tmp_path / "a.png", pixels)
    for picture in (path, str(path), pixels, pixels / 255, Image.open(path)):
        assert (images.read(picture, (16, 16, 3)) == pixels).all()
    assert images.read(pixels[..., 0], (8, 8, 1)).shape == (8, 8, 1)
    (tmp_path / "b.png").write_text("no")
    for picture, reason in ((tmp_path / "b.png", "not a picture"), (tmp_path / "c.png", "no such file")):
        with pytest.raises(UserError, match=f"^{reason}$"):
            images.read(picture, (16, 16, 3))
    with pytest.raises(UserError, match="shape"):
        images.read(np.zeros(5), (16, 16, 3))


def test_reading_for_prediction_is_the_same_as_for_training(make_folder):
    folder = make_folder(side=20)
    save_image(folder / CLASSES[0] / "wide.jpg", toy_image(0, 99, side=300)[:200])
    data = load(folder)
    for row in range(len(data.names)):
        assert (images.read(data.names[row], data.image_shape) == data.images[row]).all()


def test_expand(image_folder, monkeypatch):
    monkeypatch.chdir(image_folder)
    (image_folder / "notes.txt").touch()
    (image_folder / "void").mkdir()

    def expanded(*inputs):
        return list(images.expand(inputs))

    assert len(expanded(".")) == 30
    unmatched = ["nowhere.png", "no*.jpg", "void", "notes.txt"]
    assert expanded("bars/*1.png", *unmatched) == ["bars/001.png", *unmatched]
    odd = save_image(image_folder / "odd[1].png", toy_image(0, 0))
    assert expanded(str(odd)) == [str(odd)]
    pixels = np.zeros((4, 4))
    assert expanded(pixels)[0] is pixels
    odd_ones = ["", " ", "~nosuchuser.jpg", "x" * 5000, "a\0b"]
    assert expanded(*odd_ones) == odd_ones


def test_balanced_weights(make_folder):
    data = load(make_folder("toys", [20, 10, 10]))
    weights = data.balanced_weights()
    counts = np.bincount(data.labels[data.train])
    assert np.allclose(weights * counts, (weights * counts)[0])
    assert np.isclose((weights * counts).sum(), len(data.train))
