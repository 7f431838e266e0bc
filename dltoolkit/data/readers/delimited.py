"""Records of comma-, semicolon- and tab-separated text, from whole files and from streams."""

import contextlib
import csv
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from dltoolkit import memory
from dltoolkit.data.readers import encoding
from dltoolkit.errors import InvalidInput, UserError

DELIMITERS = ",;\t|"
SAMPLED_LINES = 50  # lines from which the delimiter is recognized
MAX_LINE_LENGTH = 100_000_000  # characters; reading a longer line could exhaust the memory
CHUNK_CHARACTERS = 1 << 22  # characters that are read at a time
BYTES_PER_LINE, BYTES_PER_CHARACTER = 300, 3  # memory that a table takes while it is read
MAX_RECORD_LENGTH = 10_000_000  # characters of a record of a stream
MAX_COLUMN_NAME = 40, 4  # characters and words; longer cells of the first row are data, not names of columns
IMAGE_FILE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif")  # no column is named like these files
EXCERPT_LENGTH = 80  # characters of an unreadable record that its error shows


class Record(NamedTuple):
    """The cells of a record, and the number of its first line, counted from 1."""

    line: int
    cells: list[str]


def find_delimiter(lines: Sequence[str]) -> str:
    """Return the delimiter of a table from its first lines.

    It is the delimiter that divides all records into the same number of cells, more than one; if none does, the one
    that occurs most often in the first line.
    """
    widths = {}
    for delimiter in DELIMITERS:
        try:
            records = [record for record in csv.reader(lines, delimiter=delimiter) if record]
        except csv.Error:  # a carriage return within a line, for example
            continue
        if len({len(record) for record in (records[:-1] or records)}) == 1:  # the last record may be cut
            widths[delimiter] = len(records[0])
    if widths and max(widths.values()) > 1:
        return max(widths, key=lambda delimiter: widths[delimiter])
    first = lines[0] if lines else ""
    return max(DELIMITERS, key=lambda delimiter: (first.count(delimiter), delimiter == ","))


def read_file(
    path: Path,
    header: bool | None,
    encoding_name: str | None,
    usual_names: Collection[str] = (),
    damaged: list[str] | None = None,
) -> tuple[dict[str, list[str]], list[int]]:
    """Return the columns of a .csv or .tsv file by name, and the line at which each row begins.

    Args:
        path: The file.
        header: Whether the first record names the columns; None detects it.
        encoding_name: Character encoding; None stands for UTF-8 or the encoding of the byte order mark.
        usual_names: Usual names of columns, for the detection.
        damaged: Receives a description of each damaged line, which is skipped; None raises an error instead.

    Raises:
        UserError: If it is not a well-formed table; the message names the line.
    """
    limit = csv.field_size_limit(2**31 - 1)  # a cell may contain a long text
    try:
        with encoding.open_text(path, encoding_name) as file:
            records = _parse_lines(list(read_lines(file, path, refuse_nul=damaged is None)), path, damaged)
    finally:
        csv.field_size_limit(limit)
    if not records:
        return {}, []
    if header is None:
        header = looks_like_header(records[0].cells, [record.cells for record in records[1:]], usual_names)
    names = column_names(records.pop(0).cells) if header else numbered_names(len(records[0].cells))
    refuse_repeated(names, path)
    for line, cells in records:
        if len(cells) != len(names):  # lines are parsed one by one if damaged ones are skipped
            raise UserError(
                f"Line {line} of {path} has {count_cells(cells)}, but the table has {len(names)} columns: enclose "
                "cells that contain the delimiter in quotation marks."
            )
    if not records:
        return {}, []
    columns = zip(*(record.cells for record in records), strict=True)
    return {name: list(cells) for name, cells in zip(names, columns, strict=True)}, [line for line, _ in records]


def count_cells(cells: Sequence[str]) -> str:
    """Return "1 cell" or "2 cells"."""
    return f"{len(cells)} cell{'' if len(cells) == 1 else 's'}"


def looks_like_header(first: Sequence[str], rest: Sequence[Sequence[str]], usual_names: Collection[str] = ()) -> bool:
    """Return whether the first row names the columns instead of being data.

    It names them if two of its cells are usual names, or one of them after an empty first cell. Otherwise, it is data
    if a cell is empty, repeated, a number, a path or a long text, or occurs again in its column, as labels do.
    """
    cells = [cell.strip() for cell in first]
    usual = sum(cell.lower() in usual_names for cell in cells)
    if usual > 1 or (usual and not cells[0]):
        return True
    if len(set(cells)) < len(cells) or not all(cells):
        return False
    max_characters, max_words = MAX_COLUMN_NAME
    for cell in cells:
        if _is_number(cell) or "/" in cell or "\\" in cell or Path(cell).suffix.lower() in IMAGE_FILE_SUFFIXES:
            return False
        if len(cell) > max_characters or len(cell.split()) > max_words:
            return False
    return not any(cell in {row[i].strip() for row in rest if i < len(row)} for i, cell in enumerate(cells))


