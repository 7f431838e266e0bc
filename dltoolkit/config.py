"""Options written once: a dataclass field that is also a command-line flag and a line in a YAML or JSON file.

    @dataclass(frozen=True, kw_only=True)
    class Config(RunConfig, OptimizerOptions):
        model: Literal["gpt", "lstm"] = option("gpt", "Network family", group="model")
        heads: int | None = option(None, "Attention heads", minimum=1, group="model", applies_to={"model": ("gpt",)})

Supported types: ``bool``, ``int``, ``float``, ``str``, :data:`Duration`, ``Literal`` of strings, ``bool | Literal``,
``tuple[T, ...]`` of those, and ``T | None``. Every value is checked when a config is constructed, from flags, a file or
Python alike: its type, its bounds, and that the chosen mode does not ignore it.
"""

import copy
import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from dltoolkit import data_object, option_names
from dltoolkit.errors import UserError, did_you_mean
from dltoolkit.option_values import KIND_NAMES, PARSERS, Duration, format_duration

GROUPS = ("data", "model", "optimization", "augmentation", "evaluation", "output", "device", "other")  # order of --help


def option(
    default: Any,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    group: str = "other",
    applies_to: Mapping[str, tuple[Any, ...]] | None = None,
) -> Any:
    """Declare an option as a dataclass field.

    Args:
        default: Value of the option when the user does not set it.
        help: Noun or verb phrase for ``--help``.
        minimum: Inclusive lower bound; for a tuple, of each element.
        maximum: Inclusive upper bound; for a tuple, of each element.
        group: Heading in ``--help``, one of :data:`GROUPS`.
        applies_to: Modes in which the option has an effect. Maps the name of another option to the tuple of values
            under which this option is used, such as ``{"model": ("gpt",)}`` or ``{"backbone": (None,)}``. Another name
            is a fact that the recipe passes to :meth:`Options.refuse_ignored`, such as ``{"task": ("image",)}``. With
            several names, all conditions must hold.
    """
    if group not in GROUPS:
        raise ValueError(f"group must be one of {', '.join(GROUPS)}, not {group!r}")
    metadata = {"help": help, "minimum": minimum, "maximum": maximum, "group": group, "applies_to": applies_to or {}}
    return dataclasses.field(default=default, metadata=metadata)


MAX_SHOWN = 200  # characters of a wrong value that an error message shows
MAX_INTEGER = 10**12  # of an option without a maximum of its own; greater numbers do not fit into floats or arrays


@dataclass(frozen=True)
class Option:
    """An option as declared by a config class."""

    name: str
    kind: Any  # bool, int, float, str or Duration
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    optional: bool = False  # None is a value
    multiple: bool = False  # a tuple of values
    minimum: float | None = None
    maximum: float | None = None
    group: str = "other"
    applies_to: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)

    @property
    def flag(self) -> str:
        """The command-line spelling, ``--learning-rate`` for ``learning_rate``."""
        return "--" + self.name.replace("_", "-")

    @property
    def no_flag(self) -> str:
        """The command-line spelling that turns the option off, ``--no-augment`` for ``augment``."""
        return "--no-" + self.name.replace("_", "-")

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
        return tuple(self._parse_one(element, f"Each value of {label}") for element in value)

    def _parse_one(self, value: Any, label: str) -> Any:
        if self.choices:
            if (isinstance(value, str) and value in self.choices) or (self.kind is bool and isinstance(value, bool)):
                return value
            if self.kind is bool:
                raise UserError(f"{label} must be true, false or {', '.join(self.choices)}, not {_show(value)}.")
            hint = did_you_mean(value, self.choices) if isinstance(value, str) else ""
            raise UserError(f"{label} must be one of {list_choices(self.choices)}, not {_show(value)}.{hint}")
        try:
            parsed = PARSERS[self.kind](value)
        except (ValueError, TypeError, OverflowError):
            raise UserError(f"{label} must be {KIND_NAMES[self.kind]}, not {_show(value)}.") from None
        maximum = MAX_INTEGER if self.kind is int and self.maximum is None else self.maximum
        if self.minimum is not None and parsed < self.minimum:
            raise UserError(f"{label} must be at least {self.minimum:g}, not {_shorten(value)}.")
        if maximum is not None and parsed > maximum:
            raise UserError(f"{label} must be at most {maximum:g}, not {_shorten(value)}.")
        return parsed


def list_choices(choices: Sequence[str]) -> str:
    """Return choices as a list in words, in quotation marks if one of them holds a comma."""
    has_comma = any("," in choice for choice in choices)
    return _join_or([f"'{choice}'" if has_comma else choice for choice in choices])


