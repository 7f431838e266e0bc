"""A look into a file of ONNX before a runtime reads it, without the onnx package, whose import takes long.

The file is a message of Protocol Buffers: a sequence of fields, each with a number, a wire type and a value. The
numbers below are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator

from dltoolkit.errors import UserError

# (message, number of a field) -> message of the field
MESSAGES = {
    ("model", 7): "graph",
    ("model", 25): "function",
    ("graph", 1): "node",
    ("graph", 5): "tensor",
    ("graph", 15): "sparse",
    ("function", 7): "node",
    ("node", 5): "attribute",
    ("attribute", 5): "tensor",
    ("attribute", 6): "graph",
    ("attribute", 10): "tensor",
    ("attribute", 11): "graph",
    ("attribute", 22): "sparse",
    ("attribute", 23): "sparse",
    ("sparse", 1): "tensor",
    ("sparse", 2): "tensor",
}
EXTERNAL_DATA, DATA_LOCATION, DOMAIN, OP_TYPE = 13, 14, 7, 4  # fields of a tensor, and of a node
OWN_DOMAINS = (b"", b"ai.onnx", b"com.microsoft")  # the last one has the quantized operations of ONNX Runtime itself
MAX_DEPTH = 100


def check(content: bytes, name: str) -> None:
    """Raise a UserError if a file of ONNX keeps weights in other files, has operations of its own, or is damaged.

    Args:
        content: The content of the file.
        name: Name of the file in messages.
    """
    try:
        _check(memoryview(content), "model", name, 0)
    except (IndexError, ValueError):
        raise UserError(f"{name} is not a file of ONNX, or it is damaged: export the run again.") from None


def _check(data: memoryview, message: str, name: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError("nested too deeply")
    for number, value in _fields(data):
        if message == "tensor" and (number == EXTERNAL_DATA or (number == DATA_LOCATION and value)):
            raise UserError(f"{name} keeps weights in another file, which is not read: export the run again.")
        if message == "node" and number == DOMAIN and bytes(value) not in OWN_DOMAINS:
            raise UserError(
                f"{name} has operations of {bytes(value).decode(errors='replace')!r}, which are not executed."
            )
        if (inner := MESSAGES.get((message, number))) and isinstance(value, memoryview):
            _check(value, inner, name, depth + 1)


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Yield the number and the value of each field; fixed numbers are skipped."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
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
