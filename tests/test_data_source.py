"""What --data means, and how wrong values are answered."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dltoolkit.data.readers import source
from dltoolkit.errors import UserError


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.mark.parametrize(
    ("said", "kind", "name"),
    [
        ("digits", "bundled", "digits"),
        ("keras:fashion_mnist", "keras", "fashion_mnist"),
        ("fashion_mnist", "tfds", "fashion_mnist"),
        ("beans", "tfds", "beans"),
        ("tfds:mnist_corrupted/spatter", "tfds", "mnist_corrupted-spatter"),
    ],
)
def test_names(said, kind, name):
    found = source.resolve(said)
    assert (found.said, found.kind, found.name) == (said, kind, name)


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("a.csv", "table"),
        ("a.TSV", "table"),
        ("a.jsonl", "table"),
        ("a.parquet", "table"),
        ("a.npz", "npz"),
        ("a.txt", "text"),
    ],
)
def test_files(tmp_path, file, kind):
    found = source.resolve(str(touch(tmp_path / file)))
    assert (found.kind, found.name, found.path) == (kind, "a", tmp_path / file)


def test_an_existing_path_comes_before_a_name(tmp_path, monkeypatch):
    touch(tmp_path / "digits" / "one" / "1.png")
    monkeypatch.chdir(tmp_path)
    assert source.resolve("digits").kind == "folder"
    assert source.resolve(f"~/{os.path.relpath(tmp_path, Path.home())}").kind == "folder"


def test_plain_class_folders_bring_no_splits(tmp_path):
    for name in ("bus", "car", "train"):  # a class may be called train
        touch(tmp_path / name / "1.jpg")
    assert source.resolve(str(tmp_path)).parts == {}


@pytest.mark.parametrize("validation", ["validation", "val", "valid", "dev", "Val"])
def test_split_folders(tmp_path, validation):
    for name in ("train", validation, "test"):
        touch(tmp_path / name / "cat" / "1.jpg")
    found = source.resolve(str(tmp_path))
    assert list(found.parts) == ["train", "validation", "test"]
    assert found.parts["validation"] == (tmp_path / validation,)


def test_folders_beside_the_splits_are_left_aside_with_a_word(tmp_path):
    touch(tmp_path / "train" / "cat" / "1.jpg")
    touch(tmp_path / "test" / "unlabelled.jpg")
    touch(tmp_path / "annotations" / "a.xml")
    found = source.resolve(str(tmp_path))
    assert list(found.parts) == ["train"]
    assert "annotations, test" in found.warnings[0]


def test_tables_named_by_split(tmp_path):
    for name in ("train-00000-of-00002.csv", "train-00001-of-00002.csv", "dev.csv", "README.md"):
        touch(tmp_path / name)
    found = source.resolve(str(tmp_path))
    assert found.kind == "table"
    assert {part: [path.name for path in paths] for part, paths in found.parts.items()} == {
        "train": ["train-00000-of-00002.csv", "train-00001-of-00002.csv"],
        "validation": ["dev.csv"],
    }


def test_class_folders_come_before_tables_that_list_them(tmp_path):
    for name in ("train/cat/1.jpg", "test/cat/1.jpg", "train.csv", "test.csv"):
        touch(tmp_path / name)
    assert source.resolve(str(tmp_path)).kind == "folder"


def test_one_table_beside_its_pictures(tmp_path):
    touch(tmp_path / "pictures" / "1.jpg")
    assert source.resolve(str(tmp_path)).kind == "folder"
    touch(tmp_path / "labels.csv")
    assert source.resolve(str(tmp_path)).path == tmp_path / "labels.csv"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("digitz", ["'digits'", "folder of class folders", "keras:NAME"]),
        ("fashion_mnits", ["'fashion_mnist'"]),
        ("keras:minst", ["'mnist'", "cifar100"]),
        ("./nothing", ["no such file or folder", "./nothing"]),
        ("~/no/such/place", ["no such file or folder"]),
        ("nothing.csv", ["no such file or folder"]),
        ("", ["--data takes"]),
        ("a\0b", ["--data takes"]),
    ],
)
def test_wrong_names(said, words):
    with pytest.raises(UserError) as caught:
        source.resolve(said)
    for word in words:
        assert word in str(caught.value)


def test_a_mistyped_path_is_answered_with_its_neighbour(tmp_path):
    (tmp_path / "flowers").mkdir()
    with pytest.raises(UserError, match="Did you mean 'flowers'"):
        source.resolve(str(tmp_path / "flower"))


def test_wrong_layouts(tmp_path):
    def refused(*paths: str) -> str:
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        root.mkdir()
        for path in paths:
            touch(root / path)
        with pytest.raises(UserError) as caught:
            source.resolve(str(root))
        return str(caught.value)

    assert "is empty" in refused()
    assert "is empty" in refused(".DS_Store")
    assert "none for train" in refused("test/cat/1.jpg", "val/cat/1.jpg")
    assert "two folders for validation" in refused("train/cat/1.jpg", "val/cat/1.jpg", "valid/cat/1.jpg")
    assert "none named train" in refused("test.csv")
    assert "several types" in refused("train.csv", "test.jsonl")
    with pytest.raises(UserError, match="cannot be trained on"):
        source.resolve(str(touch(tmp_path / "cat.jpg")))


def test_files_skips_hidden_ones_and_survives_a_loop(tmp_path):
    for name in ("b/2.txt", "a.txt", ".hidden", "__MACOSX/x", ".git/y"):
        touch(tmp_path / name)
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    assert [os.path.relpath(file.path, tmp_path) for file in source.files(tmp_path)] == ["a.txt", "b/2.txt", "gone.txt"]


def test_classes_that_are_numbers_are_sorted_as_numbers():
    assert source.classes_in_order({"10", "9", "1"}) == ["1", "9", "10"]
    assert source.classes_in_order({"10", "9", "a"}) == ["10", "9", "a"]


@pytest.mark.parametrize("said", ["./nothing", "digitz"])
def test_no_tensorflow_is_imported_for_an_answer(said):
    code = (
        "import sys\nfrom dltoolkit.data import source\n"
        f"try: source.resolve({said!r})\n"
        "except source.UserError: print(sorted({'numpy', 'tensorflow', 'tensorflow_datasets'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