def options(config_class: type) -> dict[str, Option]:
    """Return the options of a config dataclass by name: those of its bases in written order, then its own."""
    hints = typing.get_type_hints(config_class)
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    return {name: _read_field(fields[name], hints[name]) for name in _names_in_order(config_class)}


def _names_in_order(config_class: type) -> dict[str, None]:
    names = {}
    for base in config_class.__bases__:
        if dataclasses.is_dataclass(base):
            names |= _names_in_order(base)
    return names | dict.fromkeys(inspect.get_annotations(config_class))


def _read_field(field: dataclasses.Field, hint: Any) -> Option:
    optional = multiple = False
    parts = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    if type(None) in parts:
        optional = True
        parts = tuple(part for part in parts if part is not type(None))
    if len(parts) == 2 and parts[0] is bool:  # on, off or a stronger form
        return Option(field.name, bool, field.default, choices=typing.get_args(parts[1]), **field.metadata)
    (hint,) = parts
    if typing.get_origin(hint) is tuple:
        hint, multiple = typing.get_args(hint)[0], True
    choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
    kind = str if choices else hint
    if kind not in PARSERS:
        raise TypeError(f"option '{field.name}' has type {hint!r}, which dltoolkit cannot read from a flag")
    return Option(
        field.name, kind, field.default, choices=choices, optional=optional, multiple=multiple, **field.metadata
    )


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base class of groups of options. It parses and checks every value on construction."""

    def __post_init__(self) -> None:
        for item in options(type(self)).values():
            object.__setattr__(self, item.name, item.parse(getattr(self, item.name), item.name))
        self.refuse_ignored(**vars(self))

    def refuse_ignored(self, **facts: Any) -> None:
        """Raise a UserError if an option differs from its default but has no effect under these facts.

        The values of the other options are checked on construction; a recipe calls this method for what it learns
        later, such as ``config.refuse_ignored(task="image")``.
        """
        for item in options(type(self)).values():
            value = getattr(self, item.name)
            for name, allowed in item.applies_to.items():
                if value != item.default and name in facts and facts[name] not in allowed:
                    is_option = name in vars(self)
                    ignored = _spell(item.name, value).partition("=")[0]
                    raise UserError(f"{ignored} has no effect {_mode(name, facts[name], allowed, is_option)}.")

    def resolve(self, **values: Any) -> Self:
        """Return a copy with these values, which the program and not the user has chosen.

        Unlike ``dataclasses.replace``, it accepts a value for an option that the mode ignores: a backbone may determine
        ``layers`` although the user may not.
        """
        declared, resolved = options(type(self)), copy.copy(self)
        for name, value in values.items():
            object.__setattr__(resolved, name, declared[name].parse(value, name))
        return resolved

    def to_dict(self) -> dict[str, Any]:
        """Return the options as plain JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}


def _mode(name: str, value: Any, allowed: tuple[Any, ...], is_option: bool) -> str:
    """Return the mode that ignores an option, and a remedy: ``with --model=rnn: leave it out, or use --model=gpt``."""
    if not is_option:
        return f"on {value} data: leave it out" if name == "task" else f"if {name} is {value}: leave it out"
    if value is None:
        mode = "without " + _spell(name, True)
    else:
        mode = "with " + (_spell(name, value) if allowed != (None,) else _spell(name, True))
    if allowed == (None,):
        return f"{mode}: leave one of them out"
    first, *others = (choice for choice in allowed if choice is not None)
    return f"{mode}: leave it out, or use {_join_or([_spell(name, first), *map(str, others)])}"


def _show(value: Any) -> str:
    """Return a value for a message: simple ones in quotes, and of an array or another object its type only."""
    simple = isinstance(value, str | int | float | Path)
    return f"'{_shorten(value)}'" if simple else data_object.describe(value)


def _shorten(value: Any) -> str:
    try:
        return str(value)[:MAX_SHOWN]
    except ValueError:  # Python spells integers of at most 4,300 digits
        return "a number of thousands of digits"


def _spell(name: str, value: Any) -> str:
    """Return an option and its value as messages hold them, see :mod:`dltoolkit.option_names`."""
    flag = name.replace("_", "-")
    return f"--no-{flag}" if value is False else f"--{flag}" if value is True else f"--{flag}={value}"