def column_names(cells: Sequence[str]) -> list[str]:
    """Return the names in a header; a column without a name, such as the index of pandas, is called by its number."""
    return [cell.strip() or str(position) for position, cell in enumerate(cells, start=1)]


def numbered_names(count: int) -> list[str]:
    """Return the names of the columns of a table without a header: "1", "2", …."""
    return [str(i + 1) for i in range(count)]


def read_lines(file: TextIO, path: Path, *, refuse_nul: bool = True) -> Iterator[str]:
    """Yield the lines of a file with their ends.

    Raises:
        UserError: If a line is so long that it could exhaust the memory, or has a NUL character and may not have one.
    """
    number, size, limit = 0, 0, memory.available() // 2
    while line := file.readline(MAX_LINE_LENGTH + 1):
        number += 1
        size += BYTES_PER_LINE + BYTES_PER_CHARACTER * len(line)
        if size > limit:
            raise UserError(does_not_fit(path))
        if len(line) > MAX_LINE_LENGTH:
            raise UserError(
                f"Line {number} of {path} is longer than {MAX_LINE_LENGTH // 1_000_000} MB, which no table needs: put "
                "each example on a line of its own."
            )
        if refuse_nul and "\0" in line:
            raise UserError(encoding.describe_nul(path, number))
        yield line


def read_all(file: TextIO, path: Path) -> str:
    """Return the text of a file.

    Raises:
        UserError: If its content would not fit in memory.
    """
    limit, chunks = memory.available() // (2 * BYTES_PER_CHARACTER), []
    while chunk := file.read(CHUNK_CHARACTERS):
        chunks.append(chunk)
        limit -= len(chunk)
        if limit < 0:
            raise UserError(does_not_fit(path))
    return "".join(chunks)


def does_not_fit(path: Path) -> str:
    """Return the message about a table that is too large for the memory."""
    free = memory.describe(memory.available())
    return f"{path} does not fit in half of the free memory ({free}): use a part of it, or a machine with more memory."


class RecordParser:
    """Divide a stream of lines into records, as the lines arrive.

    A quoted cell may contain line breaks, so that a record may have several lines. A record that is not well-formed, or
    not UTF-8, becomes an `InvalidInput`. If a quotation mark is never closed, its line is a record with an error, and
    the next line begins another record. In tab-separated lines, such a mark may be an ordinary character.

    Args:
        delimiter: The delimiter; by default, it is recognized from the first line.
    """

    def __init__(self, delimiter: str | None = None):
        self._delimiter = delimiter
        self._width = 0  # cells of the first record
        self._lines: list[tuple[int, str]] = []  # of the record that is not complete
        self._length = 0

    def feed(self, number: int, line: str | InvalidInput) -> Iterator[Record | InvalidInput]:
        """Yield the records that a line completes.

        Args:
            number: Number of the line, from 1.
            line: The line with its end; bytes that are not UTF-8 are surrogates.
        """
        if isinstance(line, InvalidInput):
            yield from self.close()
            yield line
            return
        if number == 1:
            line = line.removeprefix("\ufeff")
            if declared := _declared_delimiter(line):
                self._delimiter = declared
                return
        if self._delimiter is None:
            self._delimiter = find_delimiter([line])
        if self._lines and self._is_row(self._lines[0][1]) and self._is_row(line) and '"' not in line:
            yield from self.close()  # both lines are rows, so the first one has an ordinary quotation mark
        if not self._lines and self._is_row(line) and not has_open_quote(line):
            yield self._check(number, line, split_at_tabs(line))
            return
        within_quotes = bool(self._lines)
        self._lines.append((number, line))
        self._length += len(line)
        if self._needs_another_line(f'"{line}' if within_quotes else line):
            if self._length > MAX_RECORD_LENGTH:
                yield from self._give_up_first_line("a quotation mark is not closed")
            return
        try:
            cells = next(csv.reader([text for _, text in self._lines], delimiter=self._delimiter, strict=True))
        except csv.Error:
            yield from self._give_up_first_line("not a row of CSV")
            return
        (first, text), *others = self._lines
        if others and len(cells) != self._width and self._is_row(text):
            yield from self._give_up_first_line("not a row of CSV")
            return
        self._lines, self._length = [], 0
        if cells or self._width == 1:  # an empty line is an empty cell only if there is a single column
            yield self._check(first, text, cells or [""])

    def close(self) -> Iterator[Record | InvalidInput]:
        """Yield what is left of a record that the end of the stream cuts."""
        while self._lines:
            yield from self._give_up_first_line("a quotation mark is not closed")

    def _check(self, number: int, text: str, cells: list[str]) -> Record | InvalidInput:
        self._width = self._width or len(cells)
        if len(cells) != self._width:
            reason = f"{count_cells(cells)}, but the table has {self._width} columns"
        elif broken := re.search("[\udc80-\udcff]", "".join(cells)):
            reason = f"not UTF-8 (byte 0x{ord(broken[0]) - 0xDC00:02x})"
        elif "\0" in text:
            reason = "a NUL character, so the file is binary or damaged"
        else:
            return Record(number, cells)
        return InvalidInput(excerpt(text), f"line {number}: {reason}")

    def _is_row(self, line: str) -> bool:
        """Return whether a line is a row if its quotation marks are ordinary characters, as in many .tsv files."""
        return self._delimiter == "\t" and line.count("\t") + 1 == self._width

    def _give_up_first_line(self, reason: str) -> Iterator[Record | InvalidInput]:
        (number, text), *others = self._lines
        self._lines, self._length = [], 0
        if self._is_row(text):
            yield self._check(number, text, split_at_tabs(text))
        else:
            yield InvalidInput(excerpt(text), f"line {number}: {reason}")
        for other in others:
            yield from self.feed(*other)

    def _needs_another_line(self, line: str) -> bool:
        asked = False

        def lines() -> Iterator[str]:
            nonlocal asked
            yield line
            asked = True

        with contextlib.suppress(csv.Error, StopIteration):
            next(csv.reader(lines(), delimiter=self._delimiter, strict=True))
        return asked


