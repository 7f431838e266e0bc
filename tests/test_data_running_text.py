"""Running text from any source: contiguous parts, a vocabulary from training alone, tokens on disk."""

import gzip
import json

import numpy as np
import pytest

from dltoolkit.data.language import corpus as running_text
from dltoolkit.errors import UserError

TEXT = "".join(f"{i} bottles of beer.\n" for i in range(500))


@pytest.fixture
def load(tmp_path):
    def load(data, **options):
        return running_text.load(str(data), cache_dir=tmp_path / "cache", **options)

    return load


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "beer.txt"
    path.write_text(TEXT)
    return path


def decoded(text, part):
    return text.tokenizer.decode(text.part(part).tolist())


@pytest.mark.parametrize("tokens", ["char", "byte", "bpe"])
def test_parts_follow_each_other(load, file, tokens):
    text = load(file, tokens=tokens, pieces=300)
    parts = [decoded(text, part) for part in ("train", "validation", "test")]
    assert "".join(parts) == TEXT
    assert [len(part) for part in parts] == list(text.characters.values())
    assert len(parts[2]) == round(0.1 * len(TEXT))


def test_of_a_long_text_not_all_of_a_tenth_is_held_out(load, file, monkeypatch):
    monkeypatch.setattr(running_text, "MOST_HELD_OUT", 50)
    assert load(file).characters == {"train": len(TEXT) - 100, "validation": 50, "test": 50}


def test_the_last_tenth_validates(load, file):
    text = load(file, validation_tail=0.1)
    assert list(text.parts) == ["train", "validation"]
    assert decoded(text, "validation") == TEXT[round(0.9 * len(TEXT)) :]


def test_the_vocabulary_is_that_of_the_training_part(load, tmp_path):
    (tmp_path / "odd.txt").write_text("ab" * 500 + "abX" * 30)
    text = load(tmp_path / "odd.txt")
    assert text.tokenizer.size == 3
    assert "count as unknown" in text.warnings[0]
    assert (text.part("test") == 0).sum() > 5


def test_a_folder_of_files_of_all_sorts(load, tmp_path):
    folder = tmp_path / "docs"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.md").write_text("# Title\n" * 30)
    (folder / "b.py").write_text("x = 1\n" * 30)
    (folder / "inner" / "c.txt.gz").write_bytes(gzip.compress(b"packed\n" * 30))
    (folder / "d.png").write_bytes(b"\x89PNG")
    text = load(folder, tokens="byte")
    whole = "".join(decoded(text, part) for part in text.parts)
    assert whole == "# Title\n" * 30 + "\n" + "x = 1\n" * 30 + "\n" + "packed\n" * 30


def test_files_named_by_part_are_the_parts(load, tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    for name in ("train", "valid", "test"):
        (folder / f"{name}.txt").write_text(f"{name} text\n" * 50)
    text = load(folder, tokens="byte")
    assert {part: decoded(text, part)[:5] for part in text.parts} == {
        "train": "train",
        "validation": "valid",
        "test": "test ",
    }


def test_a_column_of_a_table(load, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"id": i, "story": f"Story {i}."}) + "\n" for i in range(100)))
    assert "Story 0.\nStory 1." in decoded(load(path, text_column="story"), "train")
    with pytest.raises(UserError, match="id, story"):
        load(path, text_column="text")


def test_python_s_own_documentation(load):
    text = load("python-docs")
    assert sum(text.characters.values()) > 300_000


def test_the_tokens_are_found_again_and_follow_the_text(load, file, tmp_path):
    first = load(file)
    (kept,) = (tmp_path / "cache").glob("*.array")
    stamp = kept.stat().st_mtime_ns
    again = load(file)
    assert kept.stat().st_mtime_ns == stamp
    assert again.fingerprint == first.fingerprint
    assert (again.tokens == first.tokens).all()
    assert isinstance(first.tokens.base, np.memmap)
    file.write_text(TEXT.replace("beer", "wine"))
    assert load(file).fingerprint != first.fingerprint


def test_a_limit_takes_the_beginning(load, file):
    text = load(file, limit=1000)
    assert "".join(decoded(text, part) for part in text.parts) == TEXT[:1000]


def test_a_bad_byte_is_found_in_any_piece(load, tmp_path, monkeypatch):
    monkeypatch.setattr(running_text, "CHUNK", 4)
    (tmp_path / "bad.txt").write_bytes(b"one\ntwo\nthree\nna\xefve\n")
    with pytest.raises(UserError, match="byte 0xef near line 4"):
        load(tmp_path / "bad.txt")


def test_what_cannot_be_read_is_named(load, tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"one\ntwo\nna\xefve\n" * 10)
    with pytest.raises(UserError, match=r"bad.txt is not UTF-8: byte 0xef near line 3"):
        load(tmp_path / "bad.txt")
    (tmp_path / "void.txt").write_text("")
    with pytest.raises(UserError, match="no text"):
        load(tmp_path / "void.txt")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"x" * 1000)[:20])
    with pytest.raises(UserError, match=r"cut.gz cannot be read"):
        load(tmp_path / "cut.gz")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.png").touch()
    with pytest.raises(UserError, match="No texts"):
        load(tmp_path / "none")
    with pytest.raises(UserError, match="no running text"):
        load("digits")
    assert not list((tmp_path / "cache").glob("*unfinished*"))


def test_taking_exactly_so_many_characters():
    stream = running_text.Stream(iter(["abc", "", "defg", "h"]))
    assert "".join(stream.take(2)) == "ab"
    assert "".join(stream.take(4)) == "cdef"
    assert "".join(stream.take(9)) == "gh"
