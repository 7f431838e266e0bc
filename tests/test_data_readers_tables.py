"""Reading of tables: formats, headers, columns and broken files."""

import csv
import gzip
import json
from pathlib import Path

import pytest

from dltoolkit import memory
from dltoolkit.data.readers import bounded, columns, delimited, table_files
from dltoolkit.data.readers.tables import read_table, read_tables
from dltoolkit.errors import UserError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "text,label\nso good,1\n\nso bad,0\n"),
        ("bom.csv", "\ufefftext,label\nso good,1\nso bad,0\n"),
        ("semicolon.csv", 'text;label\n"so good";1\n"so bad";0\n'),
        ("a.tsv", "text\tlabel\nso good\t1\nso bad\t0\n"),
        ("a.jsonl", '{"text": "so good", "label": "1"}\n\n{"label": "0", "text": "so bad"}\n'),
    ],
)
def test_read_table_reads_all_formats(tmp_path, name, text):
    assert read_table(write(tmp_path / name, text)).columns == {"text": ["so good", "so bad"], "label": ["1", "0"]}


def test_read_table_reads_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"text": ["so good", "so bad"], "label": [1, 0]}), tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet").columns == {"text": ["so good", "so bad"], "label": [1, 0]}


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("review,sentiment\nfine,pos\nawful,neg\n", True),
        ("fine,pos\nawful,neg\nnice,pos\n", False),  # a cell of the first row occurs again in its column
        ("text,1\nfine,0\n", False),
        ("cats/1.jpg,cat\ndogs/2.jpg,dog\n", False),
        ("1.jpg,cat\n2.jpg,dog\n", False),
        ("this was by far the best,pos\nno,neg\n", False),
    ],
)
def test_read_table_detects_a_header(tmp_path, text, header):
    table = read_table(write(tmp_path / "a.csv", text))
    assert (list(table.columns) != ["1", "2"]) == header
    assert len(table) == text.count("\n") - header


def test_read_table_obeys_the_header_option(tmp_path):
    path = write(tmp_path / "a.csv", "word,kind\nword,kind\n")
    assert read_table(path, header=True).columns == {"word": ["word"], "kind": ["kind"]}
    assert read_table(path, header=False).columns == {"1": ["word", "word"], "2": ["kind", "kind"]}


def test_find_accepts_usual_names_names_and_positions(tmp_path):
    table = read_table(write(tmp_path / "a.csv", "Filename,Class,n\na.jpg,cat,1\nb.jpg,dog,2\n"))
    assert table.find(None, ("image", "filename"), "image") == "Filename"
    assert table.find("n", (), "label") == "n"
    assert table.find("2", (), "label") == "Class"


def test_find_lists_the_columns_if_one_is_missing(tmp_path):
    table = read_table(write(tmp_path / "a.csv", "pic,kind\na.jpg,cat\nb.jpg,dog\n"))
    with pytest.raises(UserError, match=r"pic, kind.*image_column"):
        table.find(None, ("image", "file"), "image")
    with pytest.raises(UserError, match=r"no column 'knd'. Did you mean 'kind'\? Its columns are: pic, kind"):
        table.find("knd", (), "label")
    with pytest.raises(UserError, match="no column '3'"):
        table.find("3", (), "label")


