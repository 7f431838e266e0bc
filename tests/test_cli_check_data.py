"""``dltoolkit check-data``: what was understood of data, without training."""

import json
import shlex
import subprocess
import sys

import pytest
from conftest import run_command, toy_texts, write_images


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "my toys", 10, side=16)


def test_check_data_prints_what_was_understood_and_trains_nothing(images, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run_command(capfd, "check-data", "my toys", "--seed", "3", "--no-skip-invalid")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("Data      my toys (")
    assert "Examples  30 images" in lines
    assert "Classes   3: bars (10), dots (10), plain (10)" in lines
    assert any(line.startswith("Splits    18 train, 6 validation, 6 test") for line in lines)
    assert any(line.startswith("Images    16x16") for line in lines)
    words = shlex.split(lines[-1].removeprefix("Train with these data: "))
    assert words == ["dltoolkit", "train", "image-classifier", "my toys", "--seed", "3", "--no-skip-invalid"]
    assert run_command(capfd, *words[1:], "--help")[0] == 0, "the printed command is valid"
    assert [path.name for path in tmp_path.iterdir()] == ["my toys"]


def test_check_data_lists_findings_and_splits_as_training_would(images, capfd):
    (images / "bars" / "copy.png").write_bytes((images / "bars" / "0.png").read_bytes())
    (images / "bars" / "broken.png").write_bytes(b"not an image")
    code, _, err = run_command(capfd, "check-data", str(images))
    assert (code, err.startswith("Error: 1 of 32 images cannot be used")) == (2, True)
    code, out, err = run_command(capfd, "check-data", str(images), "--skip-invalid")
    assert "Findings  2 unusable or repeated examples" in out
    assert "Warning: 1 image repeats another exactly" in " ".join(err.split())
    code, out, _ = run_command(capfd, "check-data", str(images), "--skip-invalid", "--format", "json")
    described = json.loads(out)
    assert described["recipe"] == "image-classifier"
    assert sum(described["splits"].values()) == 31
    assert {finding["input"].rsplit("/", 1)[-1] for finding in described["findings"]} == {"broken.png", "copy.png"}


def test_check_data_detects_the_recipe_and_takes_another(capfd, tmp_path, text_table):
    code, out, _ = run_command(capfd, "check-data", str(text_table), "--label-column", "label")
    assert code == 0
    assert "Columns   text from 'text', label from 'label'" in out
    assert f"dltoolkit train sentiment-analyzer {text_table} --label-column label" in out
    (tmp_path / "book.txt").write_text("\n".join(text for _, text in toy_texts(100)))
    _, out, _ = run_command(capfd, "check-data", str(tmp_path / "book.txt"))
    assert "character tokenizer" in out
    assert "dltoolkit train text-generator" in out
    _, out, _ = run_command(capfd, "check-data", "digits", "--recipe", "image_gan", "--limit", "300")
    assert "Examples  300 images" in out
    assert "dltoolkit train image_gan digits --limit 300" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["./nowhere"], "No such file or folder"),
        (["digits", "--recipe", "fine"], "Did you mean 'fine-tune'?"),
        (["digits", "--tokenizer", "bpe"], "--tokenizer has no effect on data for image-classifier"),
        (["digits", "--limit", "3"], "--limit must be at least 10"),
        (["digits", "--epochs", "3"], "There is no option '--epochs'"),
        (["digits", "--test-size", "0.2"], "did you mean --test-fraction?"),
    ],
)
def test_check_data_refuses_wrong_input(words, message, capfd):
    code, out, err = run_command(capfd, "check-data", *words)
    assert (code, out) == (2, "")
    assert message in err


def test_check_data_and_its_help_import_no_tensorflow(images, tmp_path):
    code = (
        "import sys; from dltoolkit import cli\n"
        "for words in (['check-data', '--help'], ['check-data', sys.argv[1]]):\n"
        "    try: cli.main(words)\n"
        "    except SystemExit as stop: assert stop.code == 0, stop.code\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(images)], env={"COLUMNS": "80", "HOME": str(tmp_path)}, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.decode().partition("Data  ")[0].splitlines())) <= 80
