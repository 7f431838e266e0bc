"""Decoding of a listing: sizes, unreadable images and the cache on disk."""

import os
import platform
from pathlib import Path

import numpy as np
import pytest
from conftest import CLASSES, save_image, toy_image
from image_loading import error_of, load
from PIL import Image

from dltoolkit import memory
from dltoolkit.data import disk_cache
from dltoolkit.data.options import ImageReadOptions

pytestmark = pytest.mark.usefixtures("isolated_cache")
SKIP_INVALID = ImageReadOptions(skip_invalid=True)


def add_unreadable_files(folder: Path) -> list[str]:
    """Add five unreadable files to the first class, and return their names."""
    (folder / CLASSES[0] / "text.jpg").write_text("this is not an image")
    (folder / CLASSES[0] / "void.png").touch()
    complete = save_image(folder / "complete.jpg", toy_image(0, 999, side=64))
    (folder / CLASSES[0] / "half.jpg").write_bytes(complete.read_bytes()[:500])
    complete.unlink()
    (folder / CLASSES[0] / "gone.gif").symlink_to(folder / "nowhere")
    (folder / CLASSES[0] / "noise.tif").write_bytes(bytes(range(200)))
    return ["text.jpg", "void.png", "half.jpg", "gone.gif", "noise.tif"]


def test_load_uses_one_channel_if_all_images_are_grayscale(make_folder):
    folder = make_folder(channels=1)
    assert load(folder).image_shape == (16, 16, 1)
    save_image(folder / CLASSES[2] / "zz.png", toy_image(0, 99))  # the last image has color
    assert load(folder).image_shape == (16, 16, 3)


def test_load_resizes_images_of_several_sizes(make_folder):
    folder = make_folder(side=20)
    assert load(folder).image_shape == (20, 20, 3)
    assert load(folder, image_size=12).image_shape == (12, 12, 3)
    save_image(folder / CLASSES[2] / "zz.png", toy_image(2, 99, side=40)[:, :30])
    data = load(folder)
    assert data.image_shape == (24, 24, 3)
    assert len(data.images) == 31
    assert data.images[-1].std() > 0


def test_load_names_unreadable_images_and_skips_them_on_request(image_folder):
    names = add_unreadable_files(image_folder)
    message = error_of(image_folder)
    assert message.startswith("5 of 35 images cannot be used")
    assert "skip_invalid" in message
    for name, reason in zip(names, ["not an image", "empty file", "truncated", "no such file", ""], strict=True):
        assert f"{name} ({reason}" in message
    data = load(image_folder, SKIP_INVALID)
    assert len(data.images) == len(data.labels) == len(data.names) == 30
    assert "5 images are unusable and skipped" in data.warnings[0]
    assert {Path(name).name for name, _ in data.findings} == set(names)
    for row in range(30):
        assert (data.images[row] == np.asarray(Image.open(data.names[row]))).all()