def test_read_table_refuses_broken_files(tmp_path):
    def refused(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError) as caught:
            read_table(tmp_path / name)
        return str(caught.value)

    assert "Line 3" in refused("a.csv", b"text,label\na,1\nb\n")
    assert "not UTF-8" in refused("a.csv", b"text,label\ncaf\xe9,1\n")
    assert "no rows" in refused("a.csv", b"text,label\n")
    assert "no rows" in refused("a.csv", b"")
    for name, content in {
        "a.csv": b"text,label\na\0b,1\n",
        "b.csv": b"text,label\n%s\0,1\n" % (b"a" * 10_000),
        "a.jsonl": b'{"a": 1}\n{"a": \0}\n',
        "a.json": b'[{"a": 1},\n{"a": "%s\0"}]' % (b"a" * 10_000),
        "c.tsv.gz": gzip.compress(b"text\tlabel\na\0b\t1\n"),
    }.items():
        assert "has a NUL character in line 2, so it is binary or damaged" in refused(name, content)
    first = json.dumps({"a": 1}).encode() + b"\n"
    for content, reason in {
        b"{broken\n": "Expecting property name enclosed in double quotes at character 2",
        b'{"a": "b': "Unterminated string at character 7",
        b'{"a": "b\n': "Invalid control character at character 9",
        b"[" * 100_000: "nested too deeply",
    }.items():
        assert refused("a.jsonl", first + content) == f"Line 2 of {tmp_path / 'a.jsonl'} is not JSON: {reason}."
    message = refused("a.json", b'[{"a": 1},\n{"a": "b')
    assert message == f"{tmp_path / 'a.json'} is not JSON: Unterminated string at character 7 of line 2."
    assert "named values" in refused("a.jsonl", b"[1, 2]\n")
    assert "not a Parquet file" in refused("a.parquet", b"PAR1 no")


def test_read_table_refuses_two_columns_of_one_name(tmp_path):
    with pytest.raises(UserError, match="two columns called 'a'"):
        read_table(write(tmp_path / "a.csv", "a,a,b\n1,2,3\n"), header=True)


def test_read_table_restores_the_field_size_limit(tmp_path):
    before = csv.field_size_limit()
    long = "x" * 200_000
    assert read_table(write(tmp_path / "a.csv", f"text,label\n{long},1\n")).columns["text"] == [long]
    assert csv.field_size_limit() == before


def test_read_tables_refuses_different_columns(tmp_path):
    train = write(tmp_path / "train.csv", "text,label\na b,1\n")
    test = write(tmp_path / "test.csv", "text,sentiment\na b,1\n")
    with pytest.raises(UserError, match="lacks the column 'label'"):
        read_tables([train, test])


