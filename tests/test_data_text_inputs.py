"""Texts that the arguments of predict mean."""

from pathlib import Path

import pytest
from conftest import make_special, toy_texts, write_texts

from dltoolkit.data.text import dataset, inputs
from dltoolkit.errors import InvalidInput, UserError
from dltoolkit.lines import Line


def test_expand_yields_files_rows_and_plain_texts(tmp_path, text_table):
    folder = write_texts(tmp_path / "texts", toy_texts(4))
    rows = [Line(text) for _, text in toy_texts(60)]
    words = [str(folder / "bad"), "A plain text.", str(text_table), str(folder / "*" / "001.txt")]
    items = list(inputs.expand(words))
    assert items[:2] == sorted((folder / "bad").iterdir())
    assert items[2] == "A plain text."
    assert items[3:63] == rows
    assert items[63:] == [folder / "good" / "001.txt"]
    assert [dataset.read_text(item) for item in items[:2]] == [text for label, text in toy_texts(4) if label == "bad"]
    assert list(inputs.expand([Line(str(text_table)), None])) == [str(text_table), None]  # a line is never a file


def test_expand_yields_the_rows_of_the_tables_in_a_folder(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").touch()
    for number, text in enumerate(["so good", "so bad"]):
        table = pyarrow.table({"text": [text], "label": [number]})
        with pyarrow.ipc.new_stream(
            str(tmp_path / "saved" / f"data-0000{number}-of-00002.arrow"), table.schema
        ) as file:
            file.write_table(table)
    assert list(inputs.expand([str(tmp_path / "saved")])) == ["so good", "so bad"]
    for name in ("train", "test"):
        (tmp_path / "splits").mkdir(exist_ok=True)
        (tmp_path / "splits" / f"{name}.csv").write_text("text,label\nso good,1\n")
    (tmp_path / "empty").mkdir()
    several, empty = inputs.expand([str(tmp_path / "splits"), str(tmp_path / "empty")])
    assert several.error == f"a data set with several splits: give the files of one, such as {tmp_path}/splits/test.csv"
    assert empty.error == "no .txt files and no tables in this folder"


def test_expand_takes_words_as_it_is_told(text_table):
    words = [str(text_table), "gone.txt", "https://example.com/a.txt"]
    assert list(inputs.expand(words, meaning="text")) == words
    assert list(inputs.expand(words[1:])) == words[1:]  # no such files, so they are texts
    errors = [item.error for item in inputs.expand(words[1:], meaning="file")]
    assert errors == ["no such file", "a URL: download the file"]


def test_expand_reports_a_table_without_a_column_of_texts(tmp_path):
    (tmp_path / "a.csv").write_text("id,remark\n1,x\n")
    (item,) = inputs.expand([str(tmp_path / "a.csv")])
    assert isinstance(item, InvalidInput)
    assert "Its columns are: id, remark" in item.error
    assert list(inputs.expand([str(tmp_path / "a.csv")], text_column="remark")) == ["x"]


def test_expand_reports_pipes_and_yields_devices_for_the_reader_to_refuse(tmp_path):
    pipe = make_special(tmp_path / "pipe.txt", "a pipe")
    table = make_special(tmp_path / "table.csv", "a device")
    (result,) = inputs.expand([str(pipe)])
    assert (result.input, result.error) == (
        str(pipe),
        "a pipe, not a regular file: give - and send the content to stdin",
    )
    assert list(inputs.expand([str(pipe)], meaning="text")) == [str(pipe)]
    (result,) = inputs.expand([str(table)])
    assert "table.csv cannot be read: a device, not a regular file" in result.error
    assert list(inputs.expand([str(tmp_path / "*.txt")])) == [pipe]
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(UserError, match="^a (pipe|device), not a regular file$"):
            dataset.read_text(path)
