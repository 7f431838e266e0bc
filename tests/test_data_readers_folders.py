"""Tests of the files of a data set: hidden ones, links of every kind, and special files."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import CLASSES, make_special, run_command, write_texts

from dltoolkit.data.image import dataset
from dltoolkit.data.image.listing import IMAGES
from dltoolkit.data.readers import folders, source, tables
from dltoolkit.data.readers.listing import from_folder
from dltoolkit.errors import UserError


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def names_of(folder: Path) -> list[str]:
    return [os.path.relpath(file.path, folder) for file in folders.list_files(folder)]


def list_images(folder: Path):
    return from_folder(source.resolve(str(folder)), IMAGES)


def test_list_files_skips_hidden_files_and_visits_loops_once(tmp_path):
    for name in ("b/2.txt", "a.txt", ".hidden", "__MACOSX/x", ".git/y"):
        touch(tmp_path / name)
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    (tmp_path / "b" / "self").symlink_to(".")
    (tmp_path / "endless.txt").symlink_to("endless.txt")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    assert names_of(tmp_path) == ["a.txt", "b/2.txt", "endless.txt", "gone.txt"]


def test_list_files_follows_links_to_files_and_folders_elsewhere(tmp_path):
    """A data set made of links is as good as one made of files."""
    for name in ("store/1.txt", "store/2.txt", "more/deep/3.txt"):
        touch(tmp_path / name)
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "one.txt").symlink_to(tmp_path / "store" / "1.txt")
    (folder / "again.txt").symlink_to(tmp_path / "store" / "1.txt")
    (folder / "all").symlink_to(tmp_path / "more")
    assert names_of(folder) == ["again.txt", "all/deep/3.txt", "one.txt"]


@pytest.mark.parametrize("target", ["..", "../..", "/", "sub/up"])
def test_list_files_refuses_a_link_to_a_folder_above(tmp_path, target):
    folder = tmp_path / "data" / "a"
    touch(folder / "sub" / "1.txt")
    (folder / "sub" / "up").symlink_to("../..")
    if target != "sub/up":
        (folder / "sub" / "up").unlink()
        (folder / "loop").symlink_to(target)
    with pytest.raises(UserError, match=f"is a link to a folder that contains {folder}: remove the link"):
        folders.list_files(folder)


@pytest.mark.parametrize(
    ("link", "target"),
    [
        (f"{CLASSES[0]}/loop", f"../{CLASSES[1]}"),
        (f"{CLASSES[2]}/loop", f"../{CLASSES[1]}"),
        (f"{CLASSES[0]}/loop", f"../{CLASSES[2]}"),
        (f"{CLASSES[0]}/loop", f"../{CLASSES[1]}/sub"),
        (f"{CLASSES[2]}/loop", f"../{CLASSES[1]}/sub"),
        ("more", CLASSES[1]),
        ("a", CLASSES[1]),
        ("a", "."),
    ],
)
def test_class_folders_share_no_folder_through_a_link(image_folder, link, target):
    (image_folder / CLASSES[1] / "sub").mkdir()
    (image_folder / CLASSES[1] / "000.png").rename(image_folder / CLASSES[1] / "sub" / "000.png")
    assert len(list_images(image_folder).items) == 30
    (image_folder / link).symlink_to(target)
    with pytest.raises(UserError, match="are the same folder.* would belong to two classes: remove the link"):
        list_images(image_folder)


def test_class_folders_of_two_classes_may_not_be_one_folder_elsewhere(image_folder, tmp_path):
    (tmp_path / "store").mkdir()
    for name in CLASSES[:2]:
        (image_folder / name / "link").symlink_to(tmp_path / "store")
    with pytest.raises(UserError, match="bars/link and .*dots/link are the same folder"):
        list_images(image_folder)


def test_class_folders_may_be_links_and_made_of_links(image_folder, tmp_path):
    original = list_images(image_folder)
    linked, of_links = tmp_path / "linked", tmp_path / "of-links"
    linked.mkdir()
    for name in CLASSES:
        (linked / name).symlink_to(image_folder / name)
        (of_links / name).mkdir(parents=True)
        for path in (image_folder / name).iterdir():
            (of_links / name / path.name).symlink_to(path)
    for folder in (linked, of_links):
        listing = list_images(folder)
        assert (listing.labels == original.labels).all()
        assert listing.classes == list(CLASSES)
        data = dataset.load(str(folder), cache_dir=tmp_path / "cache")
        assert len(np.unique(data.images.reshape(30, -1), axis=0)) == 30


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a socket"])
def test_special_files_in_class_folders_are_counted_bad_files(image_folder, tmp_path, capfd, isolated_cache, kind):
    make_special(image_folder / CLASSES[0] / "x.png", kind)
    code, _, err = run_command(capfd, "check-data", str(image_folder))
    assert code == 2
    assert err == (
        f"Error: 1 of 31 images cannot be used: {image_folder}/bars/x.png ({kind}, not a regular file). Correct or "
        "remove them, or skip them with --skip-invalid.\n"
    )
    code, out, _ = run_command(capfd, "check-data", str(image_folder), "--skip-invalid")
    assert code == 0
    assert "bars (10), dots (10), plain (10)" in out
    texts = write_texts(tmp_path / "texts", [("a" if i % 2 else "b", f"text number {i}") for i in range(30)])
    make_special(texts / "a" / "x.txt", kind)
    code, _, err = run_command(capfd, "check-data", str(texts))
    assert (code, f"x.txt ({kind}, not a regular file)" in err) == (2, True)


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a socket"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".json", ".csv.gz", ".parquet"])
def test_special_files_among_tables_are_named(tmp_path, kind, suffix):
    (tmp_path / f"train{suffix}").write_text("text,label\n")
    path = make_special(tmp_path / f"test{suffix}", kind)
    assert source.resolve(str(tmp_path)).splits["test"] == (path,)
    with pytest.raises(UserError, match=f"{path.name} cannot be read: {kind}, not a regular file"):
        tables.read_table(path)


def test_table_rows_that_name_special_files_are_counted_bad_files(image_table, capfd, isolated_cache):
    make_special(image_table.parent / "pipe.png", "a pipe")
    with open(image_table, "a") as file:
        file.write("pipe.png,bars\n/dev/zero,dots\n")
    code, _, err = run_command(capfd, "check-data", str(image_table))
    assert code == 2
    assert "pipe.png (a pipe, not a regular file), /dev/zero (a device, not a regular file)" in err


def test_data_are_opened_with_open_regular_only():
    """Any other way of opening a file could wait for a pipe, or read a device for ever."""
    opening = r"(?<![\w.])open\(|\.open\(\"r|\.read_(text|bytes)\(|np\.(load|fromfile)\(|(ZipFile|tarfile\.open)\(path"
    own_files = {"disk_cache.py", "tokenizers.py"}  # files of the cache and of temporary folders
    data = Path(dataset.__file__).parents[1]
    lines = [
        f"{path.name}: {line.strip()}"
        for path in sorted(data.rglob("*.py"))
        for line in path.read_text().splitlines()
        if path.name not in own_files and re.search(opening, line)
    ]
    assert [line for line in lines if "schema.read_text(" not in line and '"xb")' not in line] == []