def test_read_table_reads_compressed_and_json_files(tmp_path):
    expected = {"text": ["so good", "so bad"], "label": ["1", "0"]}
    rows = [{"text": "so good", "label": "1"}, {"label": "0", "text": "so bad"}]
    contents = {
        "a.csv.gz": "text,label\nso good,1\nso bad,0\n",
        "a.jsonl.gz": "".join(json.dumps(row) + "\n" for row in rows),
        "a.json": json.dumps(rows, indent=1),
        "b.json": "".join(json.dumps(row) + "\n" for row in rows),
        "c.json": "\ufeff" + json.dumps(rows),
        "train.txt": "__label__1 so good\n\n__label__0 so bad\n",
    }
    for name, content in contents.items():
        raw = content.encode()
        (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
        columns = read_table(tmp_path / name).columns
        assert {column: columns[column] for column in expected} == expected, name


def test_read_table_reads_excel_files(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["text", "label", None], ["so good", 1, None], [None, None, None], ["so bad", 0.5, None]):
        book.active.append(row)
    book.create_sheet("empty")
    book.save(tmp_path / "a.xlsx")
    assert read_table(tmp_path / "a.xlsx").columns == {"text": ["so good", "so bad"], "label": [1, 0.5]}
    assert list(read_table(tmp_path / "a.xlsx", header=False).columns) == ["1", "2"]
    book["empty"].append(["x"])
    book.save(tmp_path / "b.xlsx")
    with pytest.raises(UserError, match=r"several sheets \(Sheet, empty\)"):
        read_table(tmp_path / "b.xlsx")
    (tmp_path / "c.xlsx").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(UserError, match="not a readable .xlsx file"):
        read_table(tmp_path / "c.xlsx")


def test_read_table_replaces_class_labels_of_hugging_face_by_their_names(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    features = {"text": {"dtype": "string"}, "label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}
    table = pyarrow.table({"text": ["a", "b", "c"], "label": [1, 0, -1]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, tmp_path / "a.parquet")
    with (
        pyarrow.OSFile(str(tmp_path / "data-0.arrow"), "wb") as file,
        pyarrow.ipc.new_stream(file, table.schema) as out,
    ):
        out.write_table(table)
    for name in ("a.parquet", "data-0.arrow"):
        assert read_table(tmp_path / name).columns["label"] == ["pos", "neg", None]
    (tmp_path / "bad.arrow").write_bytes(b"ARROW1 no")
    with pytest.raises(UserError, match="not an Arrow stream file"):
        read_table(tmp_path / "bad.arrow")


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("text;label\na, b, c;1\nd;0\n", ";"),
        ("Das ist, wie gesagt, gut;pos\nnein;neg\nja;pos\n", ";"),
        ('text,label\n"a; b; c; d",1\n', ","),
        ("text\tlabel\na, b\t1\n", "\t"),
        ("text\na, b, c\n", ","),
    ],
)
def test_find_delimiter_compares_all_lines(text, delimiter):
    assert delimited.find_delimiter(text.splitlines(keepends=True)) == delimiter


def test_errors_name_the_line_at_which_a_row_begins(tmp_path):
    path = write(tmp_path / "a.csv", 'text,label\n"a\nb\nc",1\nd,0,x\n')
    with pytest.raises(UserError, match="Line 5 of .* has 3 cells, but the table has 2 columns"):
        read_table(path)
    path = write(tmp_path / "b.csv", 'text,label\na,1\n"b\nc,0\nd,1\n')
    with pytest.raises(UserError, match="Line 3 of .* a quotation mark is not closed"):
        read_table(path)
    path = write(tmp_path / "train.txt", "__label__a x\n__label__a __label__b y\n")
    with pytest.raises(UserError, match="Line 2 of .* several labels"):
        read_table(path)
    path = write(tmp_path / "c.json", '[{"text": "a"}, 3]')
    with pytest.raises(UserError, match="Entry 2 of"):
        read_table(path)


@pytest.mark.parametrize(
    ("first", "names"),
    [
        (",text,label", ["1", "text", "label"]),  # the index of pandas
        ("text,label,", ["text", "label", "3"]),
        ("text,label,1", ["text", "label", "1"]),
        ("x,,y", ["1", "2", "3"]),
    ],
)
def test_columns_without_a_name_are_numbered(tmp_path, first, names):
    assert list(read_table(write(tmp_path / "a.csv", f"{first}\na,b,c\n")).columns) == names


def test_read_table_obeys_the_separator_line_of_excel(tmp_path):
    table = read_table(write(tmp_path / "a.csv", "sep=;\ntext;label\na, b, c;1\n"))
    assert table.columns == {"text": ["a, b, c"], "label": ["1"]}
    assert table.locate(0).startswith("Line 3 of")


def test_read_table_reads_objects_of_columns(tmp_path):
    expected = {"text": ["so good", "so bad"], "label": [1, 0]}
    documents = {
        "columns.json": expected,
        "pandas.json": {"text": {"0": "so good", "1": "so bad"}, "label": {"0": 1, "1": 0}},
        "data.json": {"data": [{"text": "so good", "label": 1}, {"text": "so bad", "label": 0}]},
    }
    for name, document in documents.items():
        assert read_table(write(tmp_path / name, json.dumps(document, indent=1))).columns == expected
    with pytest.raises(UserError, match="is no table"):
        read_table(write(tmp_path / "a.json", "3"))
    with pytest.raises(UserError, match="of line 2"):
        read_table(write(tmp_path / "b.json", '[{"text": 1},\noops]'))
    with pytest.raises(UserError, match="nested too deeply"):
        read_table(write(tmp_path / "c.json", "[" * 100_000))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "a"}\n{"text": ' + "[" * 100_000, "Line 2 of .* is not JSON: nested too deeply"),
        ("a.jsonl", '{"text": ' + "1" * 10_000 + "}", "Line 1 of .* is not JSON: a number of 10,000 digits"),
        ("a.jsonl", '{"text": "a", "text": "b"}', "Line 1 of .* is not JSON: the key 'text' twice"),
        ("a.json", "[" * 100_000, "is not JSON: nested too deeply"),
        ("a.json", '[{"text": ' + "1" * 10_000 + "}]", "is not JSON: a number of 10,000 digits"),
        ("a.json", '[{"text": "a", "text": "b"}]', "is not JSON: the key 'text' twice"),
    ],
)
def test_read_table_refuses_harmful_json_in_one_sentence(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        read_table(tmp_path / name)


def test_read_table_reads_nan_as_pandas_writes_it(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": NaN}')
    (label,) = read_table(tmp_path / "a.jsonl").columns["label"]
    assert label != label


def test_read_table_that_does_not_fit_in_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 100_000)
    for name, line in (("a.csv", "text,label\n"), ("a.jsonl", '{"text": "a"}\n'), ("a.json", "[]\n")):
        (tmp_path / name).write_text(line * 6_000)
        with pytest.raises(UserError, match=f"{name} does not fit in half of the free memory"):
            read_table(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("a.csv", "fine day,good\n", ["one cell\n", '"an open, quotation\n', "a,b,c\n", "nul\0,bad\n"]),
        ("a.tsv", "fine day\tgood\n", ["one cell\n", "a\tb\tc\n"]),
        ("a.jsonl", '{"text": "fine day", "label": "good"}\n', ["{\n", "[1]\n", '{"a": 1, "a": 2}\n']),
    ],
)
def test_read_table_skips_and_names_damaged_lines(tmp_path, name, good, bad):
    header = "" if name == "a.jsonl" else good.replace("fine day", "text").replace("good", "label")
    (tmp_path / name).write_text(header + "".join(good + line for line in bad) + good)
    with pytest.raises(UserError):
        read_table(tmp_path / name)
    table = read_table(tmp_path / name, skip_invalid=True)
    assert table.columns == {"text": ["fine day"] * (1 + len(bad)), "label": ["good"] * (1 + len(bad))}
    assert len(table.damaged) == len(bad)
    assert table.damaged[0].startswith(f"line {2 + bool(header)}: ")
    assert columns.warn_of_damaged([table])[0].startswith(f"{len(bad)} lines of {tmp_path / name} are damaged")