@dataclass(frozen=True, kw_only=True)
class RunConfig(Options):
    """The options of every recipe. A recipe's own ``Config`` adds options and sets defaults."""

    data: str = option(
        "", "Training data: a folder, a file, a bundled name, keras:NAME or the name of a TFDS data set", group="data"
    )
    limit: int | None = option(None, "Maximum number of examples, for a quick trial", minimum=10, group="data")
    epochs: int | None = option(
        None,
        "Passes over the training data (default: from the size of the data or --max-time)",
        minimum=1,
        group="optimization",
    )
    max_time: Duration | None = option(
        None,
        "Time limit of training, such as 90s, 10m or 1h30m; the learning rate decays in time",
        minimum=1,
        group="optimization",
    )
    batch_size: int = option(128, "Examples per step, over all devices", minimum=1, maximum=65536, group="optimization")
    patience: int | None = option(
        None,
        "Epochs without improvement on the validation split before training stops (default: never)",
        minimum=1,
        group="optimization",
    )
    seed: int = option(
        0,
        "Random seed of the split, weights, order and augmentation",
        minimum=0,
        maximum=2**31 - 1,
        group="optimization",
    )
    name: str | None = option(None, "Name of the run (default: name of the data and a number)", group="output")
    out_dir: str = option("saved_models", "Folder of the runs", group="output")
    device: str = option(
        "auto", "Device: auto, cpu, cpu:2 (logical CPUs), gpu, gpu:0,1, tpu or tpu:NAME", group="device"
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto", "Number format; auto selects the fastest safe one", group="device"
    )
    xla: Literal["auto", "on", "off"] = option(
        "auto", "Compilation with XLA; auto selects the faster setting", group="device"
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", data_object.wrap(self.data))
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions(Options):
    """The options of :func:`dltoolkit.training.optimizer.compile`."""

    optimizer: Literal["adamw", "adam", "sgd", "muon"] = option("adamw", "Optimizer", group="optimization")
    learning_rate: float | None = option(
        None,
        "Peak learning rate (default: from the optimizer and the batch size)",
        minimum=1e-8,
        maximum=100,
        group="optimization",
    )
    weight_decay: float | None = option(
        None, "Decoupled weight decay (default: from the optimizer)", minimum=0, maximum=1, group="optimization"
    )
    ema_decay: float = option(
        0.0,
        "Decay of the exponential moving average of the weights; 0 turns it off",
        minimum=0,
        maximum=0.99999,
        group="optimization",
    )


@dataclass(frozen=True, kw_only=True)
class SelectionOptions(Options):
    """The class weights of a classifier, and the validation metric that selects its epoch."""

    class_weights: Literal["none", "balanced"] = option("none", "Class weights in the loss", group="optimization")
    metric: Literal["accuracy", "balanced_accuracy", "macro_f1", "loss"] | None = option(
        None,
        "Validation metric that selects the epoch (default: accuracy, balanced_accuracy with balanced class weights)",
        group="evaluation",
    )


def make(config_class: type, values: Mapping[str, Any], *, flags: bool = False) -> Any:
    """Make a config from a mapping of option names to values; arguments and errors are those of :func:`parse`.

    Raises:
        UserError: Also if an option has no effect in the chosen mode.
    """
    return config_class(**parse(config_class, values, flags=flags))


def parse(config_class: type, values: Mapping[str, Any], *, flags: bool = False) -> dict[str, Any]:
    """Return values in the types of their options, each checked by itself.

    Args:
        config_class: Subclass of :class:`RunConfig`.
        values: Option names (``learning_rate`` or ``learning-rate``) and values.
        flags: Whether error messages call an option ``--learning-rate`` instead of ``learning_rate``.

    Raises:
        UserError: If a name does not exist (the message suggests the nearest) or is there twice, or a value is out of
            type or bounds.
    """
    declared = options(config_class)
    parsed = {}
    for written, value in values.items():
        name = str(written).replace("-", "_")
        if name not in declared:
            raise UserError(option_names.no_such_option(str(written), declared))
        if name in parsed:  # learning-rate and learning_rate
            raise UserError(f"{name} is given twice: leave one of them out.")
        parsed[name] = declared[name].parse(value, declared[name].flag if flags else name)
    return parsed


def display(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as run.json holds them, with those of :class:`RunConfig` that are times as the user writes them.

    Seconds become "8s" or "1h30m".
    """
    durations = [name for name, item in options(RunConfig).items() if item.kind is Duration]
    shown = {name: format_duration(values[name]) for name in durations if isinstance(values.get(name), int | float)}
    return {**values, **shown}


def _join_or(values: list[str]) -> str:
    return values[0] if len(values) == 1 else f"{', '.join(values[:-1])} or {values[-1]}"
