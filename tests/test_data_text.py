"""Labelled texts: every source, every encoding, and what is wrong with them said in a sentence."""

import csv
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from conftest import toy_texts, write_texts

from dltoolkit.data.options import SplitOptions, TextReadOptions
from dltoolkit.data.readers import tables
from dltoolkit.data.text import dataset as text
from dltoolkit.errors import InvalidInput, UserError
from dltoolkit.lines import Line

pytestmark = pytest.mark.usefixtures("isolated_cache")


def table(path: Path, rows, delimiter: str = ",") -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return path


def refused(data, *read) -> str:
    with pytest.raises(UserError) as caught:
        text.load(str(data), *read)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pairs(data: text.TextSplits) -> set[tuple[str, str]]:
    return {(data.classes[label], written) for label, written in zip(data.labels, data.texts, strict=True)}


def test_class_folders_with_their_own_test(tmp_path):
    texts = toy_texts(60)
    write_texts(tmp_path / "imdb" / "train", texts[:40])
    write_texts(tmp_path / "imdb" / "test", texts[40:])
    data = text.load(str(tmp_path / "imdb"))
    assert data.classes == ["bad", "good"]
    assert data.counts() == {"train": 34, "validation": 6, "test": 20}
    assert {data.texts[i] for i in data.test} == {written for _, written in texts[40:]}
    assert pairs(data) == set(texts)
    assert data.names[0].endswith(".txt")


