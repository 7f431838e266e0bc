"""Archives of folders: unpacked once and safely."""

import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import pytest
from conftest import toy_texts, write_texts

from dltoolkit.data.options import TextReadOptions
from dltoolkit.data.readers import archives, bounded, folders, source, tables
from dltoolkit.data.text.listing import list_texts
from dltoolkit.errors import UserError

pytestmark = pytest.mark.usefixtures("isolated_cache")


def make_tar(path: Path, *members: tarfile.TarInfo, content: bytes = b"") -> Path:
    with tarfile.open(path, "w") as archive:
        for member in members:
            member.size = len(content) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz"])
def test_resolve_unpacks_an_archive_of_a_folder_once(tmp_path, suffix, isolated_cache):
    write_texts(tmp_path / "reviews", toy_texts(6))
    path = tmp_path / f"my.{suffix}"
    if suffix == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted((tmp_path / "reviews").rglob("*.txt")):
                archive.write(file, file.relative_to(tmp_path))
    else:
        with tarfile.open(path, f"w:{suffix.partition('.')[2]}") as archive:
            archive.add(tmp_path / "reviews", "reviews")
    first = source.resolve(str(path))
    assert (first.kind, first.name, first.spec, first.path.name) == ("folder", "my", str(path), "reviews")
    assert [folder.name for folder in folders.subfolders(first.path)] == ["bad", "good"]
    assert (first.path / "good" / "001.txt").read_text() == toy_texts(6)[1][1]
    before = (first.path / "good" / "001.txt").stat().st_ino
    assert source.resolve(str(path)) == first
    assert (first.path / "good" / "001.txt").stat().st_ino == before
    assert len(list((isolated_cache / "archives").iterdir())) == 1


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "C:\\evil.txt", "a\\..\\..\\e.txt"])
def test_unpack_writes_nothing_outside_of_its_folder(tmp_path, name):
    path = make_tar(tmp_path / "a.tar", member("good/1.txt"), member(name), content=b"text")
    with pytest.raises(UserError, match="outside of the folder"):
        archives.unpack(path, tmp_path / "cache")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(name.replace("\\", "/")), "text")
    with pytest.raises(UserError, match="outside of the folder"):
        archives.unpack(tmp_path / "a.zip", tmp_path / "cache")
    assert not [file for file in tmp_path.rglob("*") if file.name.endswith(".txt")]


def test_unpack_refuses_links_and_devices(tmp_path):
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        path = make_tar(tmp_path / "a.tar", member("good/1.txt", kind, "/etc/passwd"))
        with pytest.raises(UserError, match="a link or no regular file"):
            archives.unpack(path, tmp_path / "cache")
    link = zipfile.ZipInfo("good/link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="a link or no regular file"):
        archives.unpack(tmp_path / "a.zip", tmp_path / "cache")
    assert not any((tmp_path / "cache" / "archives").iterdir())


def test_unpack_bounds_what_it_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(bounded, "MIN_LIMIT", 10_000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good/1.txt", bytes(20_000_000))
    with pytest.raises(UserError, match="more than 200 times as large"):
        archives.unpack(tmp_path / "a.zip", tmp_path / "cache")
    monkeypatch.setattr(archives, "MIN_FILES", 2)
    monkeypatch.setattr(archives, "MIN_ENTRY_BYTES", 10_000)
    for kind in (tarfile.REGTYPE, tarfile.DIRTYPE):
        many = make_tar(tmp_path / "many.tar", *(member(f"good/{number}", kind) for number in range(300)))
        with pytest.raises(UserError, match=r"more than \d+ entries"):
            archives.unpack(many, tmp_path / "cache")
    assert not any((tmp_path / "cache" / "archives").iterdir())


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_unpack_reads_no_header_of_many_bytes(tmp_path, kind):
    header = tarfile.TarInfo("././@LongLink")
    header.size, header.type = 90_000_000, kind
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT) + bytes(3_000_000))
    with pytest.raises(UserError, match="an entry with a harmful header"):
        archives.unpack(tmp_path / "a.tar.gz", tmp_path / "cache")


