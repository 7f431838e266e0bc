"""Lines of a stream: yielded as they arrive, in bounded memory, and an unreadable line does not affect the others."""

import os

import pytest

from dltoolkit import lines
from dltoolkit.errors import InvalidInput


def read_all(raw: bytes, tmp_path) -> list:
    (tmp_path / "stream").write_bytes(raw)
    descriptor = os.open(tmp_path / "stream", os.O_RDONLY)
    try:
        return [line for line in lines.read_lines(descriptor) if line is not None]
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("raw", [b"a\nb\n", b"a\r\nb", b"\xef\xbb\xbfa\nb\n"])
def test_read_lines_removes_line_ends_and_byte_order_marks(raw, tmp_path):
    assert read_all(raw, tmp_path) == ["a", "b"]


def test_read_lines_yields_empty_lines(tmp_path):
    assert read_all(b"a\n\n\nb\n", tmp_path) == ["a", "", "", "b"]


def test_read_lines_reports_a_line_that_is_not_utf8(tmp_path):
    first, invalid, last = read_all("naïve\nna".encode() + b"\xefve\nlast", tmp_path)
    assert (first, last) == ("naïve", "last")
    assert isinstance(invalid, InvalidInput)
    assert invalid.error == "line 2: not UTF-8 (byte 0xef at position 3)"
    assert invalid.input.startswith("na")


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


def text_column(names: list[str]) -> str:
    return next(name for name in names if name == "text")


def test_read_column_of_json_objects():
    objects = ('{"id": 1, "text": "a, b"}', "oops", "[1]", '{"id": 2}', '{"text": 3}')
    cells = lines.read_column([lines.Line(text) for text in objects], "jsonl", text_column)
    text, malformed, array, without_column, number = cells
    assert (text, number) == ("a, b", "3")
    assert [cell.error for cell in (malformed, array)] == [f"line {number}: not a JSON object" for number in (2, 3)]
    assert without_column.error == "line 4: no value in the column"


def test_read_column_of_csv_rows():
    header, first, unclosed, short, last = map(lines.Line, ("id,text", '1,"a, b"', '2,"open', "3", "4,last"))
    invalid = InvalidInput("x", "line 3: not UTF-8")
    cells = list(lines.read_column([header, first, None, invalid, unclosed, short, last], "csv", text_column))
    assert cells[:3] == ["a, b", None, invalid]
    assert [cell.error for cell in cells[3:5]] == ["line 4: not a row of CSV", "line 5: no value in the column"]
    assert cells[5] == "last"
