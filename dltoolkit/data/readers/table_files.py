"""Tables in JSON, Excel, Parquet, Arrow and fastText files: their columns by name."""

import json
import zipfile
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from dltoolkit import memory, strict_json
from dltoolkit.data.readers import bounded, delimited, encoding
from dltoolkit.errors import UserError
from dltoolkit.files import open_regular

FASTTEXT_LABEL = "__label__"  # begins a label in the training files of fastText
MAX_EXCEL_BYTES = 500_000_000  # size of an unpacked workbook, of which openpyxl takes several times as much memory
MAX_EXCEL_CELLS = 50_000_000  # of a sheet, empty ones included: one cell in the last column makes a row of 16,384

ARROW_BATCH = 1000  # rows of a .parquet file that are read at a time
LEAST_BYTES_PER_CELL = 8  # of a cell as text, with what separates it from the next one
BYTES_PER_CELL = 50  # memory of a cell as a Python object, besides its content

Columns = dict[str, list]


def read_json(path: Path, encoding_name: str | None, damaged: list[str] | None = None) -> tuple[Columns, list[int]]:
    """Return the columns of a .jsonl file, or of a .json file, and the line of each row.

    A .json file holds an array of objects, one object per line, or an object of columns.

    Args:
        path: The file.
        encoding_name: Character encoding; None stands for UTF-8 or the encoding of the byte order mark.
        damaged: Receives a description of each damaged line, which is skipped; None raises an error instead.

    Raises:
        UserError: If the file contains anything else.
    """
    if path.name.lower().removesuffix(".gz").endswith(".json"):
        columns = _read_json_document(path, encoding_name)
        if columns is not None:
            return columns, []
    rows: list[dict] = []
    lines: list[int] = []
    with encoding.open_text(path, encoding_name) as file:
        for number, line in enumerate(delimited.read_lines(file, path), start=1):
            if not line.strip():
                continue
            try:
                row = strict_json.loads(line, line=False, nan=True)
                problem = "is not a JSON object with named values" if not isinstance(row, dict) else None
            except strict_json.InvalidJSON as error:
                problem = f"is not JSON: {error}"
            if problem and damaged is None:
                raise UserError(f"Line {number} of {path} {problem}.") from None
            if problem:
                damaged.append(f"line {number}: {problem}")
                continue
            rows.append(row)
            lines.append(number)
    return _to_columns(rows), lines


def read_excel(path: Path, header: bool | None, usual_names: Collection[str] = ()) -> Columns:
    """Return the columns of an .xlsx file with a single sheet that is not empty; arguments as for .csv files.

    Raises:
        UserError: If openpyxl is not installed, or the file is not such a workbook.
    """
    try:
        import openpyxl
    except ImportError:
        raise UserError(f"Reading {path} needs openpyxl: pip install 'dltoolkit[excel]'.") from None
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_EXCEL_BYTES:
                raise UserError(f"{path} is too large for a workbook: save it as .csv.")
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        try:
            sheets = {sheet.title: rows for sheet in book.worksheets if (rows := _rows_with_values(sheet, path))}
        finally:
            book.close()
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, EOFError, SyntaxError) as error:
        raise UserError(f"{path} is not a readable .xlsx file: {error}.") from None
    if len(sheets) > 1:
        raise UserError(f"{path} has several sheets ({', '.join(sheets)}): keep the one with the examples.")
    rows = next(iter(sheets.values()), [])
    if not rows:
        return {}
    width = max(index + 1 for row in rows for index, cell in enumerate(row) if cell is not None)
    rows = [(*row, *(None,) * (width - len(row)))[:width] for row in rows]
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows[: delimited.SAMPLED_LINES]]
    if header or (header is None and delimited.looks_like_header(texts[0], texts[1:], usual_names)):
        names, rows = delimited.column_names(texts[0]), rows[1:]
    else:
        names = delimited.numbered_names(width)
    delimited.refuse_repeated(names, path)
    return {name: [row[index] for row in rows] for index, name in enumerate(names)}


def _rows_with_values(sheet: Any, path: Path) -> list[tuple]:
    rows, cells = [], 0
    for row in sheet.iter_rows(values_only=True):
        cells += len(row)
        if cells > MAX_EXCEL_CELLS:
            raise UserError(f"The sheet {sheet.title} of {path} is too large for a workbook: save it as .csv.")
        if any(cell is not None for cell in row):
            rows.append(row)
    return rows


