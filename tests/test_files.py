"""Tests of reading regular files only: pipes, devices, sockets and links are refused at once."""

import pytest
from conftest import make_special

from dltoolkit import files
from dltoolkit.errors import UserError


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a socket"])
def test_open_regular_refuses_special_files(tmp_path, kind):
    path = make_special(tmp_path / "special", kind)
    assert files.special_kind(path) == kind
    with pytest.raises(files.NotRegularFile) as caught:
        files.open_regular(path)
    assert caught.value.strerror == f"{kind}, not a regular file"


def test_open_regular_reads_files_and_follows_links_unless_told_otherwise(tmp_path):
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_bytes(b"content")
    link.symlink_to(path)
    with files.open_regular(link) as file:
        assert file.read() == b"content"
    with pytest.raises(files.NotRegularFile, match="a symbolic link"):
        files.open_regular(link, follow_links=False)
    with files.open_regular(path, follow_links=False) as file:
        assert file.read() == b"content"
    with pytest.raises(IsADirectoryError):
        files.open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        files.open_regular(tmp_path / "nowhere")


def test_refuse_special_files_looks_at_every_depth(tmp_path):
    folder = tmp_path / "run"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "file").write_text("")
    files.refuse_special_files(folder)
    link = folder / "a" / "b" / "link"
    link.symlink_to(folder / "a" / "b" / "file")
    with pytest.raises(UserError, match=r"run/a/b/link is a symbolic link, and links inside .*/run are not followed"):
        files.refuse_special_files(folder)
    files.refuse_special_files(folder, link_targets=[folder])
    for name in ("elsewhere", "run2"):
        (tmp_path / name).write_text("")
    (folder / "elsewhere").symlink_to(tmp_path / "elsewhere")
    targets = (folder, tmp_path, tmp_path / "nowhere", tmp_path / "elsewhere", tmp_path / "run2", folder / "elsewhere")
    for target in targets:
        link.unlink()
        link.symlink_to(target)
        with pytest.raises(UserError, match="is a symbolic link"):
            files.refuse_special_files(folder / "a", link_targets=[folder])
    (folder / "elsewhere").unlink()
    link.unlink()
    make_special(link, "a pipe")
    with pytest.raises(UserError, match="link is a pipe, not a regular file: remove it"):
        files.refuse_special_files(folder)


def test_atomic_write_replaces_links_instead_of_following_them(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("plot.png", ".plot.png.partial"):
        (folder / name).symlink_to(victim)
    with files.atomic_write(folder / "plot.png") as partial:
        partial.write_text("new")
    assert victim.read_text() == "mine"
    assert [(path.name, path.is_symlink(), path.read_text()) for path in folder.iterdir()] == [
        ("plot.png", False, "new")
    ]


@pytest.mark.parametrize("name", ["n" * 300, "ü" * 200])
def test_new_folder_blames_the_name_that_is_too_long(tmp_path, name):
    message = f"A name of {len(name)} characters is too long: choose a shorter .*name"
    with pytest.raises(UserError, match=message), files.new_folder(tmp_path / "runs", name, "digits"):
        pass
    assert list((tmp_path / "runs").iterdir()) == []
    with pytest.raises(UserError, match="choose another .*out.dir"), files.new_folder(tmp_path / name, "a", "digits"):
        pass
