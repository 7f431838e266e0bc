"""Character encodings: byte order marks, and the likely encoding of other bytes."""

import gzip

import pytest

from dltoolkit.data.readers import encoding
from dltoolkit.errors import UserError

GERMAN = "Das schöne Hotel über der Straße war für uns größer als erwartet. "
JAPANESE = "この映画はとても楽しかったです。また見たいと思います。"
CHINESE = "这家酒店的早餐很丰富，房间也很干净，我们还会再来。"
RUSSIAN = "Очень хороший фильм, советую всем посмотреть его вечером. "


@pytest.mark.parametrize(
    "raw",
    ["naïve 😀 שלום".encode(), b"\xef\xbb\xbf" + "naïve 😀 שלום".encode(), "naïve 😀 שלום".encode("utf-16")],
    ids=["utf-8", "utf-8 with BOM", "utf-16"],
)
def test_decode_detects_byte_order_marks(raw):
    assert encoding.decode(raw) == "naïve 😀 שלום"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (GERMAN, "cp1252"),
        (GERMAN, "utf-16-le"),
        (GERMAN, "utf-16-be"),
        (JAPANESE, "shift_jis"),
        (JAPANESE, "euc_jp"),
        (CHINESE, "gb18030"),
        (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8_r"),
    ],
)
def test_decode_names_the_likely_encoding(text, name):
    raw = (text * 3).encode(name)
    with pytest.raises(UserError, match=f"give encoding='{name}'"):
        encoding.decode(raw)
    assert encoding.decode(raw, name) == text * 3


def test_decode_calls_other_bytes_binary():
    with pytest.raises(UserError, match="binary data or a damaged text: a NUL character in line 2"):
        encoding.decode(b"PK\n\x04\0\0\0\x08")
    with pytest.raises(UserError, match="not UTF-8: byte 0xff in line 2"):
        encoding.decode(b"a\n\xff")
    with pytest.raises(UserError, match="not cp932: byte 0x81 in line 1$"):
        encoding.decode(b"\x81", "cp932")


def test_a_damaged_character_makes_no_other_encoding_likely(tmp_path):
    for bad in (b"\xed\xa0\x80", b"\xff"):  # a lone surrogate, and a byte that UTF-8 never has
        raw = ("plain\n" * 60 + "Straße, naïve, größer\n").encode() + b"a " + bad + b"\n"
        with pytest.raises(UserError, match=f"^damaged UTF-8: byte 0x{bad[0]:02x} in line 62$"):
            encoding.decode(raw)
        path = tmp_path / "a.csv"
        path.write_bytes(raw)
        with pytest.raises(UserError) as caught, encoding.open_text(path) as file:
            file.read()
        damage = f"line 62 is damaged (byte 0x{bad[0]:02x})"
        assert str(caught.value) == f"{path} is UTF-8 text, but {damage}: correct or remove it."
    with pytest.raises(UserError, match="^damaged UTF-8"):
        encoding.decode(b"plain \xed\xa0\x80")


def test_open_text_reads_compressed_files(tmp_path):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(GERMAN.encode("utf-16")))
    with encoding.open_text(path) as file:
        assert file.read() == GERMAN
    path.write_bytes(gzip.compress(GERMAN.encode())[:-9])
    with pytest.raises(UserError, match="cannot be read"), encoding.open_text(path) as file:
        file.read()


@pytest.mark.parametrize(
    ("text", "stored", "given", "actual"),
    [
        ("naïve café", "utf-8", "cp1252", "UTF-8"),
        ("café", "utf-8-sig", "latin-1", "UTF-8"),
        ("cafe", "utf-8-sig", "cp1252", "UTF-8"),
        ("cafe", "utf-16", "utf-8", "UTF-16"),
        ("cafe", "utf-8", "cp1252", None),
        ("naïve café", "cp1252", "cp1252", None),
        ("naïve café", "utf-8-sig", "utf-8", None),
        ("naïve café", "utf-16", "utf-16", None),
        ("漢字", "gb18030", "gb18030", None),
    ],
)
def test_an_encoding_that_the_file_contradicts_is_refused(tmp_path, text, stored, given, actual):
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode(stored))

    def read() -> str:
        with encoding.open_text(path, given) as file:
            return file.read()

    for reading in (read, lambda: encoding.decode(path.read_bytes(), given)):
        if actual is None:
            assert reading() == text
        else:
            with pytest.raises(UserError, match=f"{actual} text, which contradicts encoding='{given}'"):
                reading()
