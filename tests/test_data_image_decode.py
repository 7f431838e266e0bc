"""The decoder reads all formats, modes, depths and orientations, and reports damaged files."""

import contextlib
import io
import os
import warnings

import numpy as np
import pytest
from conftest import make_special, save_image, toy_image
from PIL import Image, ImageFile

from dltoolkit.data.image import decode, modes
from dltoolkit.data.image.preprocessing import Preprocessing
from dltoolkit.data.readers.folders import File


def gradient(width: int, height: int) -> Image.Image:
    """Return a smooth color image, which JPEG preserves: red increases to the right and green downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 60)], -1).astype(np.uint8))


def encode(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def read(source, shape: tuple[int, int, int], **options) -> np.ndarray:
    return decode.read(source, Preprocessing(shape, **options))[0]


def survey_one(data: bytes) -> tuple[tuple[int, int], bool]:
    """Return size and whether the image is grayscale."""
    result = decode.survey([data], 1)
    assert not result.unreadable
    return tuple(result.sizes[0].tolist()), bool(result.grayscale[0])


@pytest.mark.parametrize(
    ("format", "options"),
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
def test_read_decodes_all_formats(format, options):
    image = gradient(32, 32)
    data = encode(image, format, **options)
    assert survey_one(data) == ((32, 32), False)
    error = np.abs(read(data, (32, 32, 3)).astype(int) - np.asarray(image))
    assert error.mean() < 3


GRAY = np.add.outer(np.arange(16), np.arange(16)).astype(np.uint8) * 8  # 0..240
WHITE_HALF = np.where(np.arange(16) < 8, GRAY, 255)  # GRAY with a transparent right half, on white


def with_alpha(image: Image.Image) -> Image.Image:
    alpha = np.where(np.arange(16) < 8, 255, 0).astype(np.uint8)
    image.putalpha(Image.fromarray(np.tile(alpha, (16, 1))))
    return image


def transparent_palette() -> bytes:
    index = np.where(np.arange(16) < 8, GRAY, 255).astype(np.uint8)
    image = Image.fromarray(index).convert("P")
    image.putpalette([value for value in range(256) for _ in range(3)])
    return encode(image, "PNG", transparency=255)


@pytest.mark.parametrize(
    ("data", "grayscale", "expected"),
    [
        (encode(Image.fromarray(GRAY), "PNG"), True, GRAY),
        (encode(Image.fromarray(GRAY > 99), "PNG"), True, (GRAY > 99) * 255),
        (encode(with_alpha(Image.fromarray(GRAY)), "PNG"), True, WHITE_HALF),
        (encode(with_alpha(Image.fromarray(GRAY).convert("RGB")), "PNG"), False, WHITE_HALF),
        (encode(with_alpha(Image.fromarray(GRAY).convert("RGB")), "WEBP", lossless=True), False, WHITE_HALF),
        (encode(Image.fromarray(GRAY).convert("P"), "PNG"), True, GRAY),
        (transparent_palette(), True, WHITE_HALF),
        (encode(Image.fromarray(GRAY.astype(np.uint16) * 257), "PNG"), True, GRAY),
        (encode(Image.fromarray(GRAY.astype(np.uint16) * 257), "TIFF"), True, GRAY),
        (encode(Image.fromarray(GRAY.astype(np.uint16) // 16), "PNG"), True, GRAY // 16),
        (encode(Image.fromarray(GRAY.astype(np.int32) * 257), "TIFF"), True, GRAY),
        (encode(Image.fromarray(GRAY.astype(np.int32)), "TIFF"), True, GRAY),
        (encode(Image.fromarray((GRAY / 255).astype(np.float32)), "TIFF"), True, GRAY),
        (encode(Image.fromarray(GRAY.astype(np.float32)), "TIFF"), True, GRAY),
        (encode(Image.fromarray(GRAY).convert("CMYK"), "TIFF"), False, GRAY),
    ],
    ids="L 1 LA RGBA RGBA-webp P P-transparent I;16 I;16-tiff I;16-dark I I-8bit F F-8bit CMYK".split(),  # noqa: SIM905
)
def test_read_decodes_all_modes(data, grayscale, expected):
    assert survey_one(data) == ((16, 16), grayscale)
    for channels in (1, 3):
        pixels = read(data, (16, 16, channels))
        assert np.abs(pixels - np.asarray(expected, float)[..., None]).max() <= 0.5


def test_read_preserves_the_colors_of_palettes_and_cmyk_jpeg():
    image = gradient(32, 32)
    for data in (encode(image.quantize(), "PNG"), encode(image.convert("CMYK"), "JPEG", quality=95)):
        assert survey_one(data)[1] is False
        assert np.abs(read(data, (32, 32, 3)).astype(int) - np.asarray(image)).mean() < 12


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_read_applies_the_exif_orientation(format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(format, {})
    stored = np.asarray(gradient(48, 32))
    upright = {  # the stored image as the EXIF standard orients it
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: stored[::-1].transpose(1, 0, 2),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: stored[:, ::-1].transpose(1, 0, 2),
    }[orientation]
    data = encode(Image.fromarray(stored), format, exif=exif, **options)
    assert survey_one(data) == ((upright.shape[1], upright.shape[0]), False)
    assert np.abs(read(data, upright.shape).astype(int) - upright).mean() < 3


def test_read_applies_the_exif_orientation_to_deep_images():
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.add.outer(np.arange(8) * 4000, np.arange(6) * 300).astype(np.uint16)
    pixels = read(encode(Image.fromarray(stored), "PNG", exif=exif), (6, 8, 1))
    assert (pixels[..., 0] == np.round(stored[::-1].T / 65535 * 255)).all()


def test_read_crops_the_center():
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200
    assert (read(encode(Image.fromarray(wide), "PNG"), (20, 20, 3)) == 200).all()
    tall = wide.transpose(1, 0, 2)
    assert (read(encode(Image.fromarray(tall), "PNG"), (20, 20, 3)) == 200).all()
    half = read(encode(Image.fromarray(wide), "PNG"), (10, 10, 3))
    assert half.shape == (10, 10, 3)
    assert (half[:, 1:-1] > 190).all()


def test_read_decodes_large_jpeg_files_at_a_fraction_of_their_size():
    image = gradient(1200, 900)
    exact = np.asarray(image.crop((150, 0, 1050, 900)).resize((64, 64), Image.Resampling.BICUBIC)).astype(int)
    data = encode(image, "JPEG", quality=95)
    assert np.abs(read(data, (64, 64, 3)) - exact).mean() < 3
    with Image.open(io.BytesIO(data)) as opened:
        Preprocessing((64, 64, 3)).pixels(opened)
        assert opened.size == (300, 225)


def test_read_ignores_a_damaged_exif_block():
    """Pillow's ImageOps.exif_transpose raises an error for this block, whose orientation is readable."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "A camera"
    stored = gradient(48, 32)
    data = encode(stored, "JPEG", quality=95, exif=exif).replace(b"\x01\x0f\x00\x02", b"\x01\x00\x00\x02")
    upright = np.rot90(np.asarray(stored), -1).astype(int)
    assert np.abs(read(data, (48, 32, 3)) - upright).mean() < 3


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
@pytest.mark.parametrize("fraction", [0.5, 0.9])
def test_read_refuses_truncated_files_although_pillow_allows_them(format, fraction, monkeypatch):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    data = encode(noise, format)
    truncated = data[: int(fraction * len(data))]
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # TensorFlow Datasets sets this
    assert list(
        decode.decode_all([data, truncated], np.zeros((2, 64, 64, 3), np.uint8), Preprocessing((64, 64, 3)))
    ) == [1]
    with pytest.raises(OSError, match=r"^(truncated|damaged|not an image)"):
        read(truncated, (64, 64, 3))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_read_names_the_reason_of_a_failure(tmp_path):
    (tmp_path / "text.jpg").write_text("this is not an image")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "phone.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (tmp_path / "film.png").write_bytes(b"\0\0\0\x18ftypisom\0\0\2\0isomiso2")
    (tmp_path / "drawing.png").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    complete = save_image(tmp_path / "complete.jpg", toy_image(0, 0, side=32))
    (tmp_path / "half.jpg").write_bytes(complete.read_bytes()[:400])
    for name, reason in [
        ("text.jpg", "not an image that can be read"),
        ("empty.png", "empty file"),
        ("half.jpg", "truncated"),
        ("missing.jpg", "no such file"),
        ("folder.png", "a folder, not an image"),
        ("phone.jpg", "a HEIC image, which cannot be read: convert it to JPEG"),
        ("film.png", "a video: extract its frames as images"),
        ("drawing.png", "a vector drawing: convert it to PNG"),
    ]:
        with pytest.raises(OSError, match=f"^{reason}$"):
            read(tmp_path / name, (8, 8, 3))


