"""Config files in YAML and JSON, of any origin."""

import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from dltoolkit import config, config_file
from dltoolkit.config import OptimizerOptions, RunConfig
from dltoolkit.errors import UserError

LAUGHS = "a: &a [lol, lol, lol]\n" + "".join(f"{x}: &{x} [*{y}, *{y}, *{y}]\n" for x, y in ("ba", "cb", "dc"))


@dataclass(frozen=True, kw_only=True)
class Toy(RunConfig, OptimizerOptions):
    pass


def test_make_reads_what_yaml_and_json_files_hold(tmp_path):
    (tmp_path / "a.yaml").write_text("epochs: 3\nlearning-rate: 1e-3\n")
    (tmp_path / "a.json").write_text('{"epochs": 3, "learning_rate": 0.001}')
    read = [config_file.read(tmp_path / name) for name in ("a.yaml", "a.json")]
    assert config.make(Toy, read[0]) == config.make(Toy, read[1]) == Toy(epochs=3, learning_rate=1e-3)
    (tmp_path / "empty.yaml").write_text("")
    assert config_file.read(tmp_path / "empty.yaml") == {}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.yaml", b"epochs: [3", "not valid YAML"),
        ("a.json", b"{", "not valid JSON"),
        ("a.yaml", b"- 3", "it holds a list"),
        ("a.yaml", b"\xff\xfe\x00\x01", "Cannot read"),
        ("missing.yaml", None, "No such file"),
        ("a.yaml", b"seed: 1\nepochs: " + b"[" * 5_000, "nested too deeply"),
        ("a.json", b'{"epochs": ' + b"[" * 100_000, "nested too deeply"),
        ("a.yaml", LAUGHS.encode(), r"line 2: the alias \*a is not read"),
        ("a.yaml", b"a: &a {x: 1}\nb:\n  <<: [*a, *a]\n", r"line 3: the alias \*a is not read"),
        ("a.yaml", b"seed: 1\nepochs: 1\nepochs: 2\n", "line 3: the key 'epochs' twice"),
        ("a.json", b'{"epochs": 1, "epochs": 2}', "the key 'epochs' twice"),
        ("a.yaml", b"seed: 1\nepochs: " + b"1" * 10_000, "line 2: '1111111111"),
        ("a.json", b'{"epochs": ' + b"1" * 10_000 + b"}", "a number of 10,000 digits"),
        ("a.yaml", b"epochs: 2024-99-99", "'2024-99-99' is no value"),
        ("a.json", b'{"learning_rate": NaN}', "NaN"),
        ("a.yaml", b"epochs: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a.yaml", b"#" * 1_000_001, "larger than 1 MB"),
    ],
)
def test_a_broken_file_is_named_in_one_short_sentence(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        config_file.read(tmp_path / name)
    assert len(str(error.value)) < 400
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epochs: many", "epochs must be a whole number, not 'many'."),
        ("seed: 1\nlearning_rate: .nan", "learning_rate must be a number, not 'nan'."),
        ("epoch: 3", "There is no option 'epoch'; did you mean 'epochs'?"),
        ("learning-rate: 0.1\nlearning_rate: 0.2", "learning_rate is given twice: leave one of them out."),
    ],
)
def test_a_wrong_value_is_named_with_its_file(tmp_path, content, message):
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(UserError) as error:
        config_file.parse(Toy, tmp_path / "a.yaml")
    assert str(error.value) == f"{tmp_path / 'a.yaml'}: {message}"


@pytest.mark.parametrize(("written", "shown"), [("1" * 4_000, 400), ("k" * 900, 400)])
def test_a_long_value_does_not_fill_the_message(written, shown):
    with pytest.raises(UserError) as error:
        config.make(Toy, {"epochs": written} if written[0] == "1" else {written: 1})
    assert len(str(error.value)) < shown


def test_the_command_answers_a_pipe_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    command = [sys.executable, "-m", "dltoolkit", "train", "image-classifier", "--config", tmp_path / "pipe.yaml"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "a pipe, not a regular file" in result.stderr
