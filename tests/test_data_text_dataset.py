"""Tests of labeled texts: sources, encodings, splits and error messages."""

import csv
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from conftest import toy_texts, write_texts

from dltoolkit.data.language import tokenizers
from dltoolkit.data.options import SplitOptions, TextReadOptions
from dltoolkit.data.readers import delimited
from dltoolkit.data.text import dataset
from dltoolkit.data.text.encoders import TokenEncoder, VocabularyEncoder
from dltoolkit.data.text.vocabulary import Vocabulary
from dltoolkit.data.text.words import split_words
from dltoolkit.errors import UserError

pytestmark = pytest.mark.usefixtures("isolated_cache")

PAIRS = ("text,text_pair", "sentence,sentence_b", "text_left,text_right", "context,response", "TextA,TextB")
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


def test_unknown_words_of_the_training_texts_are_counted_and_said(tmp_path):
    rows = [(label, f"{text} zzz qqq" if i % 2 else text) for i, (label, text) in enumerate(toy_texts(60))]
    splits = load(write_table(tmp_path / "texts.csv", [("label", "text"), *rows]))
    assert "unknown" not in splits.describe()
    words = [word for row in splits.train for word in split_words(splits.texts[row])]
    vocabulary = Vocabulary(sorted(set(words) - {"zzz", "qqq"}))
    count = words.count("zzz") + words.count("qqq")
    lacking = splits.with_encoder(VocabularyEncoder(vocabulary, 100))
    assert lacking.describe()["unknown"] == {"count": count, "fraction": count / len(words), "unit": "words"}
    assert lacking.summary()[-1] == ("Unknown", f"{100 * count / len(words):.1f} % of the words of the training texts")
    assert splits.with_encoder(VocabularyEncoder(vocabulary)).unknown() is None  # bags hold known words only
    assert splits.with_encoder(TokenEncoder(tokenizers.ByteTokenizer(), 100)).unknown() is None
    letters = splits.with_encoder(TokenEncoder(tokenizers.CharTokenizer(" e"), 9999))
    text = "".join(splits.texts[row] for row in splits.train)
    characters = len("".join(text.split()))
    share = letters.unknown()
    assert (share["count"], share["unit"]) == (characters - text.count("e"), "characters")
    assert share["fraction"] == pytest.approx(1 - text.count("e") / characters)


def test_truncated_texts_are_counted_and_said(tmp_path):
    rows = [(label, f"{text} {'and so on ' * 5}" if i < 12 else text) for i, (label, text) in enumerate(toy_texts(60))]
    splits = load(write_table(tmp_path / "texts.csv", [("label", "text"), *rows]))
    assert "truncated" not in splits.describe()
    vocabulary = Vocabulary.build(splits.tokenized, splits.train, max_size=100, min_df=1)
    limited = splits.with_encoder(VocabularyEncoder(vocabulary, 17))
    description = limited.describe()
    assert description["truncated"] == {"count": 12, "fraction": 0.2, "max_length": 17, "unit": "words"}
    message = "12 of 60 texts are longer than 17 words; their middle is removed (see --max-length)."
    assert description["warnings"] == [*splits.warnings, message]
    assert limited.summary()[-1] == ("Length", "at most 17 words per text; 20.0 % of the texts are longer")
    long_enough = splits.with_encoder(VocabularyEncoder(vocabulary, 100))
    assert long_enough.describe()["truncated"]["count"] == 0
    assert long_enough.describe()["warnings"] == splits.warnings
    assert long_enough.summary()[-1] == ("Length", "at most 100 words per text")
    assert "truncated" not in splits.with_encoder(VocabularyEncoder(vocabulary)).describe()  # bags have no limit


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
    assert "text_column" in message
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


def test_load_names_the_file_and_line_of_an_invalid_byte(tmp_path):
    folder = write_texts(tmp_path / "texts", toy_texts(60))
    bad = folder / "good" / "001.txt"
    bad.write_bytes(b"fine\nstill fine\nna\xefve")
    message = error_message(folder)
    assert str(bad) in message
    assert "byte 0xef in line 3" in message
    assert "skip_invalid" in message
    splits = load(folder, SKIP_INVALID)
    assert len(splits.texts) == 59
    hint = "not UTF-8: byte 0xef in line 3; it looks like cp1252: give encoding='cp1252'"
    assert (str(bad), hint) in splits.findings
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


