"""Resolution of --data: names, files, folder layouts, and the messages for wrong values."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make_special

from dltoolkit.data.readers import source
from dltoolkit.errors import UserError


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.mark.parametrize(
    ("spec", "kind", "name"),
    [
        ("digits", "bundled", "digits"),
        ("keras:fashion_mnist", "keras", "fashion_mnist"),
        ("fashion_mnist", "tfds", "fashion_mnist"),
        ("beans", "tfds", "beans"),
        ("tfds:mnist_corrupted/spatter", "tfds", "mnist_corrupted-spatter"),
    ],
)
def test_resolve_finds_names(spec, kind, name):
    result = source.resolve(spec)
    assert (result.spec, result.kind, result.name) == (spec, kind, name)


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
def test_resolve_finds_files(tmp_path, file, kind):
    result = source.resolve(str(touch(tmp_path / file)))
    assert (result.kind, result.name, result.path) == (kind, "a", tmp_path / file)


def test_resolve_prefers_paths_to_names(tmp_path, monkeypatch):
    touch(tmp_path / "digits" / "one" / "1.png")
    monkeypatch.chdir(tmp_path)
    assert source.resolve("digits").kind == "folder"
    assert source.resolve(f"~/{os.path.relpath(tmp_path, Path.home())}").kind == "folder"


def test_resolve_finds_no_splits_in_class_folders(tmp_path):
    for name in ("bus", "car", "train"):  # a class may be called train
        touch(tmp_path / name / "1.jpg")
    assert source.resolve(str(tmp_path)).splits == {}


@pytest.mark.parametrize("validation", ["validation", "val", "valid", "dev", "Val"])
def test_resolve_finds_split_folders(tmp_path, validation):
    for name in ("train", validation, "test"):
        touch(tmp_path / name / "cat" / "1.jpg")
    splits = source.resolve(str(tmp_path)).splits
    assert list(splits) == ["train", "validation", "test"]
    assert splits["validation"] == (tmp_path / validation,)


def test_resolve_ignores_other_folders_with_a_warning(tmp_path):
    touch(tmp_path / "train" / "cat" / "1.jpg")
    touch(tmp_path / "test" / "unlabeled.jpg")
    touch(tmp_path / "annotations" / "a.xml")
    result = source.resolve(str(tmp_path))
    assert list(result.splits) == ["train"]
    assert "ignored: annotations, test." in result.warnings[0]


def test_resolve_finds_folders_called_training_set(tmp_path):
    for name in ("training_set/cat/1.jpg", "Test-Set/dog/1.jpg", "valset/cat/1.jpg"):
        touch(tmp_path / name)
    assert list(source.resolve(str(tmp_path)).splits) == ["train", "validation", "test"]
    assert source.split_name("set") is None


def test_resolve_finds_tables_named_by_split(tmp_path):
    for name in ("train-00000-of-00002.csv", "train-00001-of-00002.csv", "dev.csv", "README.md"):
        touch(tmp_path / name)
    result = source.resolve(str(tmp_path))
    assert result.kind == "table"
    assert {split: [path.name for path in paths] for split, paths in result.splits.items()} == {
        "train": ["train-00000-of-00002.csv", "train-00001-of-00002.csv"],
        "validation": ["dev.csv"],
    }


def test_resolve_prefers_class_folders_to_tables(tmp_path):
    for name in ("train/cat/1.jpg", "test/cat/1.jpg", "train.csv", "test.csv"):
        touch(tmp_path / name)
    assert source.resolve(str(tmp_path)).kind == "folder"


def test_resolve_finds_one_table_next_to_a_folder_of_images(tmp_path):
    touch(tmp_path / "images" / "1.jpg")
    assert source.resolve(str(tmp_path)).kind == "folder"
    touch(tmp_path / "labels.csv")
    assert source.resolve(str(tmp_path)).path == tmp_path / "labels.csv"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("digitz", ["'digits'", "folder of class folders", "keras:NAME"]),
        ("fashion_mnits", ["'fashion_mnist'"]),
        ("keras:minst", ["'mnist'", "cifar100"]),
        ("./nothing", ["No such file or folder", "./nothing"]),
        ("~/no/such/place", ["No such file or folder"]),
        ("nothing.csv", ["No such file or folder"]),
        ("", ["data takes"]),
        ("a\0b", ["data takes"]),
    ],
)
def test_resolve_refuses_wrong_names(spec, words):
    with pytest.raises(UserError) as caught:
        source.resolve(spec)
    for word in words:
        assert word in str(caught.value)


def test_resolve_suggests_a_similar_path(tmp_path):
    (tmp_path / "flowers").mkdir()
    with pytest.raises(UserError, match="Did you mean 'flowers'"):
        source.resolve(str(tmp_path / "flower"))


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ([], "is empty"),
        ([".DS_Store"], "is empty"),
        (["test/cat/1.jpg", "val/cat/1.jpg"], "a folder for validation and test but none for train"),
        (["train/cat/1.jpg", "val/cat/1.jpg", "valid/cat/1.jpg"], "two folders for validation"),
        (["test.csv"], "a table for test but none for train"),
        (["train.csv", "test.jsonl"], "several types"),
    ],
)
def test_resolve_refuses_wrong_layouts(tmp_path, paths, words):
    for path in paths:
        touch(tmp_path / path)
    with pytest.raises(UserError, match=words):
        source.resolve(str(tmp_path))


def test_resolve_refuses_a_single_image(tmp_path):
    with pytest.raises(UserError, match="cannot be trained on"):
        source.resolve(str(touch(tmp_path / "cat.jpg")))


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a socket"])
@pytest.mark.parametrize("name", ["data", "data.csv", "data.npz", "data.txt", "data.zip", "data.jsonl.gz"])
def test_resolve_refuses_special_files_at_once(tmp_path, kind, name):
    path = make_special(tmp_path / name, kind)
    with pytest.raises(UserError, match=f"{name} is {kind}, not a regular file: store the data in a file or folder"):
        source.resolve(str(path))


@pytest.mark.parametrize("spec", ["./nothing", "digitz"])
def test_resolve_imports_no_tensorflow(spec):
    code = (
        "import sys\nfrom dltoolkit.data.readers import source\n"
        f"try: source.resolve({spec!r})\n"
        "except source.UserError: print(sorted({'numpy', 'tensorflow', 'tensorflow_datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # TFDS lists the names that a misspelled name is compared with; it imports NumPy
    assert done.stdout.strip() == str(["numpy", "tensorflow_datasets"] if spec == "digitz" else [])


def test_sort_classes_sorts_integers_by_value():
    assert source.sort_classes({"10", "9", "1"}) == ["1", "9", "10"]
    assert source.sort_classes({"10", "9", "a"}) == ["10", "9", "a"]


def test_same_examples_compares_paths_and_references(tmp_path):
    path = str(touch(tmp_path / "cat" / "1.jpg").parents[1])
    assert source.same_examples(path, f"{path}/")
    assert source.same_examples("tfds:beans", "beans")
    assert not source.same_examples("digits", "reviews")


def test_resolve_finds_folders_of_hugging_face(tmp_path):
    """The layout of the Hub, of its converted files, and of save_to_disk."""
    hub = tmp_path / "hub"
    for name in ("README.md", "data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"):
        touch(hub / name)
    result = source.resolve(str(hub))
    assert (result.kind, result.name, list(result.splits)) == ("table", "hub", ["train", "test"])
    touch(hub / "data/unsupervised-00000-of-00001.parquet")
    assert source.resolve(str(hub)).warnings[0].endswith("are ignored: unsupervised-00000-of-00001.parquet.")
    for split in ("train", "validation"):
        touch(tmp_path / "converted" / split / "0000.parquet")
    result = source.resolve(str(tmp_path / "converted"))
    assert result.splits["validation"] == (tmp_path / "converted" / "validation" / "0000.parquet",)
    for name in ("train/data-00000-of-00002.arrow", "train/data-00001-of-00002.arrow", "train/cache-1.arrow"):
        touch(tmp_path / "saved" / name)
    for name in ("dataset_dict.json", "unsupervised/data-00000-of-00001.arrow", "test/data-00000-of-00001.arrow"):
        touch(tmp_path / "saved" / name)
    result = source.resolve(str(tmp_path / "saved"))
    assert [path.name for path in result.splits["train"]] == [f"data-0000{i}-of-00002.arrow" for i in range(2)]
    assert list(result.splits) == ["train", "test"]
    assert "ignored: unsupervised" in result.warnings[0]
    for name in ("state.json", "data-00000-of-00002.arrow", "data-00001-of-00002.arrow"):
        touch(tmp_path / "single" / name)
    assert {split: len(paths) for split, paths in source.resolve(str(tmp_path / "single")).splits.items()} == {"": 2}
    for config in ("en", "fr"):
        touch(tmp_path / "configs" / config / "train-00000-of-00001.parquet")
    with pytest.raises(UserError, match=r"several data sets \(en, fr\)"):
        source.resolve(str(tmp_path / "configs"))


def test_resolve_finds_fasttext_files_by_their_content(tmp_path):
    (tmp_path / "cooking.train").write_text("__label__sauce how much salt\n")
    assert source.resolve(str(tmp_path / "cooking.train")).kind == "table"
    for split in ("train", "test"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "folder" / f"{split}.txt").write_text("__label__sauce how much salt\n")
    assert list(source.resolve(str(tmp_path / "folder")).splits) == ["train", "test"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("https://example.com/flowers.zip", "is a URL: download it"),
        ("clip.mp4", "is a video: extract images"),
        ("photo.HEIC", "convert it to JPEG"),
        ("table.xls", "save it as .xlsx or .csv"),
        ("data.rar", "pack it as .zip"),
        ("model.pkl", "may contain code"),
    ],
)
def test_resolve_says_what_to_do_with_other_data(tmp_path, name, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "://" not in name:
        touch(tmp_path / name)
    with pytest.raises(UserError, match=words):
        source.resolve(name)
