"""A look into a file of ONNX before a runtime reads it, without the onnx package, whose import takes long.

The file is a message of Protocol Buffers: a sequence of fields, each with a number, a wire type and a value. The
numbers below are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from dltoolkit import files
from dltoolkit.errors import UserError

# (message, number of a field) -> message of the field
MESSAGES = {
    ("model", 7): "graph",
    ("graph", 1): "node",
    ("graph", 5): "tensor",
    ("node", 5): "attribute",
    ("attribute", 5): "tensor",
    ("attribute", 6): "graph",
    ("attribute", 10): "tensor",
    ("attribute", 11): "graph",
}
# Fields that no exported file has, and why a file that has them is not read
REFUSED = {
    ("model", 20): "has graphs for training",
    ("model", 25): "has functions of its own",
    ("graph", 15): "has sparse weights, which take any amount of memory",
    ("attribute", 22): "has sparse weights, which take any amount of memory",
    ("attribute", 23): "has sparse weights, which take any amount of memory",
    ("tensor", 13): "keeps weights in another file",
}
DATA_LOCATION, OP_TYPE, DOMAIN = 14, 4, 7  # fields of a tensor, and of a node
OWN_DOMAINS = (b"", b"ai.onnx", b"com.microsoft")  # the last one has the quantized operations of ONNX Runtime itself
LOOPS = (b"Loop", b"Scan", b"SequenceMap")  # operations that repeat others, as in some recurrent networks
MAX_DEPTH = 100
MAX_FIELDS = 2_000_000  # a network of 100 layers has some 20,000


def check_file(path: Path) -> bool:
    """Check a file of ONNX as :func:`check` does, and return whether it has a loop."""
    try:
        with files.open_regular(path, follow_links=False) as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # an empty file is a ValueError
        raise UserError(f"{path} cannot be read ({error}): export the run again.") from None
    return check(memoryview(content), str(path))


def check(content: bytes | memoryview, name: str) -> bool:
    """Return whether a network has a loop, which may never end.

    Args:
        content: The content of a file of ONNX.
        name: Name of the file in messages.

    Raises:
        UserError: If it has weights in other files, operations of its own or what no exported file has, or is damaged.
    """
    try:
        network = _Check(name)
        network.message(memoryview(content), "model", 0)
        return network.has_loops
    except (IndexError, ValueError):
        raise UserError(f"{name} is not a file of ONNX, or it is damaged: export the run again.") from None


class _Check:
    """The check of one file.

    Args:
        name: Name of the file in messages.

    Attributes:
        has_loops: Whether operations that repeat others were found.
    """

    def __init__(self, name: str):
        self._name, self._fields, self.has_loops = name, 0, False

    def message(self, data: memoryview, message: str, depth: int) -> None:
        """Check a message and those inside it."""
        if depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
        for number, value in _fields(data):
            self._fields += 1
            if self._fields > MAX_FIELDS:
                self._refuse(f"has more than {MAX_FIELDS:,} parts")
            if reason := REFUSED.get((message, number)):
                self._refuse(reason)
            if message == "tensor" and number == DATA_LOCATION and value:
                self._refuse(REFUSED["tensor", 13])
            if message == "node" and number in (OP_TYPE, DOMAIN):
                self._check_operation(number, value if isinstance(value, int) else bytes(value))
            if inner := MESSAGES.get((message, number)):
                if isinstance(value, int):
                    raise ValueError("a number in place of a message")
                self.message(value, inner, depth + 1)

    def _check_operation(self, number: int, value: bytes | int) -> None:
        if number == DOMAIN and value not in OWN_DOMAINS:
            self._refuse(f"has operations of {_show(value)}, which are not executed", "use a file of dltoolkit")
        if number == OP_TYPE and value in LOOPS:
            self.has_loops = True

    def _refuse(self, reason: str, remedy: str = "export the run again") -> None:
        raise UserError(f"{self._name} {reason}, so it was not read: {remedy}.")


def _show(value: bytes | int) -> str:
    return repr(value if isinstance(value, int) else value[:60].decode(errors="replace"))


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Yield the number and the value of each field; fixed numbers are skipped."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        if not 0 < number < 1 << 29:
            raise ValueError("a number that no field has")
        if wire == 0:
            value, position = _varint(data, position)
            yield number, value
        elif wire == 2:
            size, position = _varint(data, position)
            if position + size > len(data):
                raise ValueError("truncated")
            yield number, data[position : position + size]
            position += size
        elif wire in (1, 5):
            position += 8 if wire == 1 else 4
        else:
            raise ValueError("unknown wire type")


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[position]
        position += 1
        result |= (byte & 127) << shift
        if byte < 128:
            return result, position
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
