"""Tests of labeled texts: sources, encodings, splits and error messages."""

import csv
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from conftest import toy_texts, write_texts

from dltoolkit.data.options import SplitOptions, TextReadOptions
from dltoolkit.data.readers import delimited
from dltoolkit.data.text import dataset
from dltoolkit.errors import InvalidInput, UserError
from dltoolkit.lines import Line

pytestmark = pytest.mark.usefixtures("isolated_cache")

SKIP_INVALID = TextReadOptions(skip_invalid=True)


def write_table(path: Path, rows, delimiter: str = ",") -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return path


def load(data, *options, **keywords) -> dataset.TextSplits:
    return dataset.load(str(data), *options, **keywords)


def error_message(data, *options) -> str:
    with pytest.raises(UserError) as raised:
        load(data, *options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def labeled_texts(splits: dataset.TextSplits) -> set[tuple[str, str]]:
    return {(splits.classes[label], text) for label, text in zip(splits.labels, splits.texts, strict=True)}


def test_load_keeps_a_predefined_test_split_of_class_folders(tmp_path):
    texts = toy_texts(60)
    write_texts(tmp_path / "imdb" / "train", texts[:40])
    write_texts(tmp_path / "imdb" / "test", texts[40:])
    splits = load(tmp_path / "imdb")
    assert splits.classes == ["bad", "good"]
    assert splits.counts() == {"train": 34, "validation": 6, "test": 20}
    assert {splits.texts[i] for i in splits.test} == {text for _, text in texts[40:]}
    assert labeled_texts(splits) == set(texts)
    assert splits.names[0].endswith(".txt")


def test_load_reads_tables_of_every_type(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    examples = toy_texts(60)
    labels, texts = zip(*examples, strict=True)
    rows = [(text, label) for label, text in examples]
    with_ids = [("Sentiment", "id", "Review"), *((label, i, text) for i, (label, text) in enumerate(examples))]
    paths = {
        "csv": write_table(tmp_path / "a.csv", with_ids),
        "tsv": write_table(tmp_path / "b.tsv", [("text", "label"), *rows], "\t"),
        "without a header": write_table(tmp_path / "c.tsv", rows, "\t"),
        "jsonl": tmp_path / "d.jsonl",
        "parquet": tmp_path / "e.parquet",
    }
    paths["jsonl"].write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    parquet.write_table(pyarrow.table({"text": list(texts), "label": list(labels)}), paths["parquet"])
    for table_type, path in paths.items():
        assert labeled_texts(load(path)) == set(examples), table_type


def test_load_finds_columns_by_name_and_by_position(tmp_path):
    rows = [("when", "remark", "verdict"), *((i, text, label) for i, (label, text) in enumerate(toy_texts(60)))]
    path = write_table(tmp_path / "a.csv", rows)
    message = error_message(path)
    assert "when, remark, verdict" in message
    assert "--text-column" in message
    by_name = load(path, TextReadOptions(text_column="remark", label_column="verdict"))
    by_position = load(path, TextReadOptions(text_column="2", label_column="3"))
    assert labeled_texts(by_name) == labeled_texts(by_position) == set(toy_texts(60))
    assert "verdict" in error_message(path, TextReadOptions(text_column="remark", label_column="verdikt"))


def test_load_keeps_quotation_marks_in_a_tsv(tmp_path):
    texts = [(label, f'" {text} " said "he') for label, text in toy_texts(60)]
    path = tmp_path / "a.tsv"
    path.write_text("".join(f"{text}\t{label}\n" for label, text in texts))
    assert labeled_texts(load(path)) == set(texts)
    quoted = [(label, f'so "{text}" it is') for label, text in toy_texts(60)]
    path = write_table(tmp_path / "b.tsv", [(text, label) for label, text in quoted], "\t")
    assert labeled_texts(load(path)) == set(quoted)


def test_load_reads_a_tfds_data_set(tmp_path, monkeypatch):
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

        def _generate_examples(self, examples):
            for i, (label, text) in enumerate(examples):
                yield i, {"text": text, "label": label}

    splits = load("tfds:toy_texts")
    assert splits.counts() == {"train": 26, "validation": 4, "test": 10}
    assert labeled_texts(splits) == set(texts)
    assert splits.names[0].startswith("toy_texts/train[")


@pytest.mark.parametrize(
    "raw",
    ["naïve 😀 שלום".encode(), b"\xef\xbb\xbf" + "naïve 😀 שלום".encode(), "naïve 😀 שלום".encode("utf-16")],
    ids=["utf-8", "utf-8 with BOM", "utf-16"],
)
def test_decode_detects_the_encoding(raw):
    assert dataset.decode(raw) == "naïve 😀 שלום"


def test_load_names_the_file_and_line_of_an_invalid_byte(tmp_path):
    folder = write_texts(tmp_path / "texts", toy_texts(60))
    bad = folder / "good" / "001.txt"
    bad.write_bytes(b"fine\nstill fine\nna\xefve")
    message = error_message(folder)
    assert str(bad) in message
    assert "byte 0xef in line 3" in message
    assert "--skip-invalid" in message
    splits = load(folder, SKIP_INVALID)
    assert len(splits.texts) == 59
    assert (str(bad), "not UTF-8: byte 0xef in line 3") in splits.findings
    path = tmp_path / "a.csv"
    path.write_bytes(b"text,label\nfine,1\nna\xefve,0\n")
    assert "byte 0xef in line 3" in error_message(path)


def test_load_refuses_binary_empty_and_endless_files(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "MAX_BYTES", 2000)
    folder = write_texts(tmp_path / "texts", toy_texts(60))
    for name, content in {"a": b"PK\x03\x04\0\0", "b": b" \n", "c": b"<br /><p></p>", "d": b"word " * 500}.items():
        (folder / "good" / f"{name}.txt").write_bytes(content)
    message = error_message(folder)
    for reason in ("binary data", "empty", "longer than"):
        assert reason in message
    assert len(load(folder, SKIP_INVALID).texts) == 60


def test_load_refuses_a_table_of_empty_texts(tmp_path):
    path = write_table(tmp_path / "a.csv", [("text", "label"), *((" ", i % 2) for i in range(20))])
    assert "empty" in error_message(path)


def test_load_reads_a_text_of_100_kilobytes(tmp_path):
    text = "word " * 20_000
    splits = load(write_table(tmp_path / "a.csv", [("label", "text"), *toy_texts(60), ("good", text)]))
    assert text in splits.texts


def test_load_stops_reading_an_endless_line(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "MAX_LINE_LENGTH", 10_000)
    path = tmp_path / "a.csv"
    with open(path, "w") as file:
        file.write("text,label\nfine,1\n")
        for _ in range(500):
            file.write("x" * 100_000)
    tracemalloc.start()
    message = error_message(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "Line 3 of" in message
    assert peak < 10_000_000  # the file has 50 MB


def test_load_keeps_duplicates_within_one_split(tmp_path):
    texts = [example for example in toy_texts(60) for _ in range(2)]
    varied = [(label, text.upper() + " <br />" if i % 2 else text) for i, (label, text) in enumerate(texts)]
    splits = load(write_table(tmp_path / "a.csv", [("label", "text"), *varied]))
    texts_of = {
        split: {splits.texts[i].lower().removesuffix(" <br />") for i in getattr(splits, split)}
        for split in splits.counts()
    }
    assert all(texts_of.values())
    assert not texts_of["train"] & texts_of["test"]
    assert not texts_of["train"] & texts_of["validation"]
    assert any("repeat" in warning for warning in splits.warnings)


def test_load_refuses_or_skips_rows_without_a_label(tmp_path):
    path = write_table(tmp_path / "a.csv", [("label", "text"), *toy_texts(60), ("", "no label here")])
    assert "Line 62" in error_message(path)
    splits = load(path, SKIP_INVALID)
    assert len(splits.texts) == 60
    assert any("Line 62" in warning for warning in splits.warnings)


def test_load_warns_of_labels_that_differ_in_case_only(tmp_path):
    texts = toy_texts(80, classes=("bad", "good", "Good"))
    splits = load(write_table(tmp_path / "a.csv", [("label", "text"), *texts]))
    assert any("'Good'" in warning and "'good'" in warning for warning in splits.warnings)


def test_load_refuses_a_single_class(tmp_path):
    rows = [("good", text) for _, text in toy_texts(30)]
    message = error_message(write_table(tmp_path / "a.csv", [("label", "text"), *rows]))
    assert "only one class, 'good'" in message


def test_load_refuses_images(make_folder):
    assert "no texts in its folders" in error_message(make_folder())
    assert "digits contains no labeled texts" in error_message("digits")


def test_load_takes_shots_and_a_limit(text_table):
    splits = load(text_table, TextReadOptions(), SplitOptions(shots=5))
    assert np.bincount(splits.labels[splits.train]).tolist() == [5, 5]
    assert splits.counts()["test"] == load(text_table).counts()["test"]
    assert len(load(text_table, limit=30).texts) == 30


def test_labeled_maps_labels_to_the_classes_of_a_model(text_table):
    texts, labels, names = dataset.labeled(str(text_table), ["Good", "Bad", "ugly"])
    assert len(texts) == len(labels) == len(names) == 60
    expected = {text: label for label, text in toy_texts(60)}
    assert [["good", "bad"][label] for label in labels] == [expected[text] for text in texts]
    with pytest.raises(UserError, match="The model does not have the label 'bad'"):
        dataset.labeled(str(text_table), ["good", "ugly"])


def test_with_encoder_encodes_the_texts_again(text_table):
    splits = load(text_table)
    encoded = [splits.with_encoder(lambda tokenized, name=name: name) for name in ("first", "second")]
    assert [other.token_ids for other in encoded] == ["first", "second"]
    assert [other.with_encoder(lambda tokenized: "third").token_ids for other in encoded] == ["third", "third"]
    assert all(other.tokenized.texts is splits.texts for other in encoded)


def test_expand_yields_files_rows_and_plain_texts(tmp_path, text_table):
    folder = write_texts(tmp_path / "texts", toy_texts(4))
    rows = [Line(text) for _, text in toy_texts(60)]
    names = [str(folder / "bad"), "A plain text.", str(text_table), str(folder / "*" / "001.txt")]
    items = list(dataset.expand(names))
    assert items[:2] == sorted((folder / "bad").iterdir())
    assert items[2] == "A plain text."
    assert items[3:63] == rows
    assert items[63:] == [folder / "good" / "001.txt"]
    assert [dataset.read_text(item) for item in items[:2]] == [text for label, text in toy_texts(4) if label == "bad"]
    assert list(dataset.expand(["gone.txt"])) == [InvalidInput("gone.txt", "no such file")]
    assert list(dataset.expand([Line(str(text_table)), None])) == [str(text_table), None]  # a line is never a file


def test_summary_says_what_was_read(text_table, tmp_path):
    splits = load(text_table)
    assert splits.summary()[:5] == [
        ("Data", f"{text_table} (table)"),
        ("Examples", "60 texts"),
        ("Classes", "2: bad 30, good 30"),
        ("Splits", "44 train, 8 validation, 8 test; split by class and content"),
        ("Columns", "text from 'text', label from 'label'"),
    ]
    assert splits.describe()["columns"] == {"text": "text", "label": "label"}
    write_texts(tmp_path / "imdb" / "train", toy_texts(40))
    write_texts(tmp_path / "imdb" / "test", toy_texts(20, seed=1))
    rows = dict(load(tmp_path / "imdb").summary())
    assert rows["Data"].endswith("imdb (class folders)")
    assert rows["Splits"] == (
        "34 train, 6 validation, 20 test; test predefined by folders, validation split from train by class and content"
    )
    assert "Columns" not in rows