def read_arrow(path: Path) -> Columns:
    """Return the columns of a .parquet file, or of an .arrow file that Hugging Face's ``save_to_disk`` has written.

    Labels that Hugging Face stores as numbers of a ClassLabel become the names of the classes, and -1 becomes None.

    Raises:
        UserError: If pyarrow is not installed, or the file is of another type.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"Reading {path} needs pyarrow: pip install 'dltoolkit[parquet]'.") from None
    is_parquet = path.suffix.lower() == ".parquet"
    try:
        if is_parquet:
            with open_regular(path), pyarrow.parquet.ParquetFile(path) as file:
                declared = file.metadata
                groups = [declared.row_group(index) for index in range(declared.num_row_groups)]
                values = (group.column(i).num_values for group in groups for i in range(group.num_columns))
                unpacked = bounded.unpacked_limit(path.stat().st_size)
                _refuse_bomb(path, max(sum(values), declared.num_rows * declared.num_columns), unpacked)
                size = sum(group.total_byte_size for group in groups)
                size += BYTES_PER_CELL * declared.num_rows * declared.num_columns
                memory.refuse(size, f"The rows of {path}", "use fewer rows or columns")
                table = _collect(file.iter_batches(ARROW_BATCH), file.schema_arrow, path, unpacked)
        else:
            with open_regular(path), pyarrow.memory_map(str(path)) as file:
                reader = pyarrow.ipc.open_stream(file)
                table = _collect(reader, reader.schema, path, bounded.unpacked_limit(path.stat().st_size))
    except pyarrow.ArrowException as error:
        kind = "a Parquet" if is_parquet else "an Arrow stream"
        raise UserError(f"{path} is not {kind} file: {(str(error).splitlines() or ['damaged'])[0][:120]}.") from None
    class_names = _class_labels((table.schema.metadata or {}).get(b"huggingface"))
    # one batch at a time, because pyarrow does not stop for signals while it converts
    columns = {
        name: [value for chunk in table.column(name).chunks for value in chunk.to_pylist()]
        for name in table.column_names
    }
    for name, names in class_names.items():
        if name in columns:
            columns[name] = [_class_name(value, names, path) for value in columns[name]]
    return columns


def _collect(batches: Iterable[Any], schema: Any, path: Path, unpacked: int) -> Any:
    """Return the pyarrow.Table of record batches, which may repeat a long cell many times without storing it again."""
    import pyarrow

    collected, cells, size, limit = [], 0, 0, memory.available() // 2
    for batch in batches:
        cells += batch.num_rows * batch.num_columns
        _refuse_bomb(path, cells, unpacked)
        collected.append(batch)
        size += batch.nbytes + BYTES_PER_CELL * batch.num_rows * batch.num_columns
        if size > limit:
            raise UserError(delimited.does_not_fit(path))
    return pyarrow.Table.from_batches(collected, schema)


def _refuse_bomb(path: Path, cells: int, unpacked: int) -> None:
    """Raise a UserError if a table has more cells than a text of ``unpacked`` bytes could hold."""
    if cells * LEAST_BYTES_PER_CELL > unpacked:
        raise UserError(
            f"{path} has more cells than {bounded.MAX_RATIO} times its size, as harmful files have: save it as .csv if "
            "you trust it."
        )


def is_fasttext(path: Path) -> bool:
    """Return whether a text file begins with a label of fastText."""
    try:
        with open_regular(path) as file:
            return file.read(len(FASTTEXT_LABEL) + 3).removeprefix(b"\xef\xbb\xbf").startswith(FASTTEXT_LABEL.encode())
    except OSError:
        return False


def read_fasttext(path: Path, encoding_name: str | None) -> tuple[Columns, list[int]]:
    """Return the columns "label" and "text" of a training file of fastText, and the line of each row.

    Raises:
        UserError: If a line does not have exactly one label at its beginning.
    """
    labels: list[str] = []
    texts: list[str] = []
    lines: list[int] = []
    with encoding.open_text(path, encoding_name) as file:
        for number, line in enumerate(delimited.read_lines(file, path), start=1):
            words = line.removeprefix("\ufeff").split(maxsplit=1)
            if not words:
                continue
            text = words[1].strip() if len(words) > 1 else ""
            if not words[0].startswith(FASTTEXT_LABEL) or len(words[0]) == len(FASTTEXT_LABEL):
                raise UserError(f"Line {number} of {path} does not begin with a label such as {FASTTEXT_LABEL}good.")
            if text.startswith(FASTTEXT_LABEL):
                raise UserError(
                    f"Line {number} of {path} has several labels (multi-label classification), which dltoolkit does "
                    "not train: keep one label in each line."
                )
            labels.append(words[0].removeprefix(FASTTEXT_LABEL))
            texts.append(text)
            lines.append(number)
    return {"label": labels, "text": texts}, lines


def _read_json_document(path: Path, encoding_name: str | None) -> Columns | None:
    """Return the columns of a file that is a single JSON value, or None if it may have one object per line."""
    expected = "write a list of {column: value} objects"
    with encoding.open_text(path, encoding_name) as file:
        text = delimited.read_all(file, path)
        if "\0" in text:
            raise UserError(encoding.describe_nul(path, text.count("\n", 0, text.index("\0")) + 1))
        try:
            document = strict_json.loads(text.removeprefix("\ufeff"), nan=True)
        except strict_json.InvalidJSON as error:
            if error.has_more:
                return None
            raise UserError(f"{path} is not JSON: {error}.") from None
    if isinstance(document, dict):
        values = list(document.values())
        if len(values) == 1 and isinstance(values[0], list):  # {"data": [{…}, …]}
            document = values[0]
        elif all(isinstance(value, list) for value in values) and len(set(map(len, values))) == 1:
            return document
        elif all(isinstance(value, dict) for value in values) and len({tuple(value) for value in values}) == 1:
            return {name: list(value.values()) for name, value in document.items()}  # the form of pandas
        else:
            return None
    if not isinstance(document, list):
        raise UserError(f"{path} is no table: {expected}.")
    for number, row in enumerate(document, start=1):
        if not isinstance(row, dict):
            raise UserError(f"Entry {number} of {path} is not a JSON object with named values.")
    return _to_columns(document)


def _to_columns(rows: Sequence[dict]) -> Columns:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _class_labels(metadata: bytes | None) -> dict[str, list[str]]:
    """Return the class names of each ClassLabel column in the metadata of Hugging Face."""
    try:
        features = json.loads(metadata or b"{}")["info"]["features"]
        return {
            name: [str(label) for label in feature["names"]]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _class_name(value: Any, names: Sequence[str], path: Path) -> str | None:
    if value is None or value == -1:
        return None
    if not isinstance(value, int) or not 0 <= value < len(names):
        raise UserError(f"{path} has the label {value}, but names only {len(names)} classes.")
    return names[value]
