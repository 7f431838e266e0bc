"""The sentiment analyzer from end to end: real files, the real command line, real training."""

import csv
import io
import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import run_command, same_metrics, silence, toy_texts, write_texts
from dltoolkit.recipes import sentiment_analyzer

import dltoolkit
from dltoolkit.errors import UserError


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    """Write a CSV file of 240 short reviews with a word that depends on the class."""
    path = tmp_path_factory.mktemp("data") / "toys.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("label", "text"), *toy_texts(240)])
    return path


@pytest.fixture(scope="module")
def config(reviews, tmp_path_factory):
    return sentiment_analyzer.Config(
        data=str(reviews), epochs=6, batch_size=16, out_dir=str(tmp_path_factory.mktemp("runs"))
    )


@pytest.fixture(scope="module")
def run(config):
    return sentiment_analyzer.train(config)


def test_train_learns_the_classes_and_describes_the_run(run, config):
    assert run.metrics["test"]["accuracy"] > 0.8
    assert {path.name for path in run.path.iterdir()} - {"tensorboard", ".lock"} == {
        *("run.json", "model.keras", "history.csv", "metrics.json", "report.html", "labels.json", "vocabulary.txt"),
        *("predictions.csv", "plots", "checkpoint", "train_hashes.bin"),
    }
    info = json.loads((run.path / "run.json").read_text())
    assert (info["recipe"], info["name"], info["state"]) == ("sentiment-analyzer", "toys-1", "finished")
    assert info["data"]["splits"] == {"train": 180, "validation": 24, "test": 36}
    assert info["data"]["classes"] == run.labels == ["bad", "good"]
    assert info["config"] == config.to_dict()
    assert info["optimizer"]["name"] == "sgd"
    assert run.metrics["baseline"].keys() == {"majority", "linear"}
    assert run.metrics["baseline"]["linear"]["accuracy"] > 0.8
    assert (run.path / "plots" / "reliability.png").exists()


def test_predictions_file_names_each_test_row_of_the_table(run, reviews):
    with open(reviews, encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    with open(run.path / "predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = [int(row["input"].removeprefix("toys.csv[").removesuffix("]")) for row in rows]
    assert len(rows) == 36
    assert numbers == sorted(set(numbers))
    assert [row["label"] for row in rows] == [table[number - 1]["label"] for number in numbers]
    texts = [table[number - 1]["text"] for number in numbers]
    for row, answer in zip(rows, run.predict(texts), strict=True):
        assert row["predicted_label"] == answer.label
        assert float(row["probability"]) == pytest.approx(answer.probability, abs=0.01)


def test_report_lists_top_features_and_worst_mistakes(run, config, tmp_path):
    page = (run.path / "report.html").read_text()
    for word in ("lovely", "dreadful", "Top features", "Calibration"):
        assert word in page
    confused = replace(config, shots=2, epochs=1, out_dir=str(tmp_path))
    trained = sentiment_analyzer.train(confused)
    assert "<blockquote>" in (trained.path / "report.html").read_text(), "mistakes are quoted"
    (trained.path / "vocabulary.txt").write_text("a\na b c d\n")
    with pytest.raises(UserError, match=r"vocabulary.txt is damaged"):
        trained.predict(["a lovely film"])


def test_predict_and_evaluate_repeat_the_test_scores(run):
    assert same_metrics(run.evaluate(), run.metrics["test"])
    splits = sentiment_analyzer.build_data(run.config)
    predictions = dltoolkit.load(run.path).predict([splits.texts[i] for i in splits.test])
    right = [
        prediction.label == splits.classes[splits.labels[i]]
        for prediction, i in zip(predictions, splits.test, strict=True)
    ]
    assert np.mean(right) == pytest.approx(run.metrics["test"]["accuracy"])
    top = [prediction.top[0]["probability"] for prediction in predictions]
    of_the_label = [p if correct else 1 - p for p, correct in zip(top, right, strict=True)]
    assert -np.log(of_the_label).mean() == pytest.approx(run.metrics["test"]["loss"], abs=1e-4)


def test_resume_trains_the_remaining_epochs(config, run, tmp_path):
    shorter = sentiment_analyzer.train(replace(config, epochs=2, out_dir=str(tmp_path)))
    longer = dltoolkit.resume(shorter, epochs=6)
    assert [row["epoch"] for row in longer.history] == [1, 2, 3, 4, 5, 6]
    assert longer.metrics["test"]["accuracy"] > 0.8


def test_predict_takes_literals_files_tables_and_folders(run, reviews, capfd, tmp_path):
    folder = write_texts(tmp_path / "new", toy_texts(4, seed=9))
    code, out, _ = run_command(
        capfd,
        *(
            "predict",
            str(run.path),
            "a lovely film",
            str(folder / "bad"),
            str(reviews),
            "",
            "--format",
            "json",
        ),
    )
    predictions = json.loads(out)
    assert code == 2
    assert len(predictions) == 1 + 2 + 240 + 1
    assert (predictions[0]["input"], predictions[0]["label"]) == ("a lovely film", "good")
    assert predictions[0]["probability"] == predictions[0]["top"][0]["probability"] > 0.5
    assert [prediction["label"] for prediction in predictions[1:3]] == ["bad", "bad"]
    assert predictions[1]["input"].endswith("000.txt")
    assert predictions[-1].get("error") == "empty"


def test_evaluate_warns_of_the_training_data_in_another_format(run, reviews, capfd, tmp_path):
    with open(reviews, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    new = [{**row, "text": f"{row['text']} again"} for row in rows[:20]]
    counts = {}
    for name, selected in (("copy", rows[::-1]), ("part", [*rows[180:], *new]), ("new", new)):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in selected))
        code, _, err = run_command(capfd, "evaluate", str(run.path), "--data", str(path))
        pattern = r"Warning: (\d+) of (\d+) texts are among the training examples of the run"
        counts[name] = [tuple(map(int, numbers)) for numbers in re.findall(pattern, " ".join(err.split()))]
        assert code == 0, err
    ((partly, size),) = counts.pop("part")
    assert size == 80
    assert 0 < partly <= 60
    assert counts == {"copy": [(180, 240)], "new": []}


def test_resume_leaves_a_finished_run_as_it_is(run, capfd):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.path.rglob("*") if path.is_file()}
    epochs = len(run.history)
    code, _, err = run_command(capfd, "resume", str(run.path))
    message = " ".join(err.split())
    assert code == 0
    assert message == f"{run.path} has finished its {epochs} epochs; continue with --epochs N or --max-time T."
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before


