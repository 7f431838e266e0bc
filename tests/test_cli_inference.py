"""The formats in which predictions are printed, whatever the inputs and classes are called."""

import csv
import io
import json

from conftest import run_command

from dltoolkit.cli import inference, tables
from dltoolkit.evaluation.prediction import Prediction

INPUTS = ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", " =1", "a;=1+1", "a\n@b", "\uff1d1", "plain; text", "a=b -c", "3.5"]
SAFE = ["'=1+1", "'+1", "'-1", "'@x", "'\t'=1", "'\r'=1", "' =1", "a;'=1+1", "a\n'@b", "'\uff1d1", *INPUTS[-3:]]


def predictions() -> list[Prediction]:
    top = [{"label": "=cmd", "probability": 0.9}, {"label": "b\x1b[2J\nb", "probability": 0.1}]
    return [Prediction(text, "=cmd", 0.9, top) for text in INPUTS] + [Prediction("=x", error="-y\x1b[2J")]


def test_csv_is_faithful_or_safe_for_spreadsheets(capfd):
    assert inference.print_predictions(predictions(), "csv")
    rows = list(csv.DictReader(io.StringIO(capfd.readouterr().out, newline="")))
    assert [row["input"] for row in rows] == [*INPUTS, "=x"]
    assert (rows[0]["label"], rows[-1]["error"]) == ("=cmd", "-y\x1b[2J")
    inference.print_predictions(predictions(), "csv", safe=True)
    rows = list(csv.DictReader(io.StringIO(capfd.readouterr().out, newline="")))
    assert [row["input"] for row in rows] == [*SAFE, "'=x"]
    assert (rows[0]["label"], rows[0]["top"][:6], rows[-1]["error"]) == ("'=cmd", "'=cmd=", "'-y\x1b[2J")


def test_tables_show_control_characters_in_one_row_and_json_holds_them(capfd):
    inference.print_predictions([Prediction("a\x1b[2J\nb", "c\nd\u202e", 0.9, predictions()[0].top)], "table")
    assert capfd.readouterr().out.splitlines()[1:] == [r"a\x1b[2J\nb  c\nd\u202e  90.0 %       b\x1b[2J\nb 10.0 %"]
    for form in ("json", "jsonl"):
        inference.print_predictions(predictions(), form)
        out = capfd.readouterr().out
        assert "\x1b" not in out
        answers = json.loads(out) if form == "json" else [json.loads(line) for line in out.splitlines()]
        assert answers == [prediction.to_dict() for prediction in predictions()]
    scores = {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 3}
    tables.print_evaluation({"accuracy": 1.0, "per_class": {"a\nb\x1b[2J": scores}})
    assert capfd.readouterr().out.splitlines()[-1].split() == [r"a\nb\x1b[2J", *["100.0", "%"] * 3, "3"]


def test_spreadsheet_safe_is_for_csv_only(capfd):
    code, _, err = run_command(capfd, "predict", "nothing", "x", "--spreadsheet-safe")
    assert (code, "--spreadsheet-safe has no effect without --format csv" in err) == (2, True)
