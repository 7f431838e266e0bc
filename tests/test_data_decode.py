"""One decoder for every format, mode, depth and orientation; damage is noticed and named."""

import io

import numpy as np
import pytest
from conftest import save_image, toy_image
from PIL import Image, ImageFile

from dltoolkit.data.image import decode


def gradient(width: int, height: int) -> Image.Image:
    """A colour picture that is red to the right, green downwards, and smooth, so that JPEG keeps it."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 60)], -1).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def surveyed(picture: bytes) -> tuple[tuple[int, int], bool]:
    found = decode.survey([picture], 1)
    assert not found.bad
    return tuple(found.sizes[0].tolist()), bool(found.grey[0])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"progressive": True, "quality": 95}),
        ("PNG", {}),
        ("BMP", {}),
        ("GIF", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 95}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_formats(kind, options):
    image = gradient(32, 32)
    data = encoded(image, kind, **options)
    assert surveyed(data) == ((32, 32), False)
    error = np.abs(decode.read(data, (32, 32, 3)).astype(int) - np.asarray(image))
    assert error.mean() < 3


GREY = np.add.outer(np.arange(16), np.arange(16)).astype(np.uint8) * 8  # 0..240
WHITE_HALF = np.where(np.arange(16) < 8, GREY, 255)  # the right half transparent, on white


def with_alpha(image: Image.Image) -> Image.Image:
    alpha = np.where(np.arange(16) < 8, 255, 0).astype(np.uint8)
    image.putalpha(Image.fromarray(np.tile(alpha, (16, 1))))
    return image


def transparent_palette() -> bytes:
    index = np.where(np.arange(16) < 8, GREY, 255).astype(np.uint8)
    image = Image.fromarray(index).convert("P")
    image.putpalette([value for value in range(256) for _ in range(3)])
    return encoded(image, "PNG", transparency=255)


@pytest.mark.parametrize(
    ("picture", "grey", "expected"),
    [
        (encoded(Image.fromarray(GREY), "PNG"), True, GREY),
        (encoded(Image.fromarray(GREY > 99), "PNG"), True, (GREY > 99) * 255),
        (encoded(with_alpha(Image.fromarray(GREY)), "PNG"), True, WHITE_HALF),
        (encoded(with_alpha(Image.fromarray(GREY).convert("RGB")), "PNG"), False, WHITE_HALF),
        (encoded(with_alpha(Image.fromarray(GREY).convert("RGB")), "WEBP", lossless=True), False, WHITE_HALF),
        (encoded(Image.fromarray(GREY).convert("P"), "PNG"), True, GREY),
        (transparent_palette(), True, WHITE_HALF),
        (encoded(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"), True, GREY),
        (encoded(Image.fromarray(GREY.astype(np.uint16) * 257), "TIFF"), True, GREY),
        (encoded(Image.fromarray(GREY.astype(np.uint16) // 16), "PNG"), True, GREY * 0),
        (encoded(Image.fromarray(GREY.astype(np.int32) * 257), "TIFF"), True, GREY),
        (encoded(Image.fromarray(GREY.astype(np.int32)), "TIFF"), True, GREY),
        (encoded(Image.fromarray((GREY / 255).astype(np.float32)), "TIFF"), True, GREY),
        (encoded(Image.fromarray(GREY.astype(np.float32)), "TIFF"), True, GREY),
        (encoded(Image.fromarray(GREY.astype(np.float32) * 1e6 - 5e6), "TIFF"), True, GREY * (255 / 240)),
        (encoded(Image.fromarray(GREY).convert("CMYK"), "TIFF"), False, GREY),
    ],
    ids="L 1 LA RGBA RGBA-webp P P-transparent I;16 I;16-tiff I;16-dark I I-8bit F F-8bit F-wide CMYK".split(),  # noqa: SIM905
)
def test_modes(picture, grey, expected):
    assert surveyed(picture) == ((16, 16), grey)
    for channels in (1, 3):
        pixels = decode.read(picture, (16, 16, channels))
        assert np.abs(pixels - np.asarray(expected, float)[..., None]).max() <= 0.5


def test_colour_palettes_and_cmyk_jpeg_keep_their_colours():
    image = gradient(32, 32)
    for data in (encoded(image.quantize(), "PNG"), encoded(image.convert("CMYK"), "JPEG", quality=95)):
        assert surveyed(data)[1] is False
        assert np.abs(decode.read(data, (32, 32, 3)).astype(int) - np.asarray(image)).mean() < 12


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(kind, {})
    stored = np.asarray(gradient(48, 32))
    upright = {  # where the stored rows and columns belong, from the EXIF standard
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: stored[::-1].transpose(1, 0, 2),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: stored[:, ::-1].transpose(1, 0, 2),
    }[orientation]
    data = encoded(Image.fromarray(stored), kind, exif=exif, **options)
    assert surveyed(data) == ((upright.shape[1], upright.shape[0]), False)
    assert np.abs(decode.read(data, upright.shape).astype(int) - upright).mean() < 3


def test_the_middle_is_cut_out():
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200
    assert (decode.read(encoded(Image.fromarray(wide), "PNG"), (20, 20, 3)) == 200).all()
    tall = wide.transpose(1, 0, 2)
    assert (decode.read(encoded(Image.fromarray(tall), "PNG"), (20, 20, 3)) == 200).all()
    half = decode.read(encoded(Image.fromarray(wide), "PNG"), (10, 10, 3))
    assert half.shape == (10, 10, 3)
    assert (half[:, 1:-1] > 190).all()


def test_large_photos_are_decoded_small_and_look_the_same():
    image = gradient(1200, 900)
    exact = np.asarray(image.crop((150, 0, 1050, 900)).resize((64, 64), Image.Resampling.BICUBIC)).astype(int)
    data = encoded(image, "JPEG", quality=95)
    assert np.abs(decode.read(data, (64, 64, 3)) - exact).mean() < 3
    with Image.open(io.BytesIO(data)) as opened:
        decode.pixels(opened, (64, 64, 3))
        assert opened.size == (300, 225)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_cut_off_files_are_noticed_even_where_pillow_was_told_to_be_lenient(kind, share, monkeypatch):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    data = encoded(noise, kind)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as TensorFlow Datasets does
    bad = decode.decode_all([data, data[: int(share * len(data))]], np.zeros((2, 64, 64, 3), np.uint8))
    assert list(bad) == [1]
    with pytest.raises(OSError, match=r"cut off|damaged|not a picture"):
        decode.read(data[: int(share * len(data))], (64, 64, 3))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_reasons(tmp_path):
    (tmp_path / "text.jpg").write_text("this is not a picture")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    whole = save_image(tmp_path / "whole.jpg", toy_image(0, 0, side=32))
    (tmp_path / "half.jpg").write_bytes(whole.read_bytes()[:400])
    for name, reason in [
        ("text.jpg", "not a picture"),
        ("empty.png", "an empty file"),
        ("half.jpg", "cut off"),
        ("missing.jpg", "no such file"),
        ("folder.png", "a folder without pictures"),
    ]:
        with pytest.raises(OSError, match=f"^{reason}$"):
            decode.read(tmp_path / name, (8, 8, 3))


def test_a_name_with_the_wrong_suffix_is_read_by_its_content(tmp_path):
    path = tmp_path / "really_png.jpg"
    path.write_bytes(encoded(gradient(8, 8), "PNG"))
    assert decode.read(path, (8, 8, 3)).shape == (8, 8, 3)


def test_threads_put_each_picture_in_its_row(monkeypatch):
    monkeypatch.setattr(decode, "SMALL_FILE", 0)  # threads for the smallest files
    pictures = [encoded(Image.new("L", (8, 8), value), "PNG") for value in range(200)]
    out = np.zeros((200, 8, 8, 1), np.uint8)
    calls = []
    assert decode.decode_all(pictures, out, lambda *call: calls.append(call)) == {}
    assert (out == np.arange(200)[:, None, None, None]).all()
    assert calls[-1] == ("Reading pictures", 200, 200)


def test_sides():
    def side(*sizes: tuple[int, int]) -> int:
        return decode.Survey(np.array(sizes), np.zeros(len(sizes), bool)).side()

    assert side((28, 28), (28, 28)) == 28
    assert side((224, 224)) == 224
    assert side((225, 225)) == 160
    assert side((30, 20)) == 24
    assert side((30, 30), (0, 0), (50, 60), (90, 70)) == 48
    assert side((4000, 3000), (3000, 4000)) == 160
    assert side((3, 5)) == 8
