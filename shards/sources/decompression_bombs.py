"""What makes an image take far more memory or time than its file lets expect: found before a pixel is decoded."""

from __future__ import annotations

import re
from typing import Literal

from PIL import Image, JpegImagePlugin, TiffImagePlugin

MAX_SCANS = (
    200  # encoders write about ten, optimisers up to a hundred; each goes over the whole picture
)
# Where libjpeg stops: neither at stuffed bytes nor at restarts. After the end comes what is no part of the picture.
_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd9-\xef\xfe])")
_SCAN, _END = b"\xda", b"\xd9"
_TILE = (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)


def excess(image: Image.Image, data: bytes, max_pixels: int) -> str:
    """What is too much of the image that was opened from `data`; "" if nothing is."""
    if image.width * image.height > max_pixels:
        return f"{image.width} x {image.height} pixels, more than {max_pixels}"
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        return f"more than {MAX_SCANS} scans" if _num_scans(data) > MAX_SCANS else ""
    return (
        _excess_of_tiles(image, data, max_pixels)
        if isinstance(image, TiffImagePlugin.TiffImageFile)
        else ""
    )


def _num_scans(data: bytes) -> int:
    """How often a JPEG's pixels are gone over; no marker inside of metadata counts."""
    scans, place = 0, 2
    while scans <= MAX_SCANS and (found := _MARKER.search(data, place)) and found[1] != _END:
        scans += found[1] == _SCAN
        place = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return scans


def _excess_of_tiles(image: TiffImagePlugin.TiffImageFile, data: bytes, max_pixels: int) -> str:
    """Of whole tiles, which libtiff decodes however little of them is shown."""
    told = _num_told(data)
    tile = [image.tag_v2.get(tag) for tag in _TILE]
    if not told:
        return ""
    if told != len(tile) or not all(isinstance(side, int) and side > 0 for side in tile):
        return "tiles of no certain size"
    stored = image.tag_v2[TiffImagePlugin.IMAGEWIDTH], image.tag_v2[TiffImagePlugin.IMAGELENGTH]
    width, height = (-(-side // each) * each for side, each in zip(stored, tile, strict=True))
    return (
        f"{width} x {height} pixels in tiles, more than {max_pixels}"
        if width * height > max_pixels
        else ""
    )


def _num_told(data: bytes) -> int:
    """How many entries of a TIFF's first directory tell a side of the tiles: Pillow passes some over, libtiff not."""
    order: Literal["little", "big"] = "little" if data[:1] == b"I" else "big"
    offset, head, step = (8, 8, 20) if data[2] == 43 else (4, 2, 12)  # BigTIFF or not
    start = int.from_bytes(data[offset : 2 * offset], order)
    end = start + head + step * int.from_bytes(data[start : start + head], order)
    places = range(start + head, min(end, len(data)), step)
    return sum(int.from_bytes(data[place : place + 2], order) in _TILE for place in places)
