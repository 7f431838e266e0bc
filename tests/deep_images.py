"""Image files with more than 8 bits per channel, which Pillow reads but cannot write in color."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def png_16(values: np.ndarray) -> bytes:
    """Return a PNG file of uint16 values (h, w, channels): gray, gray and alpha, color, or color and alpha."""
    height, width, channels = values.shape

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    color_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.tobytes() for row in values.astype(">u2").reshape(height, -1))
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def color_tiff_16(values: np.ndarray, *, order: str = "<", compressed: bool = False) -> bytes:
    """Return a TIFF file of uint16 color values (h, w, 3), little-endian ("<") or big-endian (">")."""
    height, width, channels = values.shape
    data = values.astype(order + "u2").tobytes()
    data = zlib.compress(data) if compressed else data
    start = 8 + 2 + 9 * 12 + 4  # of the bits per sample, which the pixels follow
    bits = struct.pack(order + "HHH", 16, 16, 16)
    entries = [  # tag, type (3 is short, 4 is long), count, value or offset
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 3, start),
        (259, 3, 1, 8 if compressed else 1),
        (262, 3, 1, 2),
        (273, 4, 1, start + len(bits)),
        (277, 3, 1, channels),
        (278, 4, 1, height),
        (279, 4, 1, len(data)),
    ]
    content = (b"II" if order == "<" else b"MM") + struct.pack(order + "HIH", 42, 8, len(entries))
    for tag, kind, count, value in entries:
        short = kind == 3 and count == 1
        content += struct.pack(order + "HHI", tag, kind, count)
        content += struct.pack(order + "HH", value, 0) if short else struct.pack(order + "I", value)
    return content + struct.pack(order + "I", 0) + bits + data


def save_values(path: Path, values: np.ndarray) -> Path:
    """Write gray values (h, w) of uint16, int32 or float32 as an image file of this depth, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path