def test_unpack_takes_no_memory_that_an_xz_file_asks_for(tmp_path):
    content = make_tar(tmp_path / "a.tar", member("good/1.txt"), content=b"fine").read_bytes()
    for name, dictionary in (("a.tar.xz", 1 << 20), ("b.tar.xz", 1536 << 20)):
        filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": dictionary}]
        (tmp_path / name).write_bytes(lzma.compress(content, filters=filters))
    assert (archives.unpack(tmp_path / "a.tar.xz", tmp_path / "cache") / "good" / "1.txt").read_bytes() == b"fine"
    with pytest.raises(UserError, match="Memory usage limit"):
        archives.unpack(tmp_path / "b.tar.xz", tmp_path / "cache")


def test_a_compressed_text_is_read_up_to_its_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(bounded, "MIN_LIMIT", 10_000)
    with gzip.open(tmp_path / "a.csv.gz", "wt") as file:
        file.write("text,label\n" + "good day,pos\n" * 300_000)
    with pytest.raises(UserError, match=r"a.csv.gz is more than 200 times as large unpacked"):
        tables.read_table(tmp_path / "a.csv.gz")


def test_unpack_names_damaged_archives(tmp_path):
    write_texts(tmp_path / "reviews", toy_texts(6))
    with tarfile.open(tmp_path / "whole.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "reviews", "reviews")
    for name in ("a.zip", "a.tar", "a.tar.gz"):
        (tmp_path / name).write_bytes((tmp_path / "whole.tar.gz").read_bytes()[:100])
        with pytest.raises(UserError, match="cannot be unpacked"):
            archives.unpack(tmp_path / name, tmp_path / "cache")


def test_messages_name_the_archive_instead_of_the_cache(tmp_path):
    def message(name: str, **entries: str) -> str:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for entry, content in entries.items():
                archive.writestr(entry, content)
        with pytest.raises(UserError) as caught:
            list_texts(source.resolve(str(tmp_path / name)), TextReadOptions())
        return str(caught.value)

    path = tmp_path / "nested.zip"
    expected = f"{path} has no class folders, but another archive, {path}/inner.tar.gz: unpack it, or give it as data."
    assert message(path.name, **{"inner.tar.gz": "", "read.me": ""}) == expected
    table = message("table.zip", **{"train.csv": "text,label\ngood\n"})
    assert table.startswith(f"Line 2 of {tmp_path / 'table.zip'}/train.csv has 1 cell")
    assert message("nothing.zip").startswith(f"The archive {tmp_path / 'nothing.zip'} is empty: ")
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(5):
            archive.writestr(f"reviews/{number % 2}/{number}.txt", "text")
        archive.writestr("reviews/loose.txt", "text")
    listing = list_texts(source.resolve(str(path)), TextReadOptions())
    assert listing.warnings == [f"1 texts in no class folder are left out, such as {path}/reviews/loose.txt."]
    assert all(Path(name).is_file() for name in listing.names)


def test_unpack_says_that_an_archive_is_encrypted(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good/1.txt", "text")
    content = bytearray(path.read_bytes())
    content[6] |= archives.ENCRYPTED  # the flags in the header of the file and in the directory of the archive
    content[content.index(b"PK\x01\x02") + 8] |= archives.ENCRYPTED
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        archives.unpack(path, tmp_path / "cache")
    assert str(caught.value) == f"{path} is encrypted: unpack it first, and give data the folder."


def test_unpack_uses_a_temporary_folder_if_the_cache_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    archive = make_tar(tmp_path / "a.tar", member("good/1.txt"), content=b"fine")
    target = archives.unpack(archive, tmp_path / "file" / "cache")
    assert (target / "good" / "1.txt").read_bytes() == b"fine"
    assert archives.unpack(archive, tmp_path / "file" / "cache") == target