def test_predict_shortens_long_inputs_in_the_table_only(run, capfd, tmp_path):
    long = "a lovely film " * 20 + "to the end"
    missing = str(tmp_path / "gone.txt")
    _, out, _ = run_command(capfd, "predict", str(run.path), long, "a dull film", "--format", "table")
    header, first, second = out.splitlines()
    assert max(map(len, out.splitlines())) == 80
    assert re.match(r"a lovely film .*….*to the end  good ", first)
    assert second.startswith("a dull film  ")
    assert header.index("label") == first.index("  good") + 2 == second.index("bad")
    _, out, _ = run_command(capfd, "predict", str(run.path), missing, "--files")
    assert "no such file" in out.lower(), "errors stay whole"
    for form in ("csv", "jsonl"):
        assert long in run_command(capfd, "predict", str(run.path), long, "--format", form)[1]


def test_predict_answers_a_text_without_a_known_word_as_such(run, capfd):
    unknown, known, empty = run.predict(["xyzzy plugh qwrt", "xyzzy lovely", "..."])
    assert (unknown.label, unknown.probability, unknown.top) == ("unknown_input", None, [])
    assert (known.label, empty.label) == ("good", "unknown_input")
    for form, expected in [("csv", r"xyzzy plugh,unknown_input,,,"), ("table", r"xyzzy plugh +unknown_input +-")]:
        code, out, _ = run_command(capfd, "predict", str(run.path), "xyzzy plugh", "lovely film", "--format", form)
        assert code == 0
        assert re.search(expected, out), out


def test_evaluate_says_how_many_texts_have_no_known_word(run, tmp_path, capfd):
    (tmp_path / "new.csv").write_text("label,text\ngood,lovely\nbad,dreadful\nbad,xyzzy plugh\ngood,xyzzy qwrt\n")
    metrics = run.evaluate(str(tmp_path / "new.csv"))
    assert metrics["accuracy"] == 0.75
    assert metrics["unknown_inputs"] == {"count": 2, "correct_guesses": 1, "accuracy_without_guesses": 0.5}
    err = " ".join(capfd.readouterr().err.split())
    assert "2 of 4 texts have no word that the model knows, so predict answers them with unknown_input." in err
    assert "a guess for each, 1 of them correct; without these, the accuracy is 50.0 %." in err
    (tmp_path / "new.csv").write_text("label,text\ngood,lovely\nbad,dreadful\n")
    assert "unknown_inputs" not in run.evaluate(str(tmp_path / "new.csv"))


