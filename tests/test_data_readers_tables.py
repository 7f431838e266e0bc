"""Reading of tables: formats, headers, columns and broken files."""

import csv
import json
from pathlib import Path

import pytest

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
    with pytest.raises(UserError, match=r"pic, kind.*--image-column"):
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
    assert "Line 2" in refused("a.jsonl", json.dumps({"a": 1}).encode() + b"\n{broken\n")
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