def test_load_says_that_only_the_first_frame_is_used(make_folder):
    folder = make_folder(side=20)
    frames = [Image.fromarray(toy_image(label, 99, side=20)) for label in range(3)]
    frames[0].save(folder / CLASSES[0] / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(folder / CLASSES[1] / "pages.tif", save_all=True, append_images=frames[1:])
    data = load(folder)
    moving = (
        f"2 images have several frames or pages, such as {folder / CLASSES[0] / 'moving.gif'}; only the first is used."
    )
    assert moving in data.warnings
    pages = data.names.index(str(folder / CLASSES[1] / "pages.tif"))
    assert (data.images[pages] == np.asarray(frames[0])).all()


def test_load_takes_the_photograph_of_a_camera_file_with_a_preview(make_folder):
    folder = make_folder(side=20)
    photograph, preview = (Image.fromarray(toy_image(label, 99, side=20)) for label in (0, 2))
    photograph.save(folder / CLASSES[0] / "camera.jpg", "MPO", save_all=True, append_images=[preview])
    assert load(folder).warnings == []


def test_load_lists_many_unreadable_images_in_a_file(image_folder, isolated_cache):
    for i in range(7):
        (image_folder / CLASSES[1] / f"bad{i}.png").touch()
    message = error_of(image_folder)
    assert message.count("empty file") == 5
    listed = next(isolated_cache.glob("*-unreadable.txt"))
    assert str(listed) in message
    assert len(listed.read_text().splitlines()) == 7


def test_load_refuses_classes_that_skipping_makes_too_small(make_folder):
    folder = make_folder("toys", [5, 3, 5])
    (folder / CLASSES[1] / "000.png").write_bytes(b"")
    assert "'dots' has only 2 images" in error_of(folder, SKIP_INVALID)
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    assert error_of(folder, SKIP_INVALID).startswith("None of the 13 images can be used")


def test_load_caches_images_on_disk_that_do_not_fit_in_memory(make_folder, isolated_cache, monkeypatch):
    folder = make_folder()
    add_unreadable_files(folder)
    expected = load(folder, SKIP_INVALID)
    assert not list(isolated_cache.glob("*.array"))
    monkeypatch.setattr(memory, "limit", lambda: 1000)
    data = load(folder, SKIP_INVALID)
    assert isinstance(data.images, np.memmap)
    assert (data.images == expected.images).all()
    assert data.fingerprint == expected.fingerprint
    assert sorted(path.suffix for path in isolated_cache.iterdir()) == [".array", ".json"]

    written = next(isolated_cache.glob("*.array"))
    stamp = written.stat().st_mtime_ns
    again = load(folder, SKIP_INVALID)
    assert (again.images == expected.images).all()
    assert (again.fingerprint, again.test.tolist()) == (expected.fingerprint, expected.test.tolist())
    assert again.warnings == data.warnings
    assert written.stat().st_mtime_ns == stamp  # read from the cache, not written again
    assert "5 of 35" in error_of(folder)

    path = folder / CLASSES[0] / "000.png"
    save_image(path, 255 - np.asarray(Image.open(path)))
    changed = load(folder, SKIP_INVALID)
    assert (changed.images[0] == 255 - expected.images[0]).all()
    assert (changed.images[1:] == expected.images[1:]).all()
    assert not list(isolated_cache.glob("*unfinished*"))


def test_load_leaves_no_files_on_a_full_disk(make_folder, isolated_cache, monkeypatch):
    import resource

    folder = make_folder()
    monkeypatch.setattr(memory, "limit", lambda: 1000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))  # no file may grow larger than this
    try:
        message = error_of(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "XDG_CACHE_HOME" in message
    assert not list(isolated_cache.iterdir())


def test_cache_reserves_disk_space_and_frees_it_after_a_failure(make_folder, isolated_cache, monkeypatch):
    file = disk_cache.DiskCache(isolated_cache, "a")
    file.create((1000, 32, 32, 1), "decoded images")
    assert next(isolated_cache.iterdir()).stat().st_blocks * 512 >= 1000 * 32 * 32
    file.discard()
    monkeypatch.setattr(memory, "limit", lambda: 1000)
    folder = make_folder()
    (folder / CLASSES[0] / "void.png").touch()
    error_of(folder)
    assert not list(isolated_cache.iterdir())


def test_load_reads_a_repaired_image_again(make_folder, isolated_cache, monkeypatch):
    monkeypatch.setattr(memory, "limit", lambda: 1000)
    folder = make_folder()
    path = folder / CLASSES[0] / "000.png"
    content, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.write_bytes(b"x" * len(content))
    os.utime(path, ns=times)
    assert len(load(folder, SKIP_INVALID).images) == 29
    path.write_bytes(content)
    os.utime(path, ns=times)
    assert len(load(folder).images) == 30


def test_load_names_images_without_read_permission(make_folder, request):
    folder = make_folder()
    path = folder / CLASSES[0] / "000.png"
    path.chmod(0)
    request.getfixturevalue("unprivileged_user")
    message = error_of(folder)
    assert f"1 of 30 images cannot be used: {path}" in message
    assert "ermission" in message
    assert len(load(folder, SKIP_INVALID).images) == 29


def test_cache_removes_images_that_were_not_used_for_a_month(make_folder, isolated_cache, monkeypatch):
    monkeypatch.setattr(memory, "limit", lambda: 1000)
    old, used, new = make_folder("old"), make_folder("used"), make_folder("new")
    load(old), load(used)
    for metadata in isolated_cache.glob("*.json"):
        os.utime(metadata, (0, 0))
    load(used)
    load(new)
    assert sorted(path.name.partition("-")[0] for path in isolated_cache.iterdir()) == ["new", "new", "used", "used"]


def test_cache_removes_files_of_killed_processes(make_folder, isolated_cache, monkeypatch):
    isolated_cache.mkdir()
    (isolated_cache / f"toys-1234.unfinished-{platform.node()}-999999999-0a1b").touch()
    monkeypatch.setattr(memory, "limit", lambda: 1000)
    load(make_folder())
    assert not list(isolated_cache.glob("*unfinished*"))