def test_texts_and_labels_without_a_visible_character_are_empty(tmp_path):
    """A zero-width space, a byte order mark, a variation selector, a Hangul filler, control characters."""
    invisible = ["\u200b", "\ufeff\u200e", "\ufe0f", "\u3164", "\x01\x1f", "&#8203;", "<br>\u200b"]
    visible = ["\u200b.", "👍\ufe0f", "\u0301"]
    rows = [("text", "label"), *((text, label) for label, text in toy_texts(60))]
    path = write_table(tmp_path / "a.csv", [*rows, *((text, "good") for text in (*invisible, *visible))])
    splits = load(path, SKIP_INVALID)
    assert [reason for _, reason in splits.findings] == ["empty"] * len(invisible)
    assert splits.texts[60:] == visible
    path = write_table(tmp_path / "b.csv", [*rows, ("fine", "\u200b")])
    assert f"Line 62 of {path} has nothing in the column 'label'" in error_message(path)


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


@pytest.mark.parametrize(
    "vary",
    [
        lambda text: f"{text.upper()} <br />",
        lambda text: f"{text}.",
        lambda text: f'"{text}"',
        lambda text: text.replace(" ", ", "),
        lambda text: f"\u200b{text}\u200b",
    ],
)
def test_load_keeps_texts_that_a_model_sees_as_equal_within_one_split(tmp_path, vary):
    texts = [(label, f"{text} straße") for label, text in toy_texts(60)]
    rows = [row for label, text in texts for row in [(label, text), (label, vary(text))]]
    splits = load(write_table(tmp_path / "a.csv", [("label", "text"), *rows]))
    split_of = np.zeros(len(rows), int)
    for number, rows_of in enumerate([splits.train, splits.validation, splits.test]):
        split_of[rows_of] = number
    assert (split_of[::2] == split_of[1::2]).all()
    assert np.bincount(split_of).min() > 10
    assert "60 texts repeat others word for word" in splits.warnings[0]
    predefined = [
        ("label", "text", "split"),
        *((label, text, "test" if i % 2 else "train") for i, (label, text) in enumerate(rows)),
    ]
    warnings = load(write_table(tmp_path / "b.csv", predefined)).warnings
    assert any("60 texts of test are word for word also in train or validation" in warning for warning in warnings)


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
    tokenized, labels, names = dataset.labeled(str(text_table), ["Good", "Bad", "ugly"])
    texts = tokenized.texts
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


