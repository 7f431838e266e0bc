"""Character encodings: decoding of files and bytes, and the likely encoding of bytes that are not UTF-8."""

import codecs
import io
import re
import unicodedata
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TextIO

from dltoolkit.data.readers import bounded
from dltoolkit.errors import UserError, did_you_mean
from dltoolkit.files import open_regular

SAMPLE_BYTES = 100_000  # bytes from which the likely encoding is guessed
MIN_ZEROS = 1 / 4  # fraction of zero bytes at even or odd positions from which bytes look like UTF-16
MIN_ISOLATED = 1 / 2  # fraction of single non-ASCII bytes between ASCII ones from which a text looks Western
BYTE_ORDER_MARKS = {  # UTF-32 first, because its mark begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
INVISIBLE = ("Cc", "Cf", "Zl", "Zp", "Zs")  # Unicode categories: control, format, separators
FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\ufe0e\ufe0f\uffa0"  # invisible characters of other categories
SCRIPTS = {  # encodings of non-Western texts: characters of their script, and the least fraction in a decoded text
    "shift_jis": ("[\u3040-\u30ff]", 0.3),
    "euc_jp": ("[\u3040-\u30ff]", 0.3),
    "euc_kr": ("[\uac00-\ud7af]", 0.85),
    "cp1251": ("[\u0430-\u044f]", 0.6),
    "koi8_r": ("[\u0430-\u044f]", 0.6),
    "gb18030": ("[\u4e00-\u9fff]", 0.6),
}


def check_name(name: str | None) -> None:
    """Raise a UserError unless Python knows an encoding of this name."""
    try:
        is_text = name is None or codecs.lookup(name)._is_text_encoding
    except (LookupError, ValueError):
        is_text = False
    if not is_text:
        names = ("utf-8", "utf-16", "utf-16-le", "cp1252", "latin-1", *SCRIPTS)
        raise UserError(
            f"There is no encoding '{name}'.{did_you_mean(str(name), names)} Common ones: {', '.join(names)}."
        )


def decode(raw: bytes, encoding: str | None = None) -> str:
    """Return the text of bytes: in ``encoding``, or in UTF-8, UTF-16 or UTF-32 as their byte order mark says.

    Raises:
        UserError: If they are in another encoding, or binary; the message is a short reason.
    """
    if encoding and (actual := _contradiction(raw, encoding)):
        raise UserError(f"{actual}, which contradicts --encoding={encoding}")
    name = encoding or _from_mark(raw)
    if encoding is None and name == "utf-8-sig" and b"\0" in raw:
        hint = suggestion(raw)
        line = raw.count(b"\n", 0, raw.index(0)) + 1
        raise UserError(
            f"not UTF-8{hint}" if hint else f"binary data or a damaged text: a NUL character in line {line}"
        )
    try:
        return raw.decode(_with_mark(name))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        if encoding is None and name == "utf-8-sig" and _is_mostly_utf8(raw):
            raise UserError(f"damaged UTF-8: byte 0x{raw[error.start]:02x} in line {line}") from None
        hint = suggestion(raw) if encoding is None else ""
        raise UserError(f"not {display(name)}: byte 0x{raw[error.start]:02x} in line {line}{hint}") from None


@contextmanager
def open_text(path: Path, encoding: str | None = None, errors: str = "strict") -> Iterator[TextIO]:
    """Open a text file, compressed if its name ends in .gz, with unchanged line ends.

    Without ``encoding``, a byte order mark decides between UTF-8, UTF-16 and UTF-32.

    Raises:
        UserError: If the file cannot be read, or its text is not in this encoding.
    """
    try:
        with _open_bytes(path) as file:
            buffered = io.BufferedReader(file, SAMPLE_BYTES)
            head = buffered.peek(4)
            if encoding and (actual := _contradiction(head, encoding)):
                raise UserError(f"{path} is {actual}, which contradicts --encoding={encoding}: leave the option out.")
            name = encoding or _from_mark(head)
            if encoding is None and name == "utf-8-sig" and b"\0" in head[:64]:
                if not (hint := suggestion(head)):
                    raise UserError(describe_nul(path, head.count(b"\n", 0, head.index(0)) + 1))
                raise UserError(f"{path} is not UTF-8 text{hint}.")
            yield io.TextIOWrapper(buffered, encoding=_with_mark(name), errors=errors, newline="")
    except UnicodeError:
        raise UserError(_describe_bad_byte(path, encoding)) from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None


@contextmanager
def _open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, decompressed if its name ends in .gz."""
    with open_regular(path) as file:
        yield bounded.decompressed(path, file) if path.suffix.lower() == ".gz" else file


def describe_nul(path: Path, line: int) -> str:
    """Return the message about a file with a NUL character, which no text has."""
    return f"{path} has a NUL character in line {line}, so it is binary or damaged: give a text file, or correct it."


def is_blank(text: str) -> bool:
    """Return whether a text has no visible character: only spaces, control and format characters, or fillers."""
    return all(unicodedata.category(char) in INVISIBLE or char in FILLERS for char in text)


def of_stream(begin: bytes, name: str) -> str | None:
    """Return the encoding that the byte order mark of a stream tells, or None for UTF-8.

    Raises:
        UserError: If the stream begins like a text in another encoding.
    """
    encoding = _from_mark(begin)
    if encoding != "utf-8-sig":
        return encoding
    if b"\0" in begin[:64] and (hint := suggestion(begin)):
        raise UserError(f"{name} is not UTF-8 text{hint}.")
    return None


def suggestion(raw: bytes) -> str:
    """Return a hint that names the likely encoding of bytes that are not UTF-8, or an empty string."""
    name = guess(raw)
    return f"; it looks like {display(name)}: give --encoding={name}" if name else ""


def guess(raw: bytes) -> str | None:
    """Return the likely encoding of bytes that are not UTF-8, or None if they look like no text."""
    raw = raw[:SAMPLE_BYTES]
    if not raw:
        return None
    even, odd = (raw[start::2].count(0) / (len(raw) / 2) for start in (0, 1))
    if max(even, odd) > MIN_ZEROS and min(even, odd) < MIN_ZEROS / 4:
        return "utf-16-le" if odd > even else "utf-16-be"
    if 0 in raw:
        return None
    runs = re.findall(rb"[\x80-\xff]+", raw)
    if runs and sum(len(run) == 1 for run in runs) < MIN_ISOLATED * len(runs):
        for name, (script, fraction) in SCRIPTS.items():
            try:
                text = codecs.getincrementaldecoder(name)().decode(raw)
            except UnicodeDecodeError:
                continue
            others = re.sub(r"[\x00-\x7f]", "", text)
            if others and len(re.findall(script, others)) >= fraction * len(others):
                return name
    try:
        raw.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def display(name: str) -> str:
    """Return the usual spelling of an encoding: "UTF-8" for "utf-8-sig"."""
    return name.upper().removesuffix("-SIG") if name.lower().startswith("utf") else name


def _from_mark(head: bytes) -> str:
    return next((name for mark, name in BYTE_ORDER_MARKS.items() if head.startswith(mark)), "utf-8-sig")


def _contradiction(begin: bytes, encoding: str) -> str:
    """Return what a file is instead of text in a given encoding, such as "UTF-8 text"; "" if it may be such text.

    It is UTF if it begins with a byte order mark, or if its first bytes are UTF-8 with other characters than ASCII,
    which text in an encoding with one byte for each character hardly is by chance.
    """
    name = codecs.lookup(encoding).name
    mark = "utf-8" if begin.startswith(codecs.BOM_UTF8) else _from_mark(begin).removesuffix("-sig")
    if mark != "utf-8" or begin.startswith(codecs.BOM_UTF8):
        return "" if name.startswith(mark) else f"{display(mark)} text"
    if name.startswith("utf") or len(bytes(range(128, 256)).decode(name, "replace")) != 128:
        return ""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(begin)
    except UnicodeDecodeError:
        return ""
    return "" if text.isascii() else "UTF-8 text"


def _with_mark(name: str) -> str:
    """Return the codec that removes a byte order mark, if there is one for this encoding."""
    return "utf-8-sig" if codecs.lookup(name).name == "utf-8" else name


def _is_mostly_utf8(raw: bytes) -> bool:
    """Return whether most non-ASCII bytes are parts of UTF-8 characters, or of lone surrogates in the same form."""
    without_surrogates = re.sub(rb"\xed[\xa0-\xbf][\x80-\xbf]", b"", raw)
    invalid = len(re.findall("[\udc80-\udcff]", without_surrogates.decode(errors="surrogateescape")))
    return invalid < len(re.findall(rb"[\x80-\xff]", raw)) / 2


def _describe_bad_byte(path: Path, encoding: str | None) -> str:
    """Return the message about a file that is not in an encoding: the first invalid byte, its line and a hint."""
    with _open_bytes(path) as file:
        name = encoding or _from_mark(file.read(4))
        file.seek(0)
        where = ""
        if name == "utf-8-sig":
            before = b""  # the non-ASCII lines before the invalid one
            for number, line in enumerate(file, start=1):
                try:
                    line.decode()
                except UnicodeDecodeError as error:
                    where = f" (byte 0x{line[error.start]:02x} in line {number})"
                    sample = line + file.read(SAMPLE_BYTES)
                    if _is_mostly_utf8(before + sample):
                        damage = f"line {number} is damaged (byte 0x{line[error.start]:02x})"
                        return f"{path} is UTF-8 text, but {damage}: correct or remove it."
                    break
                if not line.isascii() and len(before) < SAMPLE_BYTES:
                    before += line
            hint = suggestion(sample) if where else ""
            return f"{path} is not UTF-8 text{where}{hint or ': save it as UTF-8, or give --encoding'}."
    return f"{path} is not {display(name)} text: give another --encoding, or save it as UTF-8."
