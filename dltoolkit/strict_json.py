"""JSON from files of any origin: what the json module accepts or refuses in its own ways is one kind of error here."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any

from dltoolkit.errors import json_error


class InvalidJSON(ValueError):
    """A text is not JSON that a program may rely on. The message is a short reason, such as "the key 'a' twice".

    Attributes:
        has_more: Whether the text is valid up to its end of the first value, but goes on after it.
    """

    has_more = False


def loads(text: str, *, line: bool = True, nan: bool = False) -> Any:
    """Return the value of a JSON text.

    Args:
        text: The text.
        line: Whether the text has several lines, so that the message names the line of an error.
        nan: Whether ``NaN``, ``Infinity`` and numbers that are too large, as pandas writes and reads, are numbers.

    Raises:
        InvalidJSON: If the text is not JSON, is nested too deeply, has a number of thousands of digits, or has an
            object with the same key twice, of which the json module would drop the first value.
    """
    try:
        return (_WITH_NAN if nan else _DECODER).decode(text)
    except InvalidJSON:
        raise
    except json.JSONDecodeError as error:
        invalid = InvalidJSON(json_error(error, line=line))
        invalid.has_more = error.msg == "Extra data"
        raise invalid from None
    except RecursionError:
        raise InvalidJSON("nested too deeply") from None
    except ValueError as error:  # Python converts integers of at most 4,300 digits
        digits = re.search(r"value has (\d+) digits", str(error))
        raise InvalidJSON(f"a number of {int(digits[1]):,} digits" if digits else str(error)) from None


def _to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise InvalidJSON(f"the key '{twice[:40]}' twice")
    return values


def _refuse_constant(name: str) -> None:
    raise InvalidJSON(f"{name}, which is no number of JSON")


def _to_float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise InvalidJSON(f"the number {digits[:40]}, which is too large")
    return number


_WITH_NAN = json.JSONDecoder(object_pairs_hook=_to_dict)
_DECODER = json.JSONDecoder(object_pairs_hook=_to_dict, parse_constant=_refuse_constant, parse_float=_to_float)
