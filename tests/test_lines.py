"""Lines of a stream: at once when they are there, bounded, and one bad line costs no other."""

import os

import pytest

from dltoolkit import lines
from dltoolkit.errors import BadInput


def arrived(raw: bytes, tmp_path) -> list:
    (tmp_path / "stream").write_bytes(raw)
    descriptor = os.open(tmp_path / "stream", os.O_RDONLY)
    try:
        return [line for line in lines.arriving(descriptor) if line is not None]
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("raw", [b"a\nb\n", b"a\r\nb", b"\xef\xbb\xbfa\nb\n"])
def test_line_ends_and_marks_are_taken_off(raw, tmp_path):
    assert arrived(raw, tmp_path) == ["a", "b"]


def test_empty_lines_keep_their_place(tmp_path):
    assert arrived(b"a\n\n\nb\n", tmp_path) == ["a", "", "", "b"]


def test_a_bad_line_stands_for_itself(tmp_path):
    good, bad, after = arrived("naïve\nna".encode() + b"\xefve\nlast", tmp_path)
    assert (good, after) == ("naïve", "last")
    assert isinstance(bad, BadInput)
    assert bad.error == "line 2: not UTF-8 (byte 0xef at place 3)"
    assert bad.input.startswith("na")


@pytest.mark.parametrize("end", [b"\nlast\n", b"\nlast", b""])
def test_an_endless_line_is_skipped(end, tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "LONGEST", 1000)
    monkeypatch.setattr(lines, "CHUNK", 300)
    first, endless, *rest = arrived(b"first\n" + b"x" * 5000 + end, tmp_path)
    assert first == "first"
    assert endless.error.startswith("line 2: longer than")
    assert len(endless.input) < 100
    assert rest == (["last"] if end else [])


def the_text(names: list[str]) -> str:
    return next(name for name in names if name == "text")


def test_cells_of_json_lines_and_csv_rows():
    objects = ('{"id": 1, "text": "a, b"}', "oops", "[1]", '{"id": 2}', '{"text": 3}')
    stream = [lines.Line(text) for text in objects]
    whole, oops, array, lacking, number = lines.cells(stream, "jsonl", the_text)
    assert (whole, number) == ("a, b", "3")
    assert [bad.error[:6] for bad in (oops, array, lacking)] == ["line 2", "line 3", "line 4"]
    stream = [lines.Line(text) for text in ("id,text", '1,"a, b"', '2,"open', "3", "4,last")]
    spoiled = BadInput("x", "line 3: not UTF-8")
    row, pause, bad, unclosed, short, last = lines.cells([*stream[:2], None, spoiled, *stream[2:]], "csv", the_text)
    assert (row, pause, bad, last) == ("a, b", None, spoiled, "last")
    assert [bad.error[:6] for bad in (unclosed, short)] == ["line 4", "line 5"]


def test_lines_are_handed_on_before_the_stream_ends():
    out, into = os.pipe()
    os.write(into, b"one\ntwo\nthr")
    stream = lines.arriving(out)
    assert [next(stream) for _ in range(3)] == ["one", "two", None], "None: nothing more for the moment"
    os.write(into, b"ee\n")
    os.close(into)
    assert list(stream) == ["three", None]
    os.close(out)