def test_read_table_refuses_a_sheet_of_many_empty_cells(tmp_path, monkeypatch):
    openpyxl = pytest.importorskip("openpyxl")
    monkeypatch.setattr(table_files, "MAX_EXCEL_CELLS", 100_000)
    book = openpyxl.Workbook()
    book.active["XFD20"] = "x"
    book.save(tmp_path / "a.xlsx")
    with pytest.raises(UserError, match="too large for a workbook"):
        read_table(tmp_path / "a.xlsx")


def test_read_table_refuses_rows_that_repeat_a_long_cell(tmp_path, monkeypatch):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"text": ["a" * 10_000] * 3_000, "label": ["b"] * 3_000})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    monkeypatch.setattr(memory, "available", lambda: 20_000_000)
    with pytest.raises(UserError, match="a.parquet does not fit in half of the free memory"):
        read_table(tmp_path / "a.parquet")
    monkeypatch.setattr(memory, "available", lambda: 200_000)
    with pytest.raises(UserError, match="a.parquet take .* of memory"):
        read_table(tmp_path / "a.parquet")


def test_read_table_refuses_a_small_file_of_many_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(bounded, "MIN_LIMIT", 10_000_000)
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    column = pyarrow.DictionaryArray.from_arrays(pyarrow.array(bytes(700_000), pyarrow.int8()), ["good"])
    table = pyarrow.table({"text": column, "label": column})
    parquet.write_table(table, tmp_path / "a.parquet", compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    with pytest.raises(UserError, match="a.parquet has more cells than 200 times its size, as harmful files have"):
        read_table(tmp_path / "a.parquet")
    nulls = pyarrow.record_batch([pyarrow.nulls(2_000_000)], ["text"])  # take no bytes
    with pyarrow.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pyarrow.ipc.new_stream(file, nulls.schema) as stream:
        stream.write(nulls)
    with pytest.raises(UserError, match="a.arrow has more cells than"):
        read_table(tmp_path / "a.arrow")
