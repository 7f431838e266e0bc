"""Values of more than 8 bits per channel come out of files whole, in color as in gray."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from deep_images import color_tiff_16, png_16
from PIL import Image

from dltoolkit.data.image import modes

ROOT = Path(__file__).parents[1]


def values(channels: int) -> np.ndarray:
    return np.random.default_rng(channels).integers(0, 65536, (7, 5, channels), np.uint16)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png_16(values(1)), values(1)[..., 0]),
        (png_16(values(2)), values(2)[..., [0, 0, 0, 1]]),
        (png_16(values(3)), values(3)),
        (png_16(values(4)), values(4)),
        (color_tiff_16(values(3)), values(3)),
        (color_tiff_16(values(3), order=">"), values(3)),
        (color_tiff_16(values(3), compressed=True), values(3)),
        (color_tiff_16(values(3), order=">", compressed=True), values(3)),
    ],
    ids="L LA RGB RGBA tiff tiff-big-endian tiff-compressed tiff-compressed-big-endian".split(),  # noqa: SIM905
)
def test_deep_values_returns_all_bits(data, expected):
    with Image.open(io.BytesIO(data)) as image:
        assert modes.is_deep(image)
        assert (modes.deep_values(image) == expected).all()


def test_image_files_are_opened_in_one_place_for_a_closed_list_of_formats():
    assert modes.FORMATS == ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
    names = "JPEG, PNG, BMP, GIF, WebP and TIFF"
    assert names in " ".join((ROOT / "docs" / "data.md").read_text().split())
    openers = r"Image\.open\(|from PIL\.Image|import PIL|ImageFile\.Parser|imread|load_img|decode_(image|jpeg|png)"
    calls = [
        line.strip()
        for folder in ("dltoolkit", "recipes")
        for path in (ROOT / folder).rglob("*.py")
        for line in path.read_text().splitlines()
        if re.search(openers, line)
    ]
    assert calls == ["return Image.open(file, formats=FORMATS)"]


def test_deep_gray_with_alpha_is_grayscale():
    for channels, grayscale in ((1, True), (2, True), (3, False)):
        with Image.open(io.BytesIO(png_16(values(channels)))) as image:
            assert modes.is_grayscale(image) is grayscale


@pytest.mark.parametrize("orientation", sorted(modes.TRANSPOSITIONS))
def test_transpose_agrees_with_pillow(orientation):
    array = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    transposition = modes.TRANSPOSITIONS[orientation]
    assert (modes.transpose(array, transposition) == np.asarray(Image.fromarray(array).transpose(transposition))).all()
