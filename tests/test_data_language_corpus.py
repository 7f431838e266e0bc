"""Tests of plain-text corpora: sources, splits, tokenizers and token IDs on disk."""

import gzip
import json
from pydoc_data import topics

import numpy as np
import pytest

from dltoolkit.data.language import corpus
from dltoolkit.errors import UserError

TEXT = "".join(f"{i} bottles of beer.\n" for i in range(500))


@pytest.fixture
def load(tmp_path):
    return lambda data, **options: corpus.load(str(data), cache_dir=tmp_path / "cache", **options)


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "beer.txt"
    path.write_text(TEXT)
    return path


def decode(loaded, split):
    return loaded.tokenizer.decode(loaded.split(split).tolist())


@pytest.mark.parametrize("tokenizer", ["char", "byte", "bpe"])
def test_load_splits_a_file_into_contiguous_parts(load, text_file, tokenizer):
    loaded = load(text_file, tokenizer=tokenizer, vocab_size=300)
    texts = [decode(loaded, split) for split in ("train", "validation", "test")]
    assert "".join(texts) == TEXT
    assert [len(text) for text in texts] == list(loaded.characters.values())
    assert len(texts[1]) == len(texts[2]) == round(0.1 * len(TEXT))


def test_load_bounds_the_held_out_characters(load, text_file, monkeypatch):
    monkeypatch.setattr(corpus, "MAX_HELD_OUT", 50)
    assert load(text_file).characters == {"train": len(TEXT) - 100, "validation": 50, "test": 50}


def test_load_validates_on_the_tail(load, text_file):
    loaded = load(text_file, validation_tail=0.1)
    assert list(loaded.splits) == ["train", "validation"]
    assert decode(loaded, "validation") == TEXT[round(0.9 * len(TEXT)) :]


def test_load_trains_the_tokenizer_on_the_training_split(load, tmp_path):
    (tmp_path / "odd.txt").write_text("ab" * 500 + "abX" * 30)
    loaded = load(tmp_path / "odd.txt")
    assert loaded.tokenizer.vocab_size == 3  # a, b and unknown
    assert loaded.warnings == [
        "30 characters of the other splits do not occur in the training split and count as unknown."
    ]
    assert sum((loaded.split(split) == 0).sum() for split in loaded.splits) == 30


def test_load_uses_an_existing_tokenizer(load, tmp_path, text_file):
    tokenizer = load(text_file).tokenizer
    (tmp_path / "other.txt").write_text("bottles? " * 50)
    loaded = load(tmp_path / "other.txt", tokenizer=tokenizer)
    assert loaded.tokenizer is tokenizer
    assert loaded.warnings == ["The vocabulary lacks 50 characters of the text, which count as unknown."]


def test_load_reads_all_text_files_of_a_folder(load, tmp_path):
    folder = tmp_path / "docs"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.md").write_text("# Title\n" * 30)
    (folder / "b.py").write_text("x = 1\n" * 30)
    (folder / "inner" / "c.txt.gz").write_bytes(gzip.compress(b"packed\n" * 30))
    (folder / "d.png").write_bytes(b"\x89PNG")
    loaded = load(folder, tokenizer="byte")
    text = "".join(decode(loaded, split) for split in loaded.splits)
    assert text == "# Title\n" * 30 + "\n" + "x = 1\n" * 30 + "\n" + "packed\n" * 30


def test_load_keeps_splits_that_files_are_named_after(load, tmp_path):
    folder = tmp_path / "splits"
    folder.mkdir()
    for name in ("train", "valid", "test"):
        (folder / f"{name}.txt").write_text(f"{name} text\n" * 50)
    loaded = load(folder, tokenizer="byte")
    assert {split: decode(loaded, split)[:5] for split in loaded.splits} == {
        "train": "train",
        "validation": "valid",
        "test": "test ",
    }
    with pytest.raises(UserError, match="predefined splits, which limit would cut"):
        load(folder, limit=100)


def test_load_reads_a_column_of_a_table(load, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"id": i, "story": f"Story {i}."}) + "\n" for i in range(100)))
    assert "Story 0.\nStory 1." in decode(load(path, text_column="story"), "train")
    with pytest.raises(UserError, match="id, story"):
        load(path, text_column="text")


def test_load_reads_the_documentation_of_python(load):
    texts = topics.topics.values()
    assert sum(load("python-docs").characters.values()) == sum(map(len, texts)) + len(texts) - 1  # with line breaks


def test_load_reuses_token_ids_on_disk_until_the_text_changes(load, text_file, tmp_path):
    first = load(text_file)
    (cached,) = (tmp_path / "cache").glob("*.array")
    written = cached.stat().st_mtime_ns
    second = load(text_file)
    assert cached.stat().st_mtime_ns == written
    assert second.fingerprint == first.fingerprint
    assert (second.token_ids == first.token_ids).all()
    assert isinstance(first.token_ids.base, np.memmap)
    first.release_pages()
    assert decode(first, "test") == decode(second, "test")
    text_file.write_text(TEXT.replace("beer", "wine"))
    assert load(text_file).fingerprint != first.fingerprint


