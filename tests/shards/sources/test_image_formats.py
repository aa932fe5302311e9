"""Tests of image_formats: files that cannot be decoded are named by their content."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from shards.sources.decode import UndecodableError, decode_image
from shards.sources.image_formats import FORMATS, name_unsupported
from tests.support.photographs import encode, photograph

RGB = photograph("coffee")[:48, :64]


def brand(name: bytes) -> bytes:
    return b"\0\0\0\x18ftyp" + name + bytes(12)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"", "an empty file"),
        (b" \n", "an empty file"),
        (brand(b"heic"), r"a HEIC image: .*pip install 'colortrain\[heic\]'"),
        (b"\xff\x0a" + bytes(20), r"a JPEG XL image: .*colortrain\[jxl\]"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
        (brand(b"avif"), "an AVIF image"),
        (brand(b"crx "), "a camera raw file"),
        (b"II\x2a\0\x10\0\0\0CR\2\0", "a camera raw file"),
        (brand(b"isom"), "a video"),
        (b"8BPS\0\1", "a Photoshop file"),
        (b"%PDF-1.7", "a PostScript or PDF file"),
        (b'<?xml version="1.0"?>\n<!-- x -->\n<svg xmlns=', "an SVG drawing"),
        (b"<!DOCTYPE html><html>", "an HTML page, as after a failed download"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        (b"plain text", "no image of a known format"),
    ],
)
def test_files_are_named_by_their_first_bytes(data: bytes, name: str) -> None:
    import re

    assert re.match(name, name_unsupported(data))


def test_jpeg_with_12_bits_and_lossless_jpeg_are_named() -> None:
    data = encode(RGB, "JPEG")
    frame = data.index(b"\xff\xc0")
    deep = data[: frame + 4] + b"\x0c" + data[frame + 5 :]
    lossless = data[:frame] + b"\xff\xc3" + data[frame + 2 :]
    for damaged, reason in ((deep, "12 bits per channel"), (lossless, "lossless JPEG")):
        with pytest.raises(UndecodableError, match=reason):
            decode_image(damaged)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (np.float64, "64 bits per pixel, floating-point"),
        (np.uint32, r"32 \+ 32 \+ 32 bits per pixel, which"),
        (np.float32, r"32 \+ 32 \+ 32 bits per pixel, floating-point"),
    ],
)
def test_tiffs_with_unsupported_pixels_are_named(kind: type, reason: str) -> None:
    import tifffile

    stream = io.BytesIO()
    pixels = RGB[..., 0] if kind is np.float64 else RGB
    photometric = "minisblack" if kind is np.float64 else "rgb"
    tifffile.imwrite(stream, pixels.astype(kind), photometric=photometric)
    with pytest.raises(UndecodableError, match=reason):
        decode_image(stream.getvalue())


@pytest.mark.parametrize("name", ["HEIF", "JXL"])
def test_optional_formats_are_decoded(name: str) -> None:
    if name not in FORMATS:
        pytest.skip("colortrain[heic,jxl] is not installed")
    options = {"quality": -1, "chroma": 444} if name == "HEIF" else {"lossless": True}
    assert (
        np.abs(np.asarray(decode_image(encode(RGB, name, **options))).astype(int) - RGB).max() <= 2
    )


def test_orientation_of_a_jxl_is_applied_once() -> None:
    if "JXL" not in FORMATS:
        pytest.skip("colortrain[heic,jxl] is not installed")
    exif = Image.Exif()
    exif[0x0112] = 6
    # libjxl applies the orientation of its header; the one in Exif does not count
    assert decode_image(encode(RGB, "JXL", lossless=True, exif=exif.tobytes())).size == (64, 48)


def test_large_jxl_is_rejected_before_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    if "JXL" not in FORMATS:
        pytest.skip("colortrain[heic,jxl] is not installed")
    data = encode(np.zeros((1200, 2000, 3), np.uint8), "JXL", lossless=True)
    monkeypatch.setattr("PIL.Image.open", lambda *args, **kwargs: pytest.fail("opened"))
    with pytest.raises(UndecodableError, match="2000 x 1200 pixels, more than --max-pixels"):
        decode_image(data, max_pixels=1_000_000)


def test_without_the_optional_packages_the_extra_is_named() -> None:
    if not {"HEIF", "JXL"} <= set(FORMATS):
        pytest.skip("colortrain[heic,jxl] is not installed")
    code = (
        "import sys; sys.modules['pillow_heif'] = sys.modules['pillow_jxl'] = None\n"
        "from shards.sources.decode import UndecodableError, decode_image\n"
        "for data in (sys.stdin.buffer.read(),):\n"
        "    try: decode_image(data)\n"
        "    except UndecodableError as error: print(error)\n"
    )
    for name, extra in (("HEIF", b"heic"), ("JXL", b"jxl")):
        result = subprocess.run(
            [sys.executable, "-c", code], input=encode(RGB, name), capture_output=True, check=True
        )
        assert b"pip install 'colortrain[" + extra + b"]'" in result.stdout
