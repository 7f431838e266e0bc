"""Options written once: a dataclass field that is also a command-line flag and a line in a YAML or JSON file.

    @dataclass(frozen=True, kw_only=True)
    class Config(RunConfig):
        model: Literal["resnet", "cnn"] = option("resnet", "Network family.")
        image_size: int | None = option(None, "Square side in pixels.", minimum=8)

Supported types: ``bool``, ``int``, ``float``, ``str``, :data:`Duration`, ``Literal`` of strings, ``tuple[T, ...]`` of
those, and ``T | None``. Values are checked when a config is made, wherever they come from.
"""

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NewType

from dltoolkit.errors import UserError, suggestion

Duration = NewType("Duration", float)  # seconds; written as 90, 90s, 10m or 1h30m


def option(default: Any, help: str, *, minimum: float | None = None, maximum: float | None = None) -> Any:
    """Declare a dataclass field with its help text and inclusive bounds (for a tuple, bounds of each element)."""
    return dataclasses.field(default=default, metadata={"help": help, "minimum": minimum, "maximum": maximum})


@dataclass(frozen=True)
class Option:
    """One option as read off a config class."""

    name: str
    kind: Any  # bool, int, float, str or Duration
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    optional: bool = False  # None is a value
    multiple: bool = False  # a tuple of values
    minimum: float | None = None
    maximum: float | None = None

    @property
    def flag(self) -> str:
        """The command-line spelling, ``--learning-rate`` for ``learning_rate``."""
        return "--" + self.name.replace("_", "-")

    def parse(self, value: Any, label: str) -> Any:
        """Return ``value`` in the option's type, or raise a UserError that calls the option ``label``."""
        if value is None:
            if self.optional:
                return None
            raise UserError(f"{label} needs a value.")
        if not self.multiple:
            return self._parse_one(value, label)
        if isinstance(value, str):
            value = [part for part in re.split(r"[,\s]+", value) if part]
        elif not isinstance(value, (list, tuple)):
            value = [value]
        if not value:
            return None if self.optional else ()
        return tuple(self._parse_one(element, label) for element in value)

    def _parse_one(self, value: Any, label: str) -> Any:
        if self.choices:
            if value in self.choices:
                return value
            near = suggestion(str(value), self.choices)
            raise UserError(f"{label} must be one of {', '.join(self.choices)}, not '{value}'.{near}")
        try:
            parsed = _PARSERS[self.kind](value)
        except (ValueError, TypeError, OverflowError):
            raise UserError(f"{label} must be {_KIND_NAMES[self.kind]}, not '{value}'.") from None
        if self.minimum is not None and parsed < self.minimum:
            raise UserError(f"{label} must be at least {self.minimum:g}, not {value}.")
        if self.maximum is not None and parsed > self.maximum:
            raise UserError(f"{label} must be at most {self.maximum:g}, not {value}.")
        return parsed


def options(config_class: type) -> dict[str, Option]:
    """Return the options of a config dataclass by name, in their written order."""
    hints = typing.get_type_hints(config_class)
    return {field.name: _read_field(field, hints[field.name]) for field in dataclasses.fields(config_class)}


def _read_field(field: dataclasses.Field, hint: Any) -> Option:
    optional = multiple = False
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
        optional = True
    if typing.get_origin(hint) is tuple:
        hint, multiple = typing.get_args(hint)[0], True
    choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
    kind = str if choices else hint
    if kind not in _PARSERS:
        raise TypeError(f"option '{field.name}' has type {hint!r}, which dltoolkit cannot read from a flag")
    return Option(
        field.name, kind, field.default, choices=choices, optional=optional, multiple=multiple, **field.metadata
    )


