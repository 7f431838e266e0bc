"""Option values from a YAML or JSON file, which may come from a stranger: plain values, each key once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dltoolkit import config, strict_json
from dltoolkit.errors import UserError
from dltoolkit.files import open_regular, user_path

MAX_BYTES = 1_000_000  # size of a file; the parser of YAML reads about 200 kB per second


def parse(config_class: type, path: str | Path) -> dict[str, Any]:
    """Return the values in a YAML or JSON file in the types of the options of ``config_class``, each checked by itself.

    Raises:
        UserError: If the file is wrong, or a name or a value in it; the message begins with the file.
    """
    values = read(path)
    try:
        return config.parse(config_class, values)
    except UserError as error:
        raise UserError(f"{path}: {error.args[0]}") from None


def read(path: str | Path) -> dict[str, Any]:
    """Read option values from a YAML or JSON file.

    Raises:
        UserError: If the file cannot be read, is not valid, or does not hold a mapping of option names to values.
    """
    path = user_path(path)
    text = _read_text(path)
    try:
        values = strict_json.loads(text) if path.suffix.lower() == ".json" else _parse_yaml(text)
    except strict_json.InvalidJSON as error:
        raise UserError(f"{path} is not valid JSON: {error}.") from None
    except _InvalidYAML as error:
        raise UserError(f"{path} is not valid YAML{error}.") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold lines such as 'epochs: 20', but it holds a {type(values).__name__}.")
    return values


def _read_text(path: Path) -> str:
    try:
        with open_regular(path) as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise UserError(f"The config file {path} is larger than {MAX_BYTES // 1_000_000} MB: keep options only.")
        return raw.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UserError(f"Cannot read the config file {path}: {reason}.") from None


class _InvalidYAML(ValueError):
    """A text is not YAML of plain values. The message follows "is not valid YAML": " in line 3: …"."""


def _parse_yaml(text: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """A loader that refuses aliases, by which a few lines can stand for gigabytes, and keys that occur twice."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                event = self.peek_event()
                raise _invalid(event.start_mark, f"the alias *{event.anchor} is not read: write the value itself")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            names = set()
            for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                if isinstance(key.value, str) and key.value in names:
                    raise _invalid(key.start_mark, f"the key '{key.value[:40]}' twice")
                names.add(str(key.value))
            return super().construct_mapping(node, deep)

        def construct_object(self, node: Any, deep: bool = False) -> Any:
            try:
                return super().construct_object(node, deep)
            except (ValueError, OverflowError) as error:  # a date or a number that Python does not represent
                if isinstance(error, _InvalidYAML):
                    raise
                raise _invalid(node.start_mark, f"'{str(node.value)[:40]}' is no value") from None

    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise _invalid(getattr(error, "problem_mark", None), str(getattr(error, "problem", error))) from None
    except RecursionError:
        raise _InvalidYAML(": nested too deeply") from None


def _invalid(mark: Any, reason: str) -> _InvalidYAML:
    where = f" in line {mark.line + 1}" if mark else ""
    return _InvalidYAML(f"{where}: {reason[:200]}")