def test_summary_says_what_was_read(text_table, tmp_path):
    splits = load(text_table)
    assert splits.summary()[:5] == [
        ("Data", f"{text_table} (table)"),
        ("Examples", "60 texts"),
        ("Classes", "2: bad (30), good (30)"),
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


def test_load_reads_the_split_column_of_a_table(tmp_path):
    """The names of the columns, of the splits, and rows of other splits are reported."""
    texts = toy_texts(60)
    names = ["train"] * 40 + ["dev"] * 10 + ["Test"] * 9 + ["unsup"]
    rows = [("label", "text", "Partition"), *((*pair, split) for pair, split in zip(texts, names, strict=True))]
    path = write_table(tmp_path / "a.csv", rows)
    splits = load(path)
    assert splits.counts() == {"train": 40, "validation": 10, "test": 9}
    assert [splits.texts[i] for i in splits.test] == [text for _, text in texts[50:59]]
    assert splits.describe()["columns"] == {"text": "text", "label": "label", "split": "Partition"}
    assert dict(splits.summary())["Splits"] == "40 train, 10 validation, 9 test; predefined by the column 'Partition'"
    assert any("'unsup' (1)" in warning for warning in splits.warnings)
    assert load(path, TextReadOptions(split_column="none")).counts()["train"] == 44
    assert len(load(path, TextReadOptions(split_column="none")).texts) == 60


def test_load_warns_of_a_second_column_of_other_splits(tmp_path):
    def warnings(read: TextReadOptions, *names: str, splits: list[list[str]]) -> list[str]:
        rows = [("label", "text", *names), *((*pair, *row) for pair, row in zip(toy_texts(60), splits, strict=True))]
        return load(write_table(tmp_path / "a.csv", rows), read).warnings

    splits = [["train" if i < 40 else "test", "train" if i // 2 % 2 else "Test"] for i in range(60)]
    assert warnings(TextReadOptions(), "split", "subset", splits=splits) == [
        "The column 'split' is read as the splits, and the column 'subset', which names another split in 30 of 60 "
        "rows, is ignored."
    ]
    assert warnings(TextReadOptions(split_column="subset"), "split", "subset", splits=splits) == []
    agreeing = [[first, first.upper()] for first, _ in splits]
    assert warnings(TextReadOptions(), "split", "subset", splits=agreeing) == []
    for name in ("train", "test"):
        rows = [("label", "text", "split"), *((*pair, "train") for pair in toy_texts(60 if name == "train" else 20))]
        write_table(tmp_path / f"{name}.csv", rows)
    (tmp_path / "a.csv").unlink()
    assert (
        "The files are the splits, and the column 'split', which names another split in 20 of 80 rows, is ignored."
        in load(tmp_path).warnings
    )


def test_load_says_why_a_split_column_is_not_used(tmp_path):
    rows = [("label", "text", "fold"), *((*pair, i % 5) for i, pair in enumerate(toy_texts(60)))]
    path = write_table(tmp_path / "a.csv", rows)
    assert any("The column 'fold'" in warning and "0, 1, 2, …" in warning for warning in load(path).warnings)
    assert "none of which names a split" in error_message(path, TextReadOptions(split_column="fold"))
    rows = [("label", "text", "split"), *((*pair, "test") for pair in toy_texts(60))]
    assert "texts for test but none for train" in error_message(write_table(tmp_path / "b.csv", rows))
    rows = [("label", "text", "is_train"), *((*pair, i % 2) for i, pair in enumerate(toy_texts(60)))]
    assert any("'is_train' is ignored" in warning for warning in load(write_table(tmp_path / "c.csv", rows)).warnings)


@pytest.mark.parametrize("name", ["Usage", "phase", "7"])
def test_load_reads_splits_from_a_column_of_any_name(tmp_path, name):
    values = ["train"] * 40 + ["Val"] * 10 + ["test"] * 10
    rows = [("label", "text", name), *((*pair, value) for pair, value in zip(toy_texts(60), values, strict=True))]
    splits = load(write_table(tmp_path / "a.csv", rows))
    assert splits.counts() == {"train": 40, "validation": 10, "test": 10}
    assert splits.columns["split"] == name
    assert splits.split_origin == f"predefined by the column '{name}'"


@pytest.mark.parametrize("values", [("train", "tets"), ("train", "validation", "tset"), ("train", "unknown")])
def test_load_refuses_misspelled_splits(tmp_path, values):
    rows = [("label", "text", "split"), *((*pair, values[i % len(values)]) for i, pair in enumerate(toy_texts(60)))]
    message = error_message(write_table(tmp_path / "a.csv", rows))
    assert f"has values that name no split: '{values[-1]}' ({60 // len(values)})" in message


def test_labeled_takes_data_that_are_only_a_test_set(tmp_path):
    rows = toy_texts(20)
    write_texts(tmp_path / "folder" / "test", rows)
    (tmp_path / "tables").mkdir()
    write_table(tmp_path / "tables" / "test.csv", [("label", "text"), *rows])
    write_table(tmp_path / "a.csv", [("label", "text", "split"), *((*row, "test") for row in rows)])
    for name, origin in (("folder", "folders"), ("tables", "file names"), ("a.csv", "the column 'split'")):
        notes = []
        assert len(dataset.labeled(str(tmp_path / name), ["bad", "good"], note=notes.append)[1]) == 20
        assert f"its test split, predefined by {origin}" in notes[0]
        assert "test but none for train" in error_message(tmp_path / name)


def test_boolean_labels_of_any_spelling_are_two_classes(tmp_path):
    spellings = ("True", "false", "TRUE", "False")
    rows = [("label", "text"), *((spellings[i % 4], text) for i, (_, text) in enumerate(toy_texts(60)))]
    splits = load(write_table(tmp_path / "a.csv", rows))
    assert (splits.classes, np.bincount(splits.labels).tolist()) == (["False", "True"], [30, 30])
    assert not splits.warnings
    rows = [("label", "text"), *((str(i % 2 == 0).lower(), text) for i, (_, text) in enumerate(toy_texts(60)))]
    assert load(write_table(tmp_path / "b.csv", rows)).classes == ["false", "true"]


def test_labels_that_unicode_considers_equal_are_one_class(tmp_path):
    composed, decomposed = "soir\u00e9e", "soire\u0301e"
    texts = [
        (decomposed if i % 4 == 0 else composed if i % 2 == 0 else "travail", text)
        for i, (_, text) in enumerate(toy_texts(60))
    ]
    splits = load(write_table(tmp_path / "a.csv", [("label", "text"), *texts]))
    assert splits.classes == [composed, "travail"]
    assert np.bincount(splits.labels).tolist() == [30, 30]
    write_texts(
        tmp_path / "folders" / "train", [(composed if i % 2 else "travail", t) for i, (_, t) in enumerate(texts)]
    )
    test = write_texts(tmp_path / "folders" / "test", [(decomposed, "un"), ("travail", "deux")])
    splits = load(tmp_path / "folders")
    assert splits.classes == [composed, "travail"]
    assert splits.labels[splits.test].tolist() == [0, 1]
    _, labels, _ = dataset.labeled(str(test), [composed.upper(), "travail"])
    assert labels.tolist() == [0, 1]
    assert dataset.labeled(str(test), [decomposed, "travail"])[1].tolist() == [0, 1]


def test_load_leaves_out_unlabeled_training_folders(tmp_path):
    """IMDb as published has train/unsup; another class that the test folders lack is refused."""
    texts = toy_texts(60)
    write_texts(tmp_path / "imdb" / "train", [*texts[:40], *(("unsup", f"{text} again") for _, text in texts)])
    write_texts(tmp_path / "imdb" / "test", texts[40:])
    splits = load(tmp_path / "imdb")
    assert splits.classes == ["bad", "good"]
    assert set(splits.labels.tolist()) == {0, 1}
    assert len(splits.texts) == 60
    assert any("60 texts in train/unsup are left out" in warning for warning in splits.warnings)
    (tmp_path / "imdb" / "train" / "unsup").rename(tmp_path / "imdb" / "train" / "neutral")
    assert "'neutral' has a folder in train but no texts in test" in error_message(tmp_path / "imdb")


@pytest.mark.parametrize(
    ("header", "cells", "words"),
    [
        ("text,label", ("comedy|drama", "comedy"), "several labels in the column 'label' ('comedy|drama'"),
        ("text,label", ('"red, blue"', "red", "blue"), "several labels in the column 'label' ('red, blue'"),
        ("text,label", ("['red']", "\"['red', 'blue']\""), "Line 3 of"),
        (
            "text,label",
            ("['red']", "\"['red', 'blue']\""),
            "several labels in the column 'label' ('red', 'blue'; multi-label",
        ),
        ("text,label", ("['red']", '"[red, blue, green, pink]"'), "('red', 'blue', 'green', …; multi-label"),
        ("text,label", ("['red']", "['blue']"), "Line 2 of"),
        ("text,label", ("['red']", "['blue']"), "has a list in the column 'label', but a label is a name"),
        ("text,toxic,rude", ("1,1", "0,0"), "The columns toxic, rude of"),
        ("text,happy,sad", ("0,1", "1,0"), "are one-hot labels"),
        ("text,rating", ("3.5", "3"), "numbers such as 3.5 (regression)"),
        ("text;rating", ("3,5", "3"), "numbers such as 3,5 (regression)"),
        ("premise,hypothesis,label", ("other,yes", "other,no"), "'premise' and 'hypothesis' of"),
        *((f"{names},label", ("other,yes", "other,no"), "are pairs of texts") for names in PAIRS),
        ("text1,text2,label", ("other,yes", "other,no"), "are pairs of texts"),
    ],
)
def test_load_refuses_other_tasks_by_name(tmp_path, header, cells, words):
    delimiter = ";" if ";" in header else ","
    rows = [f"words {number}{delimiter}{other}" for number in range(10) for other in cells]
    path = tmp_path / "a.csv"
    path.write_text("\n".join([header, *rows]))
    assert words in error_message(path)


def test_load_counts_rows_without_text_or_label_as_incomplete(tmp_path):
    path = tmp_path / "a.csv"
    complete = [f"words {number},{label}" for number in range(10) for label in ("good", "bad")]
    path.write_text("\n".join(["text,label", *complete, "one,", "two,", ",good", " ,bad", '"",good', "three,"]))
    expected = f"Line 22 of {path} has nothing in the column 'label', and 5 more rows are incomplete: "
    assert error_message(path).startswith(expected)


@pytest.mark.parametrize("selected", [{"label_column": "text"}, {"text_column": "label"}, {"label_column": "1"}])
def test_load_refuses_one_column_as_text_and_label(tmp_path, selected):
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "so good,good\nso bad,bad\n" * 10)
    with pytest.raises(UserError, match=r"The column '(text|label)' of .* cannot hold both the texts and the labels"):
        dataset.load(str(path), TextReadOptions(**selected))


def test_load_refuses_a_text_file_and_names_tabs(tmp_path):
    path = tmp_path / "amazon.txt"
    path.write_text("So good.\t1\nSo bad.\t0\n")
    assert "rename it to .tsv" in error_message(path)
    path.write_text("So good.\nSo bad.\n")
    assert "contains no labeled texts" in error_message(path)


def test_load_takes_names_with_commas_and_whole_numbers_as_classes(tmp_path):
    names = {"bad": "tench, Tinca tinca", "good": "goldfish, Carassius auratus"}
    rows = [("text", "label"), *((text, names[label]) for label, text in toy_texts(60))]
    assert load(write_table(tmp_path / "a.csv", rows)).classes == sorted(names.values())
    rows = [("text", "label"), *((text, f"{i % 5 + 1}.0") for i, (_, text) in enumerate(toy_texts(60)))]
    assert load(write_table(tmp_path / "b.csv", rows)).classes == ["1", "2", "3", "4", "5"]


def test_load_warns_of_a_second_column_of_texts(tmp_path):
    rows = [("review", "text", "label"), *((f"{text} really", text, label) for label, text in toy_texts(60))]
    (warning,) = load(write_table(tmp_path / "a.csv", rows)).warnings
    assert warning == "The column 'text' is read as the text, not 'review'; --text-column selects another."


def test_load_refuses_options_that_have_no_effect(tmp_path):
    folder = write_texts(tmp_path / "texts", toy_texts(40))
    assert "label_column has no effect on" in error_message(folder, TextReadOptions(label_column="kind"))
    assert "header=False has no effect on" in error_message(folder, TextReadOptions(header=False))
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for label, text in toy_texts(40)))
    assert "header has no effect on" in error_message(path, TextReadOptions(header=True))
    options = TextReadOptions(label_column="kind")  # of a run that was trained on a table
    assert len(dataset.labeled(str(folder), ["bad", "good"], options)[1]) == 40