def encode_other_formats() -> dict[str, bytes]:
    """Return an image in each format that Pillow writes and that is not in ``modes.FORMATS``, and a Photoshop file."""
    image, encoded = (
        gradient(16, 16),
        {"PSD": b"8BPS\0\1" + bytes(6) + b"\0\3" + b"\0\0\0\x10" * 2 + b"\0\x08\0\3" + bytes(782)},
    )
    Image.init()
    for name in Image.SAVE.keys() - {*modes.FORMATS, "MPO"}:  # MPO is JPEG
        for mode in ("RGB", "L", "1", "F"):
            with contextlib.suppress(Exception):
                encoded[name] = encode(image.convert(mode), name)
                break
    return encoded


def test_read_refuses_other_formats_of_pillow_whatever_the_suffix(tmp_path):
    encoded = encode_other_formats()
    assert {"EPS", "PSD", "PPM", "TGA", "PDF", "JPEG2000"} <= encoded.keys()
    for name, content in encoded.items():
        (tmp_path / f"{name}.jpg").write_bytes(content)
        for source in (content, tmp_path / f"{name}.jpg"):
            with pytest.raises(OSError, match=r"^(not an image that can be read|an? [^:]+: (convert|export) i?t?.*)$"):
                read(source, (8, 8, 3))
    with pytest.raises(OSError, match="^a PostScript"):
        read(encoded["EPS"], (8, 8, 3))