def parse_duration(value: Any) -> Duration:
    """Return seconds for a number, or for text such as ``90s``, ``10m``, ``1.5h`` or ``1h30m``."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Duration(_finite(value))
    text = str(value).strip().lower()
    if re.fullmatch(r"\d+(\.\d*)?", text):
        return Duration(float(text))
    if not re.fullmatch(r"(\d+(\.\d+)?[hms]\s*)+", text):
        raise ValueError(value)
    unit_seconds = {"h": 3600.0, "m": 60.0, "s": 1.0}
    return Duration(sum(float(n) * unit_seconds[unit] for n, unit in re.findall(r"(\d+(?:\.\d+)?)([hms])", text)))


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(number := float(value)):
        raise ValueError(value)
    return number


def _whole(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(value)
    return int(value)


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(value)
    return value


def _text(value: Any) -> str:
    if not isinstance(value, (str, Path, int, float)) or isinstance(value, bool):
        raise ValueError(value)
    return str(value)


_PARSERS = {bool: _truth, int: _whole, float: _finite, str: _text, Duration: parse_duration}
_KIND_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Duration: "a time such as 90s, 10m or 1h30m",
}


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every recipe can be told. A recipe's own ``Config`` adds to it and sets its own defaults."""

    data: str = option("", "What to train on: a folder, a file, a bundled name, keras:NAME or a TFDS name.")
    epochs: int | None = option(
        None, "Passes over the training data; by default the data or --max-time decide.", minimum=1
    )
    max_time: Duration | None = option(
        None, "Train for this long (90s, 10m, 1h30m); the learning rate comes down in time.", minimum=1
    )
    batch_size: int = option(128, "Examples per step, over all devices together.", minimum=1, maximum=65536)
    optimizer: Literal["adamw", "adam", "sgd", "muon"] = option("adamw", "Optimizer.")
    learning_rate: float | None = option(
        None, "Highest learning rate; by default what suits the optimizer.", minimum=1e-8, maximum=100
    )
    weight_decay: float | None = option(
        None, "Decoupled weight decay; by default what suits the optimizer.", minimum=0, maximum=1
    )
    patience: int | None = option(
        None, "Stop after this many epochs without a better validation score; by default never.", minimum=1
    )
    ema_decay: float = option(
        0.0, "Decay of an average of the weights that is evaluated and kept; 0 for none.", minimum=0, maximum=0.99999
    )
    seed: int = option(0, "Decides split, initial weights, order and augmentation.", minimum=0, maximum=2**31 - 1)
    limit: int | None = option(None, "Use at most this many examples in all, for a quick try.", minimum=10)
    device: str = option("auto", "auto, cpu, cpu:2 (logical CPUs), gpu, gpu:0,1, tpu or tpu:NAME.")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto", "Number format for the arithmetic; auto takes the fastest that is safe."
    )
    xla: Literal["auto", "on", "off"] = option("auto", "Compile the training step with XLA; auto takes what is faster.")
    name: str | None = option(None, "Name of the run; by default the data's name and a number.")
    out_dir: str = option("saved_models", "Where runs are kept.")

    def __post_init__(self) -> None:
        for item in options(type(self)).values():
            object.__setattr__(self, item.name, item.parse(getattr(self, item.name), item.name))

    def to_dict(self) -> dict[str, Any]:
        """Return the options as plain JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}


def make(config_class: type, values: Mapping[str, Any], *, flags: bool = False) -> Any:
    """Make a config from a mapping of option names to values.

    Args:
        config_class: a :class:`RunConfig` subclass.
        values: option names (``learning_rate`` or ``learning-rate``) and values.
        flags: call an option ``--learning-rate`` instead of ``learning_rate`` in error messages.

    Raises:
        UserError: for a name that does not exist (with the nearest one) or a value out of type or bounds.
    """
    known = options(config_class)
    parsed = {}
    for written, value in values.items():
        name = str(written).replace("-", "_")
        if name not in known:
            raise UserError(f"There is no option '{written}'.{suggestion(name, known)}")
        parsed[name] = known[name].parse(value, known[name].flag if flags else name)
    return config_class(**parsed)


def read_file(path: str | Path) -> dict[str, Any]:
    """Read option values from a YAML or JSON file.

    Raises:
        UserError: if the file cannot be read, is not valid, or holds no mapping at its top.
    """
    path = Path(path).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read the config file {path}: {_reason(error)}.") from None
    if path.suffix.lower() == ".json":
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"{path} is not valid JSON: {error.msg} in line {error.lineno}.") from None
    else:
        import yaml

        try:
            values = yaml.safe_load(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f" in line {mark.line + 1}" if mark else ""
            raise UserError(f"{path} is not valid YAML{where}: {getattr(error, 'problem', error)}.") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold lines such as 'epochs: 20'; it holds a {type(values).__name__}.")
    return values


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or "it is not UTF-8 text"
