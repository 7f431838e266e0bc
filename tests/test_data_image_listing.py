"""Labeled images from folders, tables and arrays."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import CLASSES, save_image, toy_image, toy_images
from image_loading import error_of, load
from PIL import Image

from dltoolkit.data.options import ImageReadOptions

pytestmark = pytest.mark.usefixtures("isolated_cache")


def test_load_reads_the_bundled_digits():
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


def test_load_reads_class_folders(image_folder):
    data = load(image_folder)
    assert data.images.shape == (30, 16, 16, 3)
    assert data.classes == list(CLASSES)
    assert data.counts() == {"train": 18, "validation": 6, "test": 6}
    for split in ("train", "validation", "test"):
        assert len(np.unique(data.labels[getattr(data, split)])) == 3
    for row in (0, 17):
        assert Path(data.names[row]).parent.name == data.classes[data.labels[row]]
        assert (data.images[row] == np.asarray(Image.open(data.names[row]))).all()


def test_load_reads_all_formats_in_subfolders(make_folder):
    folder = make_folder()
    for i, suffix in enumerate(["jpg", "JPEG", "bmp", "gif", "webp", "tif", "tiff"]):
        save_image(folder / CLASSES[0] / "more" / f"{i}.{suffix}", toy_image(0, 500 + i))
    data = load(folder)
    assert len(data.images) == 37
    assert (data.labels == 0).sum() == 17


def test_load_refuses_folders_without_usable_classes(make_folder, tmp_path):
    assert "plain has no images" in error_of(make_folder("empty", [5, 5, 0]))
    assert "one class, 'cat'" in error_of(make_folder("one", 5, classes=["cat"]))
    assert "'dots' has only 1 image" in error_of(make_folder("few", [5, 1, 5]))
    assert "no class folders" in error_of(make_folder("flat", 5, classes=["."]))
    (tmp_path / "texts" / "good").mkdir(parents=True)
    (tmp_path / "texts" / "good" / "1.txt").write_text("good")
    assert "has no images in its folders" in error_of(tmp_path / "texts")
    make_folder("lost/train", 5, classes=["cat", "dog"])
    make_folder("lost/test", 2)
    assert "'bars' is only in test" in error_of(tmp_path / "lost")


def test_load_refuses_nested_class_folders(make_folder, tmp_path):
    make_folder("deep/seg_train", 3)
    make_folder("deep/seg_test", 3)
    message = error_of(make_folder("deep/seg_pred", 3).parent)
    assert "contain the same folders (bars, dots, plain, …)" in message
    make_folder("one/images", 3)
    message = error_of(tmp_path / "one")
    assert "has only one class, 'images', but its folders bars, dots, plain look like the classes" in message
    assert message.endswith(f"give data='{tmp_path}/one/images'.")
    make_folder("images/two/images", 3)  # a folder around the data has the name, too
    message = error_of(tmp_path / "images" / "two")
    assert message.endswith(f"bars, dots, plain look like the classes: give data='{tmp_path}/images/two/images'.")
    make_folder("kinds/filled", 3, classes=["dots", "plain"])
    kinds = make_folder("kinds/empty", 3, classes=["bars", "rings"]).parent
    assert any("such as empty/bars, whose names are not read" in warning for warning in load(kinds).warnings)
    with_subfolders = make_folder("fine")
    for name in CLASSES:
        save_image(with_subfolders / name / "old" / "a.png", toy_image(CLASSES.index(name), 700))
    assert len(load(with_subfolders).images) == 33


def test_load_reads_a_table(image_table):
    data = load(image_table)
    assert data.images.shape == (30, 16, 16, 3)
    assert data.classes == list(CLASSES)
    assert Path(data.names[0]).parent.name == data.classes[data.labels[0]]
    assert load(image_table.parent).fingerprint == data.fingerprint  # a folder with a single table stands for the table


def test_load_reads_tables_with_other_columns(image_table):
    rows = list(csv.reader(image_table.open()))[1:]
    no_header = image_table.with_name("without.csv")
    no_header.write_text("".join(f"{label},{file}\n" for file, label in rows))
    lines = image_table.with_name("rows.jsonl")
    lines.write_text("".join(json.dumps({"pic": file, "animal": label}) + "\n" for file, label in rows))
    expected = load(image_table).fingerprint
    assert load(no_header).fingerprint == expected
    assert load(lines, ImageReadOptions(image_column="pic", label_column="animal")).fingerprint == expected
    assert "Its columns are: pic, animal" in error_of(lines)
    assert "Its columns are: pic, animal" in error_of(lines, ImageReadOptions(image_column="image"))


def test_load_reads_images_inside_a_parquet_file(image_table):
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


def test_load_reads_a_table_for_each_split_and_names_their_mistakes(image_table):
    rows = list(csv.reader(image_table.open()))[1:]
    image_table.unlink()
    for name, split_rows in (("train", rows[::2]), ("test", rows[1::2])):
        lines = "".join(f"{file},{label}\n" for file, label in split_rows)
        image_table.with_name(f"{name}.csv").write_text(f"file,label\n{lines}")
    assert load(image_table.parent).counts()["test"] == 15
    with image_table.with_name("train.csv").open("a") as file:
        file.write("images/nowhere.png,bars\n")
    assert "nowhere.png (no such file)" in error_of(image_table.parent)
    with image_table.with_name("train.csv").open("a") as file:
        file.write("images/nowhere.png, \n")
    assert "nothing in the column 'label'" in error_of(image_table.parent)


def test_load_reads_npz_splits(image_npz):
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
def test_load_reads_npz_arrays_of_many_types(tmp_path, change):
    x, y = toy_images(6, side=8, channels=1)
    np.savez(tmp_path / "a.npz", **change(x, y))
    data = load(tmp_path / "a.npz")
    assert (data.images == x).all()
    assert (data.labels == y).all()
    assert data.classes == ["0", "1", "2"]


def test_load_treats_floats_slightly_above_one_as_unit_range(tmp_path):
    x, y = toy_images(6, side=8, channels=1)
    np.savez(tmp_path / "a.npz", x=np.where(x == x.max(), 1.004, x / 255.0), y=y)
    assert (load(tmp_path / "a.npz").images == np.where(x == x.max(), 255, x)).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, y: {"pixels": x, "y": y}, "contains pixels, y"),
        (lambda x, y: {"x": x.reshape(18, -1), "y": y}, "has the shape (18, 64)"),
        (lambda x, y: {"x": x.transpose(0, 3, 1, 2).repeat(3, 1), "y": y}, "move the channels last"),
        (lambda x, y: {"x": x[:9], "y": y}, "9 images but 18 labels"),
        (lambda x, y: {"x": x / 0.0, "y": y}, "not finite"),
        (lambda x, y: {"x": x, "y": y + 0.5}, "fractional labels"),
        (lambda x, y: {"x": x.astype(object), "y": y}, "Python objects"),
        (lambda x, y: {"x_test": x, "y_test": y}, "none for train"),
        (lambda x, y: {"x": x[:0], "y": y[:0]}, "is empty"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_load_refuses_wrong_npz_arrays(tmp_path, change, words):
    np.savez(tmp_path / "a.npz", **change(*toy_images(6, side=8, channels=1)))
    assert words in error_of(tmp_path / "a.npz")


def test_load_refuses_files_that_are_not_npz(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 not really")
    assert "not a readable .npz" in error_of(tmp_path / "a.npz")
    with open(tmp_path / "b.npz", "wb") as file:
        np.save(file, np.zeros(3))
    assert "numpy.savez" in error_of(tmp_path / "b.npz")
    (tmp_path / "c.txt").write_text("hello")
    assert "contains text instead of images" in error_of(tmp_path / "c.txt")


def test_load_puts_transparent_arrays_on_white(tmp_path):
    x, y = toy_images(4, side=8)
    alpha = np.where(np.arange(8) < 4, 255, 0).astype(np.uint8)
    np.savez(tmp_path / "a.npz", x=np.concatenate([x, np.broadcast_to(alpha[:, None], (12, 8, 8, 1))], -1), y=y)
    data = load(tmp_path / "a.npz")
    assert (data.images[:, :, :4] == x[:, :, :4]).all()
    assert (data.images[:, :, 4:] == 255).all()


def test_load_names_folders_without_read_permission(make_folder, request):
    closed = make_folder() / CLASSES[1]
    closed.chmod(0)
    request.getfixturevalue("unprivileged_user")
    message = error_of(closed.parent)
    assert str(closed) in message
    assert "ermission" in message


def test_load_reads_tables_from_other_systems(image_table):
    """Backslashes, IDs without a suffix, and names of files in a folder below are found."""
    expected = load(image_table)
    rows = list(csv.reader(image_table.open()))[1:]
    variants = {
        "windows.csv": [(file.replace("/", "\\"), label) for file, label in rows],
        "ids.csv": [(file.removesuffix(".png"), label) for file, label in rows],
    }
    for name, of_table in variants.items():
        path = image_table.with_name(name)
        path.write_text("".join(f"{file},{label}\n" for file, label in [("image_id", "label"), *of_table]))
        data = load(path)
        assert data.fingerprint == expected.fingerprint
        assert data.names == expected.names


def test_load_reads_the_split_column_of_a_table(image_table):
    rows = list(csv.reader(image_table.open()))[1:]
    splits = ["test" if number % 5 == 0 else "train" for number in range(len(rows))]
    lines = [f"{file},{label},{split}\n" for (file, label), split in zip(rows, splits, strict=True)]
    image_table.write_text("".join(["file,label,subset\n", *lines]))
    data = load(image_table)
    assert data.test.tolist() == [number for number in range(30) if number % 5 == 0]
    assert data.columns == {"image": "file", "label": "label", "split": "subset"}


def test_load_finds_labels_in_file_names(make_folder, tmp_path):
    folder = make_folder()
    (tmp_path / "flat").mkdir()
    for path in folder.rglob("*.png"):
        path.rename(tmp_path / "flat" / f"{path.parent.name}_{path.name}")
    assert "label_pattern" in error_of(tmp_path / "flat")
    data = load(tmp_path / "flat", ImageReadOptions(label_pattern=r"([a-z]+)_\d"))
    assert data.classes == list(CLASSES)
    assert (data.labels == 0).sum() == 10
    assert data.summary()[0] == ("Data", f"{tmp_path / 'flat'} (labels in file names)")
    unlabeled = load(tmp_path / "flat", labeled=False)
    assert unlabeled.kind == "folder"
    assert dict(unlabeled.summary())["Classes"] == "none, the images are not labeled"
    assert load(make_folder("named")).kind == "class folders"


@pytest.mark.parametrize("absolute", [True, False])
def test_relative_names_are_the_cells_of_a_table_or_below_the_folder(make_folder, tmp_path, monkeypatch, absolute):
    monkeypatch.chdir(tmp_path)
    paths = sorted(make_folder("set/imgs").rglob("*.png"))
    cells = [str(path.relative_to(tmp_path / "set")) for path in paths]
    lines = [f"{cell},{path.parent.name}\n" for cell, path in zip(cells, paths, strict=True)]
    (tmp_path / "set" / "labels.csv").write_text("".join(["file,label\n", *lines]))
    root = tmp_path if absolute else Path()
    assert load(root / "set" / "labels.csv").relative_names() == cells
    assert load(root / "set").relative_names() == cells
    below = [cell.removeprefix("imgs/") for cell in cells]
    assert load(root / "set" / "imgs").relative_names() == below
    monkeypatch.chdir(tmp_path / "set")
    assert load(Path("labels.csv")).relative_names() == cells


def test_load_says_which_files_it_cannot_read(make_folder, tmp_path):
    for name in ("cat/1.heic", "dog/2.heic"):
        (tmp_path / "phone" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "phone" / name).touch()
    assert "2 files of types that cannot be read" in error_of(tmp_path / "phone")
    (tmp_path / "clips" / "cat").mkdir(parents=True)
    (tmp_path / "clips" / "cat" / "1.mp4").touch()
    assert "extract images from videos" in error_of(tmp_path / "clips")
    folder = make_folder()
    save_image(folder / "loose.png", toy_image(0, 900))
    assert any("1 images in no class folder are left out" in warning for warning in load(folder).warnings)
    assert "header has no effect on" in error_of(folder, ImageReadOptions(header=True))
    assert "encoding has no effect on" in error_of(folder, ImageReadOptions(encoding="cp1252"))
    pattern = ImageReadOptions(encoding="cp1252", label_pattern="(.)")
    assert error_of(folder, pattern).endswith("(folder): leave it out.")


def test_load_refuses_a_class_that_the_test_folders_lack(make_folder):
    make_folder("split/test", 3, classes=CLASSES[:2])
    message = error_of(make_folder("split/train", 6).parent)
    assert "'plain' has a folder in train but no images in test" in message
