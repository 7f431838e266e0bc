"""Limits of images: pixels are counted before they are decoded, and decoding threads share the memory."""

import struct
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from dltoolkit import memory
from dltoolkit.data.image import dataset, decode
from dltoolkit.data.image.preprocessing import Preprocessing
from dltoolkit.data.options import ImageReadOptions
from dltoolkit.errors import UserError


def png_of_zeros(width, height, rows=None):
    """Return a color PNG of black pixels, or only its first rows."""
    compressor = zlib.compressobj()
    row = bytes(1 + 3 * width)
    data = b"".join([compressor.compress(row) for _ in range(height if rows is None else rows)] + [compressor.flush()])
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", data), (b"IEND", b""))
    parts = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiled_tiff(side):
    """Return a TIFF file of 8x8 pixels that declares tiles of ``side`` x ``side`` pixels."""
    entries = [
        (256, 8),
        (257, 8),
        (258, 8),
        (259, 8),
        (262, 1),
        (277, 1),
        (322, side),
        (323, side),
        (324, 200),
        (325, 9),
    ]
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    header = b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + struct.pack("<I", 0)
    return header.ljust(200, b"\0") + zlib.compress(bytes(8))


@pytest.fixture
def folder(tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for i in range(4):
            pixels = np.random.default_rng(10 * ord(name[0]) + i).integers(0, 256, (20, 20, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    return tmp_path


def test_an_image_of_too_many_pixels_is_named_before_it_is_decoded(folder):
    (folder / "ant" / "big.png").write_bytes(png_of_zeros(13_300, 13_300, rows=9))  # would be damaged
    with pytest.raises(UserError, match=r"big.png \(13300x13300 pixels, more than 100,000,000 \(max_pixels\)\)"):
        dataset.load(str(folder))
    assert len(dataset.load(str(folder), ImageReadOptions(skip_invalid=True)).labels) == 8


def test_max_pixels_is_an_option_of_training_and_of_the_run(folder):
    options = ImageReadOptions(max_pixels=300)
    with pytest.raises(UserError, match=r"None of the 8 images .*20x20 pixels, more than 300"):
        dataset.load(str(folder), options)
    with pytest.raises(UserError, match="20x20 pixels"):
        dataset.read(folder / "ant" / "0.png", Preprocessing((8, 8, 3)), max_pixels=300)
    with pytest.raises(UserError, match="20x20 pixels"):
        dataset.read(Image.open(folder / "ant" / "0.png"), Preprocessing((8, 8, 3)), max_pixels=300)


@pytest.mark.parametrize(("side", "reason"), [(20_000, "more than 100,000,000"), (65_520, "more than 100,000,000")])
def test_tiles_of_a_tiff_file_count_as_a_whole(side, reason):
    with pytest.raises(OSError, match=reason):
        decode.read(tiled_tiff(side), Preprocessing((8, 8, 1)))


def test_an_image_that_does_not_fit_in_the_free_memory_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 1_500_000_000)
    with pytest.raises(OSError, match="80,000,000 pixels, which do not fit in the free memory"):
        decode.read(png_of_zeros(10_000, 8_000, rows=9), Preprocessing((8, 8, 1)))


def test_threads_decode_large_images_within_the_shared_memory(monkeypatch):
    open_images, most, lock = [0], [0], threading.Lock()

    class Counting(Preprocessing):
        def pixels(self, image):
            with lock:
                open_images[0] += 1
                most[0] = max(most[0], open_images[0])
            time.sleep(0.01)
            result = super().pixels(image)
            with lock:
                open_images[0] -= 1
            return result

    monkeypatch.setattr(memory, "limit", lambda: 25_000_000)  # two images of a million pixels
    monkeypatch.setattr(decode, "_worker_count", lambda images: 8)
    monkeypatch.setattr(decode, "CHUNK_SIZE", 1)
    decode._budget.cache_clear()
    try:
        out = np.empty((8, 8, 8, 3), np.uint8)
        assert not decode.decode_all([png_of_zeros(1000, 1000)] * 8, out, Counting((8, 8, 3)))
    finally:
        decode._budget.cache_clear()
    assert most[0] == 2
