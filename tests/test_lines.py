"""Lines of a stream: yielded as they arrive, in bounded memory, and an unreadable line does not affect the others."""

import os

import pytest

from dltoolkit import lines
from dltoolkit.errors import InvalidInput, UserError


def read_all(raw: bytes, tmp_path, **options) -> list:
    (tmp_path / "stream").write_bytes(raw)
    descriptor = os.open(tmp_path / "stream", os.O_RDONLY)
    try:
        return [line for line in lines.read_lines(descriptor, **options) if line is not None]
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("raw", [b"a\nb\n", b"a\r\nb", b"\xef\xbb\xbfa\nb\n"])
def test_read_lines_removes_line_ends_and_byte_order_marks(raw, tmp_path):
    assert read_all(raw, tmp_path) == ["a", "b"]


def test_read_lines_yields_empty_lines(tmp_path):
    assert read_all(b"a\n\n\nb\n", tmp_path) == ["a", "", "", "b"]


def test_read_lines_gives_up_a_line_without_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 10_000)
    monkeypatch.setattr(lines, "MAX_ENDLESS_BYTES", 1_000_000)
    long = b"\0" * 900_000 + b"\n"
    assert [line for line in read_all(long * 3 + b"last", tmp_path) if not isinstance(line, InvalidInput)] == ["last"]
    descriptor = os.open("/dev/zero", os.O_RDONLY)
    with pytest.raises(UserError, match="Line 1 of stdin has more than 1 MB: end it"):
        list(lines.read_lines(descriptor))
    os.close(descriptor)


def test_read_lines_reports_a_line_that_is_not_utf8(tmp_path):
    first, invalid, last = read_all("naïve\nna".encode() + b"\xefve\nlast", tmp_path)
    assert (first, last) == ("naïve", "last")
    assert isinstance(invalid, InvalidInput)
    assert invalid.error == "line 2: not UTF-8 (byte 0xef at position 3)"
    assert invalid.input.startswith("na")


def test_read_lines_decodes_characters_that_are_cut_between_reads(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "CHUNK_BYTES", 3)
    assert read_all("naïve\n日本\nend".encode("utf-16"), tmp_path, encoding="utf-16") == ["naïve", "日本", "end"]


def test_read_lines_reports_a_line_in_another_encoding(tmp_path):
    invalid, last = read_all(b"na\x81ve\nna\xefve", tmp_path, encoding="cp1252")
    assert invalid.error == "line 1: not cp1252 (byte 0x81 at position 3)"
    assert last == "naïve"


@pytest.mark.parametrize("end", [b"\nlast\n", b"\nlast", b""])
def test_read_lines_skips_a_line_without_end(end, tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 1000)
    monkeypatch.setattr(lines, "CHUNK_BYTES", 300)
    first, endless, *rest = read_all(b"first\n" + b"x" * 5000 + end, tmp_path)
    assert first == "first"
    assert endless.error.startswith("line 2: longer than")
    assert len(endless.input) < 100
    assert rest == (["last"] if end else [])


def test_read_lines_yields_lines_before_the_stream_ends():
    out, into = os.pipe()
    os.write(into, b"one\ntwo\nthr")
    stream = lines.read_lines(out)
    assert [next(stream) for _ in range(3)] == ["one", "two", None], "None: the next line has not arrived yet"
    os.write(into, b"ee\n")
    os.close(into)
    assert list(stream) == ["three", None]
    os.close(out)


def test_read_lines_divides_at_line_feeds_only(tmp_path):
    raw = "a b\r\nc\u2028d\ne\x0bf\x85 x\n\ng \x1c h\ni".encode()
    assert read_all(raw, tmp_path) == ["a b", "c\u2028d", "e\x0bf\x85 x", "", "g \x1c h", "i"]


def test_read_lines_keeps_ends_and_bytes_of_raw_lines(tmp_path):
    (tmp_path / "stream").write_bytes(b"a\r\nna\xefve\nlast")
    with open(tmp_path / "stream", "rb") as file:
        raw_lines = [line for line in lines.read_lines(file.fileno(), raw=True) if line is not None]
    assert raw_lines == ["a\r\n", "na\udcefve\n", "last"]


def test_read_image_tells_images_from_lines(tmp_path):
    for content, is_image in ((b"\x89PNG\r\n\x1a\n...", True), (b"a.png\nb.png\n", False)):
        (tmp_path / "stream").write_bytes(content)
        with open(tmp_path / "stream", "rb") as file:
            image, begin = lines.read_image(file.fileno())
            rest = [line for line in lines.read_lines(file.fileno(), begin=begin) if line is not None]
        assert (image, begin) == ((content, b"") if is_image else (None, content))
        assert rest == ([] if is_image else ["a.png", "b.png"])