def test_tables_of_every_kind(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    texts = toy_texts(60)
    labels, written = zip(*texts, strict=True)
    forms = {
        "csv": table(
            tmp_path / "a.csv", [("Sentiment", "id", "Review"), *((a, i, b) for i, (a, b) in enumerate(texts))]
        ),
        "tsv": table(tmp_path / "b.tsv", [("text", "label"), *((b, a) for a, b in texts)], "\t"),
        "headerless": table(tmp_path / "c.tsv", [(b, a) for a, b in texts], "\t"),
    }
    forms["jsonl"] = tmp_path / "d.jsonl"
    forms["jsonl"].write_text("".join(json.dumps({"text": b, "label": a}) + "\n" for a, b in texts))
    forms["parquet"] = tmp_path / "e.parquet"
    parquet.write_table(pyarrow.table({"text": list(written), "label": list(labels)}), forms["parquet"])
    for form, path in forms.items():
        assert pairs(text.load(str(path))) == set(texts), form


def test_columns_by_name_and_by_position(tmp_path):
    rows = [("when", "remark", "verdict"), *((i, b, a) for i, (a, b) in enumerate(toy_texts(60)))]
    path = table(tmp_path / "a.csv", rows)
    message = refused(path)
    assert "when, remark, verdict" in message
    assert "--text-column" in message
    named = text.load(str(path), TextReadOptions(text_column="remark", label_column="verdict"))
    placed = text.load(str(path), TextReadOptions(text_column="2", label_column="3"))
    assert pairs(named) == pairs(placed) == set(toy_texts(60))
    assert "verdict" in refused(path, TextReadOptions(text_column="remark", label_column="verdikt"))


def test_quotation_marks_in_a_tsv_are_characters(tmp_path):
    texts = [(label, f'" {written} " said "he') for label, written in toy_texts(60)]
    path = tmp_path / "a.tsv"
    path.write_text("".join(f"{b}\t{a}\n" for a, b in texts))
    assert pairs(text.load(str(path))) == set(texts)
    quoted = [(label, f'so "{written}" it is') for label, written in toy_texts(60)]
    assert pairs(text.load(str(table(tmp_path / "b.tsv", [(b, a) for a, b in quoted], "\t")))) == set(quoted)


def test_tfds_texts(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    texts = toy_texts(40)

    class ToyTexts(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = Path(__file__).parent

        def _info(self):
            features = {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(names=["bad", "good"])}
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(features), supervised_keys=("text", "label")
            )

        def _split_generators(self, _):
            return {"train": self._generate_examples(texts[:30]), "test": self._generate_examples(texts[30:])}

        def _generate_examples(self, some):
            for i, (label, written) in enumerate(some):
                yield i, {"text": written, "label": label}

    data = text.load("tfds:toy_texts")
    assert data.counts() == {"train": 26, "validation": 4, "test": 10}
    assert pairs(data) == set(texts)
    assert data.names[0].startswith("toy_texts/train[")


@pytest.mark.parametrize(
    "raw",
    ["naïve 😀 שלום".encode(), b"\xef\xbb\xbf" + "naïve 😀 שלום".encode(), "naïve 😀 שלום".encode("utf-16")],
    ids=["utf-8", "utf-8 with BOM", "utf-16"],
)
def test_encodings(raw):
    assert text.decode(raw) == "naïve 😀 שלום"


def test_a_bad_byte_is_named_with_file_and_line(tmp_path):
    folder = write_texts(tmp_path / "texts", toy_texts(60))
    bad = folder / "good" / "001.txt"
    bad.write_bytes(b"fine\nstill fine\nna\xefve")
    message = refused(folder)
    assert str(bad) in message
    assert "byte 0xef in line 3" in message
    assert "--skip-invalid" in message
    data = text.load(str(folder), TextReadOptions(skip_invalid=True))
    assert len(data.texts) == 59
    assert (str(bad), "not UTF-8: byte 0xef in line 3") in data.findings
    path = tmp_path / "a.csv"
    path.write_bytes(b"text,label\nfine,1\nna\xefve,0\n")
    assert "byte 0xef in line 3" in refused(path)


def test_binary_empty_and_endless_files(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "LONGEST", 2000)
    folder = write_texts(tmp_path / "texts", toy_texts(60))
    for name, content in {"a": b"PK\x03\x04\0\0", "b": b" \n", "c": b"<br /><p></p>", "d": b"word " * 500}.items():
        (folder / "good" / f"{name}.txt").write_bytes(content)
    message = refused(folder)
    for what in ("binary data", "empty", "longer than"):
        assert what in message
    assert len(text.load(str(folder), TextReadOptions(skip_invalid=True)).texts) == 60


def test_all_texts_empty(tmp_path):
    assert "empty" in refused(table(tmp_path / "a.csv", [("text", "label"), *((" ", i % 2) for i in range(20))]))


def test_a_very_long_text_is_read(tmp_path):
    long = "word " * 20_000
    data = text.load(str(table(tmp_path / "a.csv", [("label", "text"), *toy_texts(60), ("good", long)])))
    assert long in data.texts


def test_a_line_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "LONGEST_LINE", 10_000)
    path = tmp_path / "a.csv"
    with open(path, "w") as file:
        file.write("text,label\nfine,1\n")
        for _ in range(500):
            file.write("x" * 100_000)
    tracemalloc.start()
    message = refused(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "Line 3 of" in message
    assert peak < 10_000_000, "50 MB were not read"


def test_repeated_texts_never_cross_the_split(tmp_path):
    texts = [pair for pair in toy_texts(60) for _ in range(2)]
    varied = [(label, written.upper() + " <br />" if i % 2 else written) for i, (label, written) in enumerate(texts)]
    data = text.load(str(table(tmp_path / "a.csv", [("label", "text"), *varied])))
    of = {name: {data.texts[i].lower().removesuffix(" <br />") for i in getattr(data, name)} for name in data.counts()}
    assert not of["train"] & of["test"]
    assert not of["train"] & of["validation"]
    assert any("repeat" in warning for warning in data.warnings)


def test_rows_without_a_label(tmp_path):
    path = table(tmp_path / "a.csv", [("label", "text"), *toy_texts(60), ("", "no label here")])
    assert "Row 61" in refused(path)
    data = text.load(str(path), TextReadOptions(skip_invalid=True))
    assert len(data.texts) == 60
    assert any("Row 61" in warning for warning in data.warnings)


def test_labels_that_differ_in_case_only_are_pointed_out(tmp_path):
    texts = toy_texts(80, classes=("bad", "good", "Good"))
    data = text.load(str(table(tmp_path / "a.csv", [("label", "text"), *texts])))
    assert any("'Good'" in warning and "'good'" in warning for warning in data.warnings)


def test_one_class_only(tmp_path):
    rows = [("good", written) for _, written in toy_texts(30)]
    assert "only one class, 'good'" in refused(table(tmp_path / "a.csv", [("label", "text"), *rows]))


def test_pictures_are_no_texts(make_folder):
    assert "No texts in the folders" in refused(make_folder())
    assert "no labelled texts" in refused("digits")


def test_fewer_labels_and_a_limit(text_table):
    data = text.load(str(text_table), split=SplitOptions(shots=5))
    assert np.bincount(data.labels[data.train]).tolist() == [5, 5]
    assert data.counts()["test"] == text.load(str(text_table)).counts()["test"]
    assert len(text.load(str(text_table), limit=30).texts) == 30


def test_inputs_are_files_folders_tables_or_texts(tmp_path, text_table):
    folder = write_texts(tmp_path / "some", toy_texts(4))
    rows = [Line(written) for _, written in toy_texts(60)]
    found = list(text.expand([str(folder / "bad"), "A plain text.", str(text_table), str(folder / "*" / "001.txt")]))
    assert found[:2] == sorted((folder / "bad").iterdir())
    assert found[2] == "A plain text."
    assert found[3:63] == rows
    assert found[63:] == [folder / "good" / "001.txt"]
    assert [text.read(item) for item in found[:2]] == [written for label, written in toy_texts(4) if label == "bad"]
    (missing,) = text.expand(["gone.txt"])
    assert missing == InvalidInput("gone.txt", "no such file")
    assert list(text.expand([Line(str(text_table)), None])) == [str(text_table), None], "a line is never a file"