def test_load_limits_the_characters(load, text_file):
    loaded = load(text_file, limit=1000)
    assert "".join(decode(loaded, split) for split in loaded.splits) == TEXT[:1000]
    assert loaded.warnings == ["--limit uses the first 1,000 characters of the text only."]
    assert load(text_file, limit=len(TEXT)).warnings == []


def test_load_says_which_files_and_rows_are_left_out(load, tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    for name in ("a.txt", "b.pdf", "c.PDF", "d.docx", "e"):
        (folder / name).write_text(TEXT)
    (message,) = load(folder).warnings
    assert message.startswith(f"Left out, because {folder} is read as files of the types .txt, .md")
    assert message.endswith(": 2 × .pdf, 1 × .docx, 1 × no suffix.")
    (tmp_path / "rows.csv").write_text("text,id\n" + "".join(f"{'' if i % 5 else 'beer'},{i}\n" for i in range(50)))
    loaded = load(tmp_path / "rows.csv")
    assert sum(loaded.characters.values()) == len("\n".join(["beer"] * 10))
    assert loaded.warnings == [f"Left out, because they have no text: 40 rows of {tmp_path / 'rows.csv'}."]


def test_load_says_that_bpe_is_trained_on_a_part_of_the_text(load, text_file, monkeypatch):
    pytest.importorskip("tokenizers")
    monkeypatch.setattr(corpus, "MAX_TRAINING_CHARACTERS", 500)
    (message,) = load(text_file, tokenizer="bpe", vocab_size=300).warnings
    assert message.startswith("The tokenizer is trained on the first 500 of the 8,312 characters")


@pytest.mark.parametrize(("encoding", "given"), [("utf-16", None), ("utf-8-sig", None), ("cp1252", "cp1252")])
def test_load_reads_other_encodings(load, tmp_path, encoding, given):
    text = "Naïve café.\r\n" * 100
    (tmp_path / "text.txt").write_bytes(text.encode(encoding))
    loaded = load(tmp_path / "text.txt", encoding=given)
    assert "".join(decode(loaded, split) for split in loaded.splits) == text


def test_load_names_the_line_of_an_invalid_byte_in_any_chunk(load, tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "CHUNK_CHARACTERS", 4)
    (tmp_path / "bad.txt").write_bytes(b"one\ntwo\nthree\nna\xefve\n")
    message = r"byte 0xef in line 4\); it looks like cp1252: give encoding='cp1252'"
    with pytest.raises(UserError, match=message):
        load(tmp_path / "bad.txt")
    (tmp_path / "bad.txt").write_bytes("one two three\n".encode("utf-16-le"))
    with pytest.raises(UserError, match="it looks like UTF-16-LE: give encoding='utf-16-le'"):
        load(tmp_path / "bad.txt")
    (tmp_path / "bad.txt").write_bytes(b"a line of text\n" * 9 + b"a NUL:\0")
    with pytest.raises(UserError, match="bad.txt has a NUL character in line 10, so it is binary or damaged"):
        load(tmp_path / "bad.txt")


def test_load_refuses_what_is_not_text(load, tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"one\ntwo\nna\xefve\n" * 10)
    with pytest.raises(UserError, match=r"bad.txt is not UTF-8 text \(byte 0xef in line 3\)"):
        load(tmp_path / "bad.txt")
    (tmp_path / "void.txt").write_text("")
    with pytest.raises(UserError, match="contains no text"):
        load(tmp_path / "void.txt")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"x" * 1000)[:20])
    with pytest.raises(UserError, match=r"cut.gz cannot be read"):
        load(tmp_path / "cut.gz")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.png").touch()
    with pytest.raises(UserError, match="No texts in"):
        load(tmp_path / "none")
    with pytest.raises(UserError, match="digits is not a plain-text corpus"):
        load("digits")
    assert not list((tmp_path / "cache").glob("*unfinished*"))


def test_character_stream_takes_exact_numbers_of_characters():
    stream = corpus.CharacterStream(iter(["abc", "", "defg", "h"]))
    assert "".join(stream.take(2)) == "ab"
    assert "".join(stream.take(4)) == "cdef"
    assert "".join(stream.take(9)) == "gh"


def test_load_keeps_token_ids_in_memory_if_the_cache_cannot_be_written(text_file, tmp_path):
    (tmp_path / "file").touch()
    loaded = corpus.load(str(text_file), cache_dir=tmp_path / "file" / "cache")
    assert "".join(decode(loaded, split) for split in ("train", "validation", "test")) == TEXT
    loaded.release_pages()
    assert decode(loaded, "train") == TEXT[: loaded.characters["train"]]
    assert (tmp_path / "file").read_bytes() == b""