def unquote(cell: str) -> str:
    """Return a cell without the quotation marks that enclose all of it."""
    inside = cell[1:-1]
    quoted = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inside.replace('""', "")
    return inside.replace('""', '"') if quoted else cell


def split_at_tabs(line: str) -> list[str]:
    """Return the cells of a tab-separated line, without the quotation marks that enclose a whole cell."""
    return [unquote(cell) for cell in line.rstrip("\r\n").split("\t")]


def has_open_quote(line: str) -> bool:
    """Return whether a cell of a tab-separated line begins with a quotation mark that nothing closes in this line."""
    cells = line.rstrip("\r\n").split("\t") if '"' in line else ()
    return any(cell.startswith('"') and cell.count('"') % 2 for cell in cells)


def _declared_delimiter(line: str) -> str | None:
    """Return the delimiter that a first line such as "sep=;" of Excel declares, or None."""
    match = re.fullmatch(r"sep=(.)\s*", line, re.IGNORECASE)
    return match[1] if match else None


def _parse_lines(lines: list[str], path: Path, damaged: list[str] | None) -> list[Record]:
    if declared := _declared_delimiter(lines[0]) if lines else None:
        lines[0] = "\n"
    delimiter = declared or ("\t" if ".tsv" in path.suffixes else find_delimiter(lines[:SAMPLED_LINES]))
    if damaged is not None:
        return _parse_each(lines, delimiter, damaged)
    if delimiter == "\t" and len({line.count("\t") for line in lines if line.strip()}) == 1:
        if any(map(has_open_quote, lines)) and (records := _parse_quoted(lines)):
            return records
        # Each line is a row, so a quotation mark is an ordinary character unless it encloses the whole cell
        return [Record(number, split_at_tabs(line)) for number, line in enumerate(lines, start=1) if line.strip()]
    records: list[Record] = []
    reader, start = csv.reader(lines, delimiter=delimiter, strict=True), 1
    try:
        for cells in reader:
            if cells or (records and len(records[0].cells) == 1):  # in a single column, an empty line is an empty cell
                records.append(Record(start, cells or [""]))
            start = reader.line_num + 1
    except csv.Error as error:
        reason = "a quotation mark is not closed" if "unexpected end" in str(error) else error
        raise UserError(f"Line {start} of {path} is not a row of a table: {reason}.") from None
    return records


def _parse_quoted(lines: Sequence[str]) -> list[Record] | None:
    """Return the records of tab-separated lines if quotation marks enclose cells, which may contain tabs and lines.

    They do if all records have the same number of cells, and marks occur inside of enclosed cells only.
    """
    reader, records, start = csv.reader(lines, delimiter="\t", strict=True), [], 1
    try:
        for cells in reader:
            if reader.line_num == start and re.search(r'(^|\t)[^"\t][^\t]*"', lines[start - 1]):
                return None
            if cells:
                records.append(Record(start, cells))
            start = reader.line_num + 1
    except csv.Error:
        return None
    return records if len({len(record.cells) for record in records}) == 1 else None


def _parse_each(lines: list[str], delimiter: str, damaged: list[str]) -> list[Record]:
    """Return the records of lines, without those that are damaged, which are described."""
    parser, records = RecordParser(delimiter), []
    results = [result for number, line in enumerate(lines, start=1) for result in parser.feed(number, line)]
    for result in (*results, *parser.close()):
        if isinstance(result, Record):
            records.append(result)
        else:
            damaged.append(result.error)
    return records


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def refuse_repeated(names: Sequence[str], path: Path) -> None:
    """Raise a UserError if two columns have the same name."""
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path} has two columns called '{repeated}': rename one.")


def excerpt(record: str) -> str:
    """Return the beginning of a record, for its error; bytes that are not UTF-8 become replacement characters."""
    return record[:EXCERPT_LENGTH].rstrip("\r\n").encode(errors="surrogateescape").decode(errors="replace")
