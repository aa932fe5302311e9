"""Read the metadata of an image file that its colorized copy keeps.

These are the dates of the photograph and its resolution in dots per inch.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, PngImagePlugin

from shards.files import open_regular
from shards.sources.image_formats import FORMATS, JXL_SIGNATURES

_MOST_PAGES = 1000  # of a TIFF
_BASE, _EXIF = ExifTags.Base, ExifTags.IFD.Exif
# The rest may be private (position, names, serial numbers) or no longer applies
# (orientation, colour profile, thumbnail).
_DATES = (_BASE.DateTime, _BASE.DateTimeOriginal, _BASE.DateTimeDigitized)
_OFFSETS = (_BASE.OffsetTime, _BASE.OffsetTimeOriginal, _BASE.OffsetTimeDigitized)
_DATE = re.compile(r"\d{4}:\d\d:\d\d \d\d:\d\d:\d\d")
_OFFSET = re.compile(r"[+-]\d\d:\d\d")
_ROTATED = (5, 6, 7, 8)  # Exif orientations that exchange width and height


@dataclass(frozen=True)
class Metadata:
    """The number of pages of an image, and the metadata that a colorized copy keeps."""

    dates: dict[int, str]  # Exif tag -> date or time zone
    dpi: tuple[float, float] | None = None  # dots per inch across and down, when upright
    num_pages: int = 1  # pages of a document or frames of an animation

    def png_options(self) -> dict[str, Any]:
        """Return options for `Image.save` that write an sRGB PNG with this metadata."""
        info = PngImagePlugin.PngInfo()
        info.add(b"sRGB", b"\0")  # rendering intent: perceptual
        options: dict[str, Any] = {"pnginfo": info}
        if self.dpi:
            options["dpi"] = self.dpi
        if self.dates:
            options["exif"] = self._exif()
        return options

    def _exif(self) -> Image.Exif:
        exif = Image.Exif()
        for tag, value in self.dates.items():
            folder = exif if tag == _BASE.DateTime else exif.get_ifd(_EXIF)
            folder[tag] = value
        return exif


def read_metadata(data: bytes) -> Metadata:
    """Return the metadata of an encoded image; a damaged image gives empty metadata."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Not an image that is opened for decoding, so that the decoder still
            # reports errors.
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            dates, orientation = _read_exif(image)
            return Metadata(dates, _read_dpi(image, orientation), _count_pages(image))
    except Exception:  # Pillow's parsers raise many types of errors on damaged files
        return Metadata({})


def is_image(path: Path) -> bool:
    """Return whether the content of a file is an image of a known format."""
    try:
        with warnings.catch_warnings(), open_regular(path) as stream:
            warnings.simplefilter("ignore")
            if stream.read(12).startswith(JXL_SIGNATURES):
                return "JXL" in FORMATS  # its plugin would decode the whole image
            stream.seek(0)
            Image.open(stream, formats=FORMATS)
    except Exception:  # see `read_metadata`
        return False
    return True


def _read_exif(image: Image.Image) -> tuple[dict[int, str], int]:
    """Return the dates and the orientation that an image's Exif data contain."""
    if isinstance(image, PngImagePlugin.PngImageFile) and "exif" not in image.info:
        return {}, 1  # getexif would decode the pixels to look for Exif data behind them
    exif = image.getexif()
    values = {**exif, **exif.get_ifd(_EXIF)}
    checks = dict.fromkeys(_DATES, _DATE) | dict.fromkeys(_OFFSETS, _OFFSET)
    dates = {
        int(tag): values[tag]
        for tag, pattern in checks.items()
        if isinstance(values.get(tag), str) and pattern.fullmatch(values[tag])
    }
    orientation = values.get(_BASE.Orientation, 1)
    return dates, orientation if isinstance(orientation, int) else 1


def _read_dpi(image: Image.Image, orientation: int) -> tuple[float, float] | None:
    """Return the dots per inch of the upright image, or None."""
    try:
        across, down = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if not all(math.isfinite(value) and 1 <= value <= 100_000 for value in (across, down)):
        return None
    return (down, across) if orientation in _ROTATED else (across, down)


def _count_pages(image: Image.Image) -> int:
    """Return the number of pages or frames of an image, at most 1000 for a TIFF."""
    if image.format == "MPO":
        return 1  # its other images are previews and gain maps
    if image.format != "TIFF":
        return int(getattr(image, "n_frames", 1))
    try:
        for page in range(1, _MOST_PAGES):  # each takes one more seek in the file
            image.seek(page)
    except EOFError:
        return image.tell() + 1
    return _MOST_PAGES
