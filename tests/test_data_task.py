"""Detection of image and text classification from folders, tables and names."""

import pytest
from conftest import toy_texts, write_texts

from dltoolkit.data import task
from dltoolkit.data.readers import source


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("digits", "image"),
        ("keras:mnist", "image"),
        ("tfds:beans", "image"),
        ("reviews", "text"),
        ("python-docs", "text"),
        ("tfds:imdb_reviews", "text"),
    ],
)
def test_detect_recognizes_names(spec, expected):
    assert task.detect(source.resolve(spec)) == expected


@pytest.mark.parametrize(
    ("fixture", "expected"),
    [("image_folder", "image"), ("image_table", "image"), ("image_npz", "image"), ("text_table", "text")],
)
def test_detect_looks_into_files(request, fixture, expected):
    path = request.getfixturevalue(fixture)
    assert task.detect(source.resolve(str(path))) == expected


def test_detect_finds_images_named_without_a_suffix(image_table):
    text = image_table.read_text().replace(".png", "").replace("file,", "id,")
    image_table.write_text(text.replace("images/", "images\\"), encoding="utf-16")
    assert task.detect(source.resolve(str(image_table))) == "image"
    (image_table.parent / "texts.csv").write_text(text.replace("id,", "text,").replace("images/", "about "))
    assert task.detect(source.resolve(str(image_table.parent / "texts.csv"))) == "text"


def test_detect_finds_folders_of_texts(tmp_path):
    folder = write_texts(tmp_path / "texts", toy_texts(6))
    assert task.detect(source.resolve(str(folder))) == "text"