def test_load_reads_other_encodings(tmp_path):
    texts = [(label, f"{text} naïve café") for label, text in toy_texts(40)]
    table = "".join(f'"{label}","{text}"\n' for label, text in [("label", "text"), *texts])
    for number, (encoding, option) in enumerate([("utf-16", None), ("cp1252", "cp1252"), ("utf-16-le", "utf-16-le")]):
        path = tmp_path / f"{number}.csv"
        path.write_bytes(table.encode(encoding))
        assert labeled_texts(load(path, TextReadOptions(encoding=option))) == set(texts)
        if option:
            assert f"give encoding='{option}'" in error_message(path)
    folder = write_texts(tmp_path / "texts", texts)
    for path in folder.rglob("*.txt"):
        path.write_bytes(path.read_text(encoding="utf-8").encode("cp1252"))
    assert "give encoding='cp1252'" in error_message(folder)
    assert labeled_texts(load(folder, TextReadOptions(encoding="cp1252"))) == set(texts)
    with pytest.raises(UserError, match="no encoding 'cp12x'"):
        TextReadOptions(encoding="cp12x")


def test_load_finds_labels_in_file_names(tmp_path):
    (tmp_path / "flat").mkdir()
    for number, (label, text) in enumerate(toy_texts(40)):
        (tmp_path / "flat" / f"{label}.{number}.txt").write_text(text)
    assert "label_pattern" in error_message(tmp_path / "flat")
    assert labeled_texts(load(tmp_path / "flat", TextReadOptions(label_pattern=r"^(\w+)\."))) == set(toy_texts(40))
    folder = write_texts(tmp_path / "folders", toy_texts(6))
    assert len(dataset.labeled(str(folder), ["bad", "good"], TextReadOptions(label_pattern="none"))[1]) == 6
    message = error_message(tmp_path / "flat", TextReadOptions(label_pattern="(good)"))
    assert "does not match the name of 20 texts" in message
    for pattern in ("good", "(a)(b)", "("):
        with pytest.raises(UserError, match="label_pattern"):
            TextReadOptions(label_pattern=pattern)


def test_labeled_says_what_was_read(tmp_path, text_table):
    notes = []
    dataset.labeled(str(text_table), ["bad", "good"], note=notes.append)
    write_texts(tmp_path / "imdb" / "train", toy_texts(40))
    test = write_texts(tmp_path / "imdb" / "test", toy_texts(6, seed=1))
    dataset.labeled(str(tmp_path / "imdb"), ["bad", "good"], note=notes.append)
    assert notes == [
        f"Evaluating 60 texts of {text_table}: all of it, as it has no predefined test split; text from 'text', label "
        "from 'label'.",
        f"Evaluating 6 texts of {tmp_path / 'imdb'}: its test split, predefined by folders ({test}).",
    ]
