"""Metadata of images: what is kept, what is not, and the number of pages."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile

from shards.sources.metadata import Metadata, is_image, read_metadata
from tests.support.photographs import encode

TAKEN, CHANGED = "1999:12:31 23:59:58", "2001:02:03 04:05:06"
BASE, IFD = ExifTags.Base, ExifTags.IFD


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))


def exif(orientation: int = 1, taken: str = TAKEN) -> Image.Exif:
    """Return Exif data with dates, and with what must not be kept."""
    document = Image.Exif()
    document[BASE.DateTime] = CHANGED
    document[BASE.Orientation] = orientation
    document[BASE.Artist], document[BASE.Make] = "Jane Doe", "Camera"
    document.get_ifd(IFD.Exif)[BASE.DateTimeOriginal] = taken
    document.get_ifd(IFD.Exif)[BASE.OffsetTimeOriginal] = "+01:00"
    document.get_ifd(IFD.Exif)[BASE.BodySerialNumber] = "123456"
    document.get_ifd(IFD.GPSInfo)[1] = "N"
    return document


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_dates_are_kept_and_nothing_else_of_exif(kind: str) -> None:
    metadata = read_metadata(encode(picture(), kind, exif=exif(6)))
    data = encode(picture(), "PNG", **metadata.png_options())
    with Image.open(io.BytesIO(data)) as image:
        kept = image.getexif()
        assert {tag: kept[tag] for tag in kept if tag != IFD.Exif} == {BASE.DateTime: CHANGED}
        assert kept.get_ifd(IFD.Exif) == {
            BASE.DateTimeOriginal: TAKEN,
            BASE.OffsetTimeOriginal: "+01:00",
        }
    for private in (b"Jane", b"Camera", b"123456"):
        assert private not in data


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP"])
def test_the_resolution_is_that_of_the_upright_image(kind: str) -> None:
    options: dict[str, Any] = {"dpi": (300, 150)}
    if kind != "BMP":
        options["exif"] = exif(8)
    metadata = read_metadata(encode(picture(), kind, **options))
    expected = (300, 150) if kind == "BMP" else (150, 300)
    assert metadata.dpi == pytest.approx(expected, abs=0.1)
    with Image.open(io.BytesIO(encode(picture(), "PNG", **metadata.png_options()))) as image:
        assert image.info["dpi"] == pytest.approx(expected, abs=0.1)


def test_colours_are_tagged_as_srgb_also_without_any_metadata() -> None:
    data = encode(picture(), "PNG", **read_metadata(encode(picture(), "PPM")).png_options())
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["srgb"] == 0
        assert "dpi" not in image.info
        assert not image.getexif()
        assert data.index(b"sRGB") < data.index(b"IDAT")


@pytest.mark.parametrize("taken", ["Jane Doe's birthday", "1999:12:31 23:59:58 of Jane", "    :  "])
def test_text_in_place_of_a_date_is_not_kept(taken: str) -> None:
    dates = read_metadata(encode(picture(), "JPEG", exif=exif(taken=taken))).dates
    assert dates == {BASE.DateTime: CHANGED, BASE.OffsetTimeOriginal: "+01:00"}


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_pages_and_frames_are_counted(kind: str) -> None:
    frames = [picture().point(lambda value, n=n: (value + 9 * n) % 256) for n in range(7)]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    assert read_metadata(data).num_pages == 7
    assert read_metadata(encode(frames[0], kind)).num_pages == 1


def test_the_previews_of_a_photograph_are_no_pages() -> None:
    preview = picture().resize((15, 10))
    assert read_metadata(encode(picture(), "MPO", save_all=True, append_images=[preview])) == (
        Metadata({})
    )


def test_damaged_files_have_no_metadata() -> None:
    assert read_metadata(b"no image") == Metadata({})
    data = encode(picture(), "JPEG", exif=exif())
    at = data.index(b"Exif\0\0") + 10
    assert read_metadata(data[:at] + b"\xff" * 8 + data[at + 8 :]).dates == {}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF"])
def test_no_pixels_are_decoded_for_metadata(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: decoded.append(image.format))
    read_metadata(encode(picture(), kind, dpi=(300, 300)))
    assert decoded == []


def test_images_are_recognized_by_content(tmp_path: Path) -> None:
    contents = {
        "a": encode(picture(), "PNG"),
        "b.txt": b"Pf is not an image",
        "c.png": b"",
        "d": b"P6",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe")
    assert [path.name for path in sorted(tmp_path.iterdir()) if is_image(path)] == ["a"]
