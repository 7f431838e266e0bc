"""Records of CSV and JSON in streams and files: one record in, one text out."""

import pytest

from dltoolkit.data.readers import delimited, streams, tables
from dltoolkit.errors import InvalidInput, UserError
from dltoolkit.lines import Line

BROKEN_LINE = '7,"alpha\r\n\r\nand, in a second paragraph, beta"\r\n'


def read(text: str, form: str = "csv", column: str | None = None) -> list:
    return list(streams.read_texts(text.splitlines(keepends=True), form, column))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_records_may_contain_line_breaks_and_delimiters(delimiter, end):
    rows = ["id,text", "1,plain", '2,"a ""quoted"" cell;, \t and', "", 'more"', "3,last"]
    text = "".join(row + end for row in rows)
    if delimiter != ",":
        text = text.replace("id,", f"id{delimiter}")
        for number in "123":
            text = text.replace(f"{number},", f"{number}{delimiter}")
    assert read(text) == ["plain", f'a "quoted" cell;, \t and{end}{end}more', "last"]


def test_records_arrive_with_pauses_and_errors_in_their_place():
    invalid = InvalidInput("x", "line 3: longer than 10 MB")
    lines = [
        "id,text\n",
        '1,"a,\n',
        None,
        'b"\n',
        invalid,
        "3\n",
        "4,a,b\n",
        "4,a\0b\n",
        "5,na\udcefve\n",
        '6,"x" y\n',
        None,
        "7,z",
    ]
    cells = list(streams.read_texts(lines, "csv", None))
    assert cells[:3] == [None, "a,\nb", invalid]
    assert [cell.error for cell in cells[3:8]] == [
        "line 5: 1 cell, but the table has 2 columns",
        "line 6: 3 cells, but the table has 2 columns",
        "line 7: a NUL character, so the file is binary or damaged",
        "line 8: not UTF-8 (byte 0xef)",
        "line 9: not a row of CSV",
    ]
    assert cells[8:] == [None, "z"]


def test_a_quotation_mark_that_is_never_closed_spoils_one_record():
    cells = read('id,text\n1,a\n2,"open\n3,c\n4,d\n')
    assert (cells[0], cells[2:]) == ("a", ["c", "d"])
    assert cells[1] == InvalidInput('2,"open', "line 3: a quotation mark is not closed")
    assert read('id,text\n2,"open\n3,"c" d\n4,e\n')[-1] == "e"


@pytest.mark.parametrize(
    ("rows", "texts"),
    [
        (['"one\tx\ntwo"\ta', '"three\tx\nfour"\tb'], ["one\tx\ntwo", "three\tx\nfour"]),
        (['"one\ntwo\tx"\ta', "three\tb"], ["one\ntwo\tx", "three"]),
        (['"one\nx\ty\ntwo"\ta', "three\tb"], ["one\nx\ty\ntwo", "three"]),
        (['"one\ta', "two\tb"], ['"one', "two"]),
        (['"one\ta', 'say "two"\tb', '"three" four\tb'], ['"one', 'say "two"', '"three" four']),
        (['"one\ta', '"two"\tb', '"a ""b"""\tb'], ['"one', "two", 'a "b"']),
    ],
)
def test_quotation_marks_enclose_cells_of_tab_separated_lines_or_are_ordinary_characters(tmp_path, rows, texts):
    text = "".join(f"{row}\n" for row in ["text\tlabel", *rows])
    assert read(text) == texts
    (tmp_path / "a.tsv").write_text(text)
    assert tables.read_table(tmp_path / "a.tsv").columns["text"] == texts


def test_an_unreadable_line_ends_an_open_record():
    invalid = InvalidInput("x", "line 3: longer than 10 MB")
    cells = list(streams.read_texts(["id,text\n", '1,"open\n', invalid, "2,b\n"], "csv", None))
    assert cells == [InvalidInput('1,"open', "line 2: a quotation mark is not closed"), invalid, "b"]


def test_an_endless_record_stops_at_a_limit(monkeypatch):
    monkeypatch.setattr(delimited, "MAX_RECORD_LENGTH", 1000)
    cells = read('id,text\n1,"open\n' + "2,row\n" * 300)
    assert cells[1:] == ["row"] * 300


def test_a_single_column_needs_no_name():
    assert read("text\na\n\nb\n") == ["a", "", "b"]
    assert read("fine film\nawful film\n") == ["fine film", "awful film"]
    assert read("remark\na\n", column="remark") == ["a"]


def test_the_column_is_found_or_named():
    assert read("id,remark\n1,a\n", column="remark") == read("id,remark\n1,a\n", column="2") == ["a"]
    assert read("1,first\n2,second\n", column="2") == ["first", "second"]
    with pytest.raises(UserError, match="Its columns are: id, remark"):
        read("id,remark\n1,a\n")


def test_the_first_record_may_be_an_index_or_a_separator():
    assert read(",text\n0,a\n") == read(",text,label\n0,a,x\n") == ["a"]
    assert read("sep=;\nid;text\n0;a, b\n") == ["a, b"]


def test_json_objects_give_one_text_each():
    lines = '{"id": 1, "text": "a, b"}\noops\n\n[1]\n{"id": 2}\n{"text": ["x"]}\n{"text": "na\udcefve"}\n{"text": 3}\n'
    text, malformed, array, without, several, invalid, number = read(lines, "jsonl")
    assert (text, number) == ("a, b", "3")
    assert [cell.error for cell in (malformed, array, without, several, invalid)] == [
        "line 2: not a JSON object",
        "line 4: not a JSON object",
        "line 5: no value in the column",
        "line 6: not a text in the column",
        "line 7: not UTF-8",
    ]


def test_files_give_the_same_texts_as_streams(tmp_path):
    path = tmp_path / "new.csv"
    text = f"id,text\r\n1,first\r\n{BROKEN_LINE}2\r\n3,last\r\n"
    path.write_bytes(text.encode())
    cells = list(streams.read_table_texts(path, None))
    assert cells == read(text)
    assert cells[1] == Line("alpha\r\n\r\nand, in a second paragraph, beta")
    (tmp_path / "a.json").write_text('[{"text": "x"}, {"text": null}, {"text": "y"}]')
    assert list(streams.read_table_texts(tmp_path / "a.json", None)) == ["x", "", "y"]


def test_trained_column_is_read_if_a_table_has_it():
    trained = streams.TrainedColumn("remark")
    assert read("text,remark\nx,y\n", column=trained) == ["y"]
    assert read("text,other\nx,y\n", column=trained) == ["x"]
