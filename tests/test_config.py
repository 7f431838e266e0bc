"""Options: one declaration, checked wherever the value comes from."""

from dataclasses import dataclass
from typing import Literal

import pytest

from dltoolkit import config
from dltoolkit.config import RunConfig, option
from dltoolkit.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Toy(RunConfig):
    model: Literal["resnet", "cnn"] = option("resnet", "Network family.")
    widths: tuple[int, ...] | None = option(None, "Stages.", minimum=1)
    flip: bool | None = option(None, "Mirror.")


def test_values_are_parsed_by_type():
    made = config.make(
        Toy,
        {"learning-rate": "1e-3", "epochs": "7", "max_time": "1h30m", "widths": "32,64", "model": "cnn", "flip": True},
    )
    assert (made.learning_rate, made.epochs, made.max_time) == (1e-3, 7, 5400.0)
    assert (made.widths, made.model, made.flip) == ((32, 64), "cnn", True)
    assert config.make(Toy, made.to_dict()) == made


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("1h30m", 5400), ("2m 5s", 125), (3, 3)],
)
def test_durations(text, seconds):
    assert config.parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "There is no option 'epoch'. Did you mean 'epochs'?"),
        ({"epochs": -1}, "--epochs must be at least 1, not -1."),
        ({"epochs": 2.5}, "--epochs must be a whole number, not '2.5'."),
        ({"epochs": True}, "--epochs must be a whole number"),
        ({"learning_rate": "nan"}, "--learning-rate must be a number"),
        ({"learning_rate": 1e9}, "--learning-rate must be at most 100"),
        ({"batch_size": 0}, "--batch-size must be at least 1"),
        ({"model": "resnett"}, "Did you mean 'resnet'?"),
        ({"widths": "32,none"}, "--widths must be a whole number, not 'none'."),
        ({"widths": [0]}, "--widths must be at least 1"),
        ({"flip": "perhaps"}, "--flip must be true or false"),
        ({"max_time": "soon"}, "--max-time must be a time such as 90s"),
        ({"batch_size": None}, "--batch-size needs a value."),
    ],
)
def test_wrong_values_are_named(values, message):
    with pytest.raises(UserError, match="option|must|needs") as caught:
        config.make(Toy, values, flags=True)
    assert message in str(caught.value)


def test_python_gets_the_same_checks():
    with pytest.raises(UserError, match="epochs must be at least 1, not 0"):
        Toy(epochs=0)


def test_yaml_and_json_files(tmp_path):
    (tmp_path / "a.yaml").write_text("epochs: 3\nlearning-rate: 1e-3\nwidths: [16, 32]\n")
    (tmp_path / "a.json").write_text('{"epochs": 3, "learning_rate": 0.001, "widths": [16, 32]}')
    assert config.make(Toy, config.read_file(tmp_path / "a.yaml")) == config.make(
        Toy, config.read_file(tmp_path / "a.json")
    )
    (tmp_path / "empty.yaml").write_text("")
    assert config.read_file(tmp_path / "empty.yaml") == {}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.yaml", b"epochs: [3", "not valid YAML"),
        ("a.json", b"{", "not valid JSON"),
        ("a.yaml", b"- 3", "it holds a list"),
        ("a.yaml", b"\xff\xfe\x00\x01", "Cannot read"),
    ],
)
def test_broken_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        config.read_file(tmp_path / name)
    with pytest.raises(UserError, match="No such file"):
        config.read_file(tmp_path / "missing.yaml")