def test_read_starts_no_program_for_postscript(tmp_path, monkeypatch):
    started = tmp_path / "started"
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {started}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    folder = tmp_path / "images"
    save_image(folder / "a" / "0.png", toy_image(0, 0))
    (folder / "a" / "drawing.jpg").write_bytes(encode(gradient(16, 16), "EPS"))
    sources = [folder / "a" / "drawing.jpg", folder / "a" / "0.png"]
    assert list(decode.survey(sources, 2).unreadable) == [0]
    pixels = np.zeros((2, 16, 16, 3), np.uint8)
    assert list(decode.decode_all(sources, pixels, Preprocessing((16, 16, 3)))) == [0]
    assert not started.exists()


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a socket"])
def test_read_refuses_special_files_at_once(tmp_path, kind):
    path = make_special(tmp_path / "image.png", kind)
    sources = [path, str(path), File(str(path), 100, 0)]
    for source in sources:
        with pytest.raises(OSError, match=f"^{kind}, not a regular file$"):
            read(source, (8, 8, 3))
    assert list(decode.survey(sources, 3).unreadable) == [0, 1, 2]


def test_read_downloads_nothing():
    with pytest.raises(OSError, match="^a URL, which is not downloaded: save the image and give its path$"):
        read("https://example.com/cat.jpg", (8, 8, 3))


def test_read_takes_the_bytes_of_a_file():
    assert (read(encode(gradient(8, 8), "PNG"), (8, 8, 3)) == np.asarray(gradient(8, 8))).all()


def test_read_ignores_a_wrong_suffix(tmp_path):
    path = tmp_path / "really_png.jpg"
    path.write_bytes(encode(gradient(8, 8), "PNG"))
    assert read(path, (8, 8, 3)).shape == (8, 8, 3)


def test_decode_all_with_threads_keeps_the_order(monkeypatch):
    monkeypatch.setattr(decode, "SMALL_FILE", 0)  # use threads even for tiny files
    images = [encode(Image.new("L", (8, 8), value), "PNG") for value in range(200)]
    out = np.zeros((200, 8, 8, 1), np.uint8)
    calls = []
    assert decode.decode_all(images, out, Preprocessing((8, 8, 1)), lambda *call: calls.append(call)) == {}
    assert (out == np.arange(200)[:, None, None, None]).all()
    assert calls[-1] == ("Reading images", 200, 200)


def test_survey_side_is_that_of_small_squares_or_the_median():
    def side(*sizes: tuple[int, int]) -> int:
        nothing = np.zeros(len(sizes), bool)
        return decode.Survey(np.array(sizes), nothing, nothing, nothing).side("crop")

    assert side((28, 28), (28, 28)) == 28
    assert side((224, 224)) == 224
    assert side((225, 225)) == 160
    assert side((30, 20)) == 24
    assert side((30, 30), (0, 0), (50, 60), (90, 70)) == 48
    assert side((4000, 3000), (3000, 4000)) == 160
    assert side((3, 5)) == 8


def test_read_is_silent_about_what_pillow_warns_of(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)  # Pillow warns of images with more pixels
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read(encode(gradient(8, 8), "PNG"), (8, 8, 3))
        read(encode(gradient(4, 4), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\xff\xff"), (4, 4, 3))
    assert not caught


def test_read_names_a_link_that_leads_back_to_itself(tmp_path):
    (tmp_path / "a.png").symlink_to("a.png")
    with pytest.raises(OSError, match="^a symbolic link that leads back to itself$"):
        read(tmp_path / "a.png", (8, 8, 3))