def test_predict_takes_arguments_as_texts_or_files_as_told(run, reviews, capfd):
    words = ["predict", str(run.path), str(reviews), "lovely.txt", "--format", "jsonl"]
    code, out, err = run_command(capfd, *words)
    assert (code, len(out.splitlines())) == (0, 241)
    assert "There is no file lovely.txt, so it is classified as a text" in err
    code, out, err = run_command(capfd, *words, "--text")
    assert (code, err) == (0, "")
    assert [json.loads(line)["input"] for line in out.splitlines()] == [str(reviews), "lovely.txt"]
    code, out, err = run_command(capfd, *words, "--files")
    assert (code, json.loads(out.splitlines()[-1])["error"], err) == (2, "no such file", "")


def test_predict_prints_every_format_and_unsure(run, capfd):
    code, out, _ = run_command(capfd, "predict", str(run.path), "a lovely film", "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(out))
    assert (code, row["input"], row["label"]) == (0, "a lovely film", "good")
    _, out, _ = run_command(capfd, "predict", str(run.path), "a lovely film")
    assert out.splitlines()[0].split() == ["input", "label", "probability", "next"]
    neither = "the lovely dreadful film"
    _, out, _ = run_command(capfd, "predict", str(run.path), neither, "--format", "jsonl", "--threshold", "0.999")
    prediction = json.loads(out)
    assert prediction["label"] == "unsure"
    assert prediction["probability"] == prediction["top"][0]["probability"] < 0.999
    code, _, _ = run_command(capfd, "predict", str(run.path), neither, "--threshold", "2")
    assert code == 2


def test_predict_answers_each_line_of_stdin_as_it_arrives(run):
    """An invalid line is reported with its number and does not affect the others."""
    words = [sys.executable, "-m", "dltoolkit", "predict", str(run.path), "-", "--format", "jsonl"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdin.write(b"a lovely film\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["label"] == "good"
        process.stdin.write(b"na\xefve\n\na dreadful film\nreviews\n")
        out, err = process.communicate(timeout=60)
    bad, empty, good, name = map(json.loads, out.splitlines())
    assert "line 2" in bad["error"]
    assert empty == {"input": "", "error": "empty"}
    assert (good["input"], good["label"]) == ("a dreadful film", "bad")
    assert (name["input"], name["label"]) == ("reviews", "unknown_input")  # a text, not the data of this name
    assert process.returncode == 2
    assert err == b""


def test_predict_reads_a_column_of_csv_from_stdin(run, capfd, tmp_path, monkeypatch):
    (tmp_path / "rows").write_text('id,review\n7,"a lovely film, really"\n8\n9,a dreadful film\n')
    words = ["predict", str(run.path), "-", "--stdin", "csv", "--format", "jsonl"]
    with open(tmp_path / "rows") as rows:
        monkeypatch.setattr(sys, "stdin", rows)
        code, out, _ = run_command(capfd, *words)
    good, short, bad = map(json.loads, out.splitlines())
    assert code == 2
    assert (good["input"], good["label"], bad["label"]) == ("a lovely film, really", "good", "bad")
    assert "line 3" in short["error"]
    with open(tmp_path / "rows") as rows:
        monkeypatch.setattr(sys, "stdin", rows)
        code, _, err = run_command(capfd, *words, "--text-column", "body")
    assert code == 2
    assert "Its columns are: id, review" in err


def test_predict_reads_files_in_other_encodings(run, capfd, tmp_path):
    (tmp_path / "a.csv").write_bytes("text,id\na lovely café,1\n".encode("cp1252"))
    (tmp_path / "b.txt").write_bytes("a dreadful café".encode("cp1252"))
    words = ["predict", str(run.path), str(tmp_path / "a.csv"), str(tmp_path / "b.txt"), "--format", "jsonl"]
    code, out, _ = run_command(capfd, *words)
    errors = [json.loads(line)["error"] for line in out.splitlines()]
    assert (code, "not UTF-8" in errors[0], "give --encoding cp1252" in errors[1]) == (2, True, True)
    code, out, _ = run_command(capfd, *words, "--encoding", "cp1252")
    assert (code, [json.loads(line)["label"] for line in out.splitlines()]) == (0, ["good", "bad"])
    code, _, err = run_command(capfd, *words, "--encoding", "cp12x")
    assert (code, "There is no encoding 'cp12x'" in err) == (2, True)


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("text", "a lovely café\r\na dreadful café"),
        ("csv", 'text,id\r\na lovely café,1\r\n"a dreadful café",2\r\n'),
        ("jsonl", '{"text": "a lovely café"}\n{"text": "a dreadful café"}\n'),
    ],
)
def test_predict_decodes_stdin(run, capfd, tmp_path, monkeypatch, form, content):
    def predict(encoding, *options):
        (tmp_path / "rows").write_bytes(content.encode(encoding))
        with open(tmp_path / "rows", "rb") as rows:
            monkeypatch.setattr(sys, "stdin", rows)
            words = ["predict", str(run.path), "-", "--stdin", form, "--format", "jsonl"]
            return run_command(capfd, *words, *options)

    code, out, err = predict("utf-8")
    predictions = [json.loads(line) for line in out.splitlines()]
    assert [(each["input"], each["label"]) for each in predictions] == [
        ("a lovely café", "good"),
        ("a dreadful café", "bad"),
    ]
    expected = (0, out, err)
    assert predict("utf-16") == expected, "the byte order mark is enough"
    for encoding in ("utf-16", "utf-16-le", "cp1252"):
        assert predict(encoding, "--encoding", encoding) == expected
    code, _, err = predict("utf-16-le")
    assert (code, err) == (2, "Error: stdin is not UTF-8 text; it looks like UTF-16-LE: give --encoding utf-16-le.\n")
    code, _, err = predict("cp1252", "--encoding", "utf-32")
    assert (code, err) == (2, "Error: stdin is not UTF-32 text: give another --encoding.\n")


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_predict_answers_each_record_of_csv_once(run, capfd, tmp_path, monkeypatch, delimiter):
    """A quoted line break does not shift the answers, and a file gives the same answers as stdin."""
    path = tmp_path / "new.csv"
    content = b'id,text\r\n1,a lovely film\r\n2,"a dreadful\r\n\r\nfilm: really"\r\n3,superb\r\n'
    path.write_bytes(content.replace(b",", delimiter.encode()))
    words = ["predict", str(run.path), "--format", "jsonl"]
    with open(path) as rows:
        monkeypatch.setattr(sys, "stdin", rows)
        code, out, err = run_command(capfd, *words, "-", "--stdin", "csv")
    assert (code, err) == (0, "")
    assert [json.loads(line)["label"] for line in out.splitlines()] == ["good", "bad", "good"]
    assert json.loads(out.splitlines()[1])["input"] == "a dreadful\r\n\r\nfilm: really"
    assert run_command(capfd, *words, str(path)) == (0, out, "")


def test_predict_answers_each_line_once_whatever_it_holds(run, capfd, tmp_path, monkeypatch):
    raw = "superb\r\nwarm\u2028dull\r\nwitty\x0brude\x85 x\n\nbland \x1c film\nlast".encode()
    (tmp_path / "lines.txt").write_bytes(raw)
    for form, header in (("jsonl", 0), ("table", 1)):
        with open(tmp_path / "lines.txt") as rows:
            monkeypatch.setattr(sys, "stdin", rows)
            code, out, _ = run_command(capfd, "predict", str(run.path), "-", "--format", form)
        assert code == 2  # the empty line has an error
        assert len(out.splitlines()) == 6 + header


def test_predict_refuses_a_format_of_stdin_without_stdin(run, capfd):
    code, out, err = run_command(capfd, "predict", str(run.path), "a lovely film", "--stdin", "csv")
    assert (code, out) == (2, "")
    assert "- is not among the inputs" in err


def test_evaluate_takes_other_texts(run, capfd, tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("".join(f"{label},{written}\n" for label, written in [("label", "text"), *toy_texts(20, seed=5)]))
    code, out, err = run_command(capfd, "evaluate", str(run.path), "--data", str(path), "--format", "json")
    assert code == 0, err
    assert err.splitlines()[0] == (
        f"Evaluating 20 texts of {path}: all of it, as it has no predefined test split; text from 'text', label from "
        "'label'."
    )
    assert json.loads(out)["accuracy"] > 0.8
    assert sum(row["support"] for row in json.loads(out)["per_class"].values()) == 20
    path.write_text(path.read_text().replace("bad,", "Awful,"))
    code, out, err = run_command(capfd, "evaluate", str(run.path), "--data", str(path))
    assert (code, out) == (2, "")
    assert "'Awful'" in err
    assert "Its labels are: bad, good" in err
    path.write_text(path.read_text().replace("Awful,", "BAD,").replace("text", "words"))
    code, _, err = run_command(capfd, "evaluate", str(run.path), "--data", str(path))
    assert "label, words" in err
    code, _, _ = run_command(capfd, "evaluate", str(run.path), "--data", str(path), "--text-column", "words")
    assert code == 0
    _, _, err = run_command(capfd, "evaluate", str(run.path), "--data", run.config.data)
    lines = [line for line in err.splitlines() if line]
    assert lines[0].startswith("Evaluating ")
    assert "of 240 texts are among the training examples of the run" in " ".join(err.split())
    _, _, err = run_command(capfd, "evaluate", str(run.path))
    assert err.startswith(f"Evaluating {run.info['data']['splits']['test']} texts: the test split of {run.config.data}")
    code, _, err = run_command(capfd, "evaluate", str(run.path), "--label-column", "label")
    assert (code, "--label-column is about other data" in err) == (2, True)
    folder = write_texts(tmp_path / "folder", toy_texts(4, seed=9))
    words = ["evaluate", str(run.path), "--data", str(folder)]
    code, _, err = run_command(capfd, *words, "--label-column", "label")
    assert (code, "--label-column has no effect on" in err) == (2, True)
    assert run_command(capfd, *words)[0] == 0


def test_train_trains_a_recurrent_network(config):
    small = {"embedding_dim": 8, "units": 8, "layers": 1, "max_length": 12}
    trained = sentiment_analyzer.train(replace(config, model="gru", epochs=1, limit=60, **small))
    assert trained.info["model"]["name"] == "gru"
    assert "linear baseline" in (trained.path / "report.html").read_text()
    (prediction,) = dltoolkit.load(trained.path).predict(["a lovely film " * 20])
    assert prediction.label in ("bad", "good")


def test_train_weights_three_uneven_classes_and_counts_guesses(config, tmp_path, capfd):
    texts = [pair for i, pair in enumerate(toy_texts(200, classes=("bad", "good", "so-so"))) if i % 3 != 1 or i % 2]
    rows = [(*pair, {0: "test", 1: "validation"}.get(i // 3 % 8, "train")) for i, pair in enumerate(texts)]
    rows += [(label, "xyzzy plugh", "test") for label in ("bad", "good", "so-so")]  # no word is in the training texts
    path = tmp_path / "three.tsv"
    path.write_text("text\tlabel\tsplit\n" + "".join(f"{text}\t{label}\t{split}\n" for label, text, split in rows))
    trained = sentiment_analyzer.train(replace(config, data=str(path), class_weights="balanced"))
    assert trained.labels == ["bad", "good", "so-so"]
    test = trained.metrics["test"]
    assert test["macro_f1"] > 0.6
    assert trained.predict(["dreadful"], top_k=3)[0].top[0]["label"] == "bad"
    count = sum(map(sum, test["confusion"]))
    assert test["unknown_inputs"] == {
        "count": 3,
        "correct_guesses": 1,  # each of the three classes is once the label, and the guess is the same
        "accuracy_without_guesses": pytest.approx(test["accuracy"] - 1 / count),
    }
    assert "unknown_inputs" not in trained.metrics["validation"]
    assert trained.evaluate()["unknown_inputs"] == test["unknown_inputs"]
    messages = " ".join(capfd.readouterr().err.split())
    assert messages.count("have no word that the model knows") == 2, "train and evaluate say so"
    sentence = f"3 of {count} test texts have no word that the model knows"
    assert sentence in messages and sentence in (trained.path / "report.html").read_text()


def test_train_stops_at_an_unreadable_text_and_leaves_no_run(config, tmp_path, reviews):
    (tmp_path / "a.csv").write_bytes(reviews.read_bytes() + b"good,na\xefve\n")
    with pytest.raises(UserError, match="in line 242"):
        sentiment_analyzer.train(replace(config, data=str(tmp_path / "a.csv"), out_dir=str(tmp_path / "runs")))
    assert not list((tmp_path / "runs").glob("*/*"))


def test_evaluate_refuses_options_of_another_recipe(run, capfd):
    code, _, err = run_command(capfd, "evaluate", str(run.path), "--data", run.config.data, "--image-column", "x")
    assert code == 2
    assert "--image-column has no effect on a run of sentiment-analyzer" in err


def test_load_evaluate_and_predict_print_no_warning(run, capfd):
    with silence(capfd):
        loaded = dltoolkit.load(str(run.path))
        loaded.evaluate()
        loaded.predict("a lovely film")
